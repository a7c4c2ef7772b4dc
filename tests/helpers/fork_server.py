"""A process that has imported the libraries, and forks for each program that a test starts; see `helpers.programs`.

It starts no thread and computes nothing, so that a fork of it is as good as a new process.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import threading
import traceback
from typing import Any

from helpers import programs

MODULES = ["torch", "torchvision", "timm.scheduler", "timm.utils", "torchmetrics", "sklearn.datasets"]
MODULES += ["accelerate.tracking", "selfdistill.commands.train", "selfdistill.commands.compare"]
MAX_BYTES = 2**20  # of a request


def serve(address: str, owner: int) -> None:
    """Answers every request on the socket `address` until the process `owner` is gone."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        listener.bind(address)
    except OSError:  # another server was faster
        return
    listener.listen(100)
    gc.disable()
    for module in MODULES:
        importlib.import_module(module)
    gc.freeze()  # nothing that was imported is garbage: no fork needs to look through it
    gc.enable()
    running: dict[int, socket.socket] = {}
    awake, wake = socket.socketpair()
    for end in (awake, wake):
        end.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake.fileno())
    with listener:
        while is_alive(owner) and os.path.exists(address):
            ready, _, _ = select.select([listener, awake], [], [], 1.0)
            if awake in ready:
                awake.recv(1000)
                tell_ends(running)
            if listener in ready:
                client, _ = listener.accept()
                message, descriptors, _, _ = socket.recv_fds(client, MAX_BYTES, 2)
                child = os.fork()
                if not child:
                    for other in (listener, awake, wake, client, *running.values()):
                        other.close()
                    become(json.loads(message), descriptors)
                for descriptor in descriptors:
                    os.close(descriptor)
                client.send(str(child).encode())
                running[child] = client


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def tell_ends(running: dict[int, socket.socket]) -> None:
    """Sends the status of every child that ended to whoever asked for it."""
    while running:
        child, status = os.waitpid(-1, os.WNOHANG)
        if not child:
            return
        with running.pop(child) as client, contextlib.suppress(OSError):  # it may not want to know any more
            client.send(str(os.waitstatus_to_exitcode(status)).encode())


def become(request: dict[str, Any], descriptors: list[int]) -> None:
    """Turns this process into the program that was asked for, to its end."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if request["session"]:
            os.setsid()
        for standard, descriptor in enumerate([os.open(os.devnull, os.O_RDONLY), *descriptors]):
            os.dup2(descriptor, standard)
            os.close(descriptor)
        sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        os.chdir(request["folder"])
        os.environ.clear()
        os.environ.update(request["environment"])
        programs.fork_what_this_starts()
        sys.modules["torch"].set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        status = run(request["words"])
    finally:
        os._exit(status)


def run(words: list[str]) -> int:
    """What `python WORDS` does; gives its exit status."""
    first, *rest = words
    try:
        if first in ("-m", "-c"):
            sys.path.insert(0, os.getcwd())
            sys.argv = rest
        if first == "-m":
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        elif first == "-c":
            sys.argv = ["-c", *rest[1:]]
            exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
        else:
            sys.path.insert(0, os.path.dirname(os.path.abspath(first)))
            sys.argv = words
            runpy.run_path(first, run_name="__main__")
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        status = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    return status


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
