"""The program: `selfdistill`, and `python -m selfdistill`, which torchrun and accelerate start."""

import sys
from types import TracebackType


def main() -> None:
    """Runs the command line; whatever Ctrl-C breaks off, an import too, ends in one word."""
    sys.excepthook = report_uncaught
    from .cli import main

    main()


def report_uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Prints a traceback, but not for Ctrl-C, which libraries that are being imported may turn into other errors."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, KeyboardInterrupt):
            print("interrupted", file=sys.stderr)
            return
        cause = cause.__cause__ or cause.__context__
    sys.__excepthook__(kind, error, traceback)


if __name__ == "__main__":
    main()
