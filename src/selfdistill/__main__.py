"""`python -m selfdistill`, which `accelerate launch -m selfdistill` and `torchrun -m selfdistill` start too."""

from .cli import main

main()
