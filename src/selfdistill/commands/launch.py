"""Several processes on a CPU from `accelerate launch --cpu --num_processes N`.

For a CPU that launcher starts one process and leaves the others to MPI. It says how many were asked for only on its own
command line; what it does set is where they should meet. So the one process that it starts hands over to torchrun.
"""

import os
import sys
from collections.abc import Sequence


def hand_over() -> None:
    """Replaces this process by torchrun's where accelerate was asked for several CPU processes and started one."""
    if os.environ.get("ACCELERATE_USE_CPU", "").lower() not in ("true", "1") or "RANK" in os.environ:
        return
    if "MASTER_PORT" not in os.environ:  # accelerate sets it for several processes only
        return
    import psutil

    count = number_of_processes(psutil.Process(os.getppid()).cmdline())
    if count is None:
        raise ValueError(
            "accelerate launch starts one process on a CPU and does not say here how many were asked for; "
            "give --num_processes on its command line, or use torchrun --nproc_per_node N -m selfdistill ..."
        )
    meet = ["--master_addr", os.environ["MASTER_ADDR"], "--master_port", os.environ["MASTER_PORT"]]
    torchrun = ["-m", "torch.distributed.run", "--nproc_per_node", str(count), *meet, "-m", "selfdistill"]
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *torchrun, *sys.argv[1:]])


def number_of_processes(command: Sequence[str]) -> int | None:
    """What --num_processes says on a command line of accelerate.

    >>> number_of_processes(["accelerate", "launch", "--cpu", "--num_processes", "2", "-m", "selfdistill"])
    2
    >>> number_of_processes(["accelerate", "launch", "--num-processes=4", "x.py"])
    4
    """
    for place, word in enumerate(command):
        name, equals, value = word.partition("=")
        if name in ("--num_processes", "--num-processes", "-np"):
            text = value if equals else next(iter(command[place + 1 :]), "")
            return int(text) if text.isdigit() else None
    return None
