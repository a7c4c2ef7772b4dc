"""Programs that tests start, as forks of one process that has imported the libraries.

Importing torch, torchvision, timm and the package takes a processor four seconds, and a fork takes none. `start` and
`run` are given what `subprocess.Popen` and `subprocess.run` are; `call` runs a function in processes of its own, free
of the tests' run-time type checks. Tests of what is imported, and when, start real processes; so does everything where
forks are not at home (macOS, Windows) and what is not Python.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

TESTS = Path(__file__).parents[1]
OWNER = "SELFDISTILL_TESTS_OWNER"  # in the environment: the process that all others belong to, and its folder
POPEN, RUN = subprocess.Popen, subprocess.run


class Fork:
    """A running program, with what tests and launchers use of `subprocess.Popen`."""

    def __init__(
        self,
        words: Sequence[str],
        *,
        cwd: str | Path | None = None,
        env: dict[str, str] | None = None,
        stdout: int | IO[Any] | None = None,
        stderr: int | IO[Any] | None = None,
        text: bool = False,
        start_new_session: bool = False,
    ) -> None:
        self.args, self.returncode, self.text = words, None, text
        outputs = [open_output(stdout, 1), open_output(stderr, 2)]
        written = [output.fileno() for output in outputs if output is not None]
        if stderr == subprocess.STDOUT:
            written.append(written[0])
        request = {
            "words": words,
            "folder": str(cwd or os.getcwd()),
            "environment": env or dict(os.environ),
            "session": start_new_session,
        }
        self.server = connect()
        socket.send_fds(self.server, [json.dumps(request).encode()], written)
        self.pid = int(self.server.recv(100))
        self.outputs = [
            output if given == subprocess.PIPE else None
            for output, given in zip(outputs, (stdout, stderr), strict=True)
        ]
        for output in outputs:
            if output is not None and output not in self.outputs:
                output.close()

    def poll(self) -> int | None:
        return self._wait(0)

    def wait(self, timeout: float | None = None) -> int:
        if self._wait(timeout) is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        assert self.returncode is not None
        return self.returncode

    def _wait(self, timeout: float | None) -> int | None:
        if self.returncode is None:
            self.server.settimeout(timeout)
            with contextlib.suppress(TimeoutError, BlockingIOError):
                self.returncode = int(self.server.recv(100))
                self.server.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> list[Any]:
        """Waits, and gives what was written to standard output and error, of those that were asked for."""
        self.wait(timeout)
        return [None if output is None else self._read(output) for output in self.outputs]

    def _read(self, output: IO[bytes]) -> Any:
        with output:
            output.seek(0)
            data = output.read()
        return data.decode() if self.text else data


def open_output(given: int | IO[Any] | None, standard: int) -> IO[bytes] | None:
    """The file behind what `subprocess.Popen` takes as stdout or stderr; a pipe is a file in memory, to be read."""
    if given == subprocess.PIPE:
        return os.fdopen(os.memfd_create("output"), "w+b")
    if given == subprocess.STDOUT:
        return None
    if given == subprocess.DEVNULL:
        return os.fdopen(os.open(os.devnull, os.O_WRONLY), "wb")
    descriptor = standard if given is None else given if isinstance(given, int) else given.fileno()
    return os.fdopen(descriptor, "wb", closefd=False)


def start(args: Sequence[Any], **options: Any) -> Any:
    """`subprocess.Popen`, but a fork where the command is one of this Python."""
    if not is_python(args):
        return POPEN(args, **options)
    return Fork([str(word) for word in args[1:] if word != "-u"], **options)


def is_python(command: Any) -> bool:
    """Whether a command can be run by a fork; pytest rewrites what it imports, and so must do it itself."""
    words = [command] if isinstance(command, str | bytes | os.PathLike) else [*map(str, command)]
    return sys.platform == "linux" and words[0] == sys.executable and "pytest" not in words


def run(
    command: Sequence[Any], *, capture_output: bool = False, check: bool = False, timeout: Any = None, **options: Any
) -> subprocess.CompletedProcess[Any]:
    """`subprocess.run`, but a fork where the command is one of this Python."""
    if not is_python(command):
        return RUN(command, capture_output=capture_output, check=check, timeout=timeout, **options)
    if capture_output:
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = start(command, **options)
    try:
        written = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise
    if check and process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, *written)
    return subprocess.CompletedProcess(command, process.returncode, *written)


def call(function: Callable[..., Any], *arguments: Any, processes: int = 1) -> None:
    """Calls `function(rank, *arguments)` in some processes and waits; a process that fails ends the others."""
    code = "import sys; from {} import {} as f; f({}, *{!r})"
    words = [code.format(function.__module__, function.__name__, rank, arguments) for rank in range(processes)]
    running = [start([sys.executable, "-c", word], stderr=subprocess.PIPE, text=True, cwd=TESTS) for word in words]
    while any(process.poll() is None for process in running):
        if any(process.returncode for process in running):
            for process in running:
                process.kill()
        time.sleep(0.02)
    said = [process.communicate()[1] for process in running]
    assert not any(process.returncode for process in running), "\n".join(said)


def fork_what_this_starts() -> None:
    """Lets the code of this process that starts Python by `subprocess` start forks."""
    subprocess.Popen, subprocess.run = start, run  # type: ignore[assignment, misc]


def connect() -> socket.socket:
    """A connection to the server, which is started by whoever comes first."""
    owner, folder = os.environ[OWNER].split(":", 1)
    address, server = f"{folder}/forks", None
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            connection.connect(address)
            return connection
        except (FileNotFoundError, ConnectionRefusedError):  # one that has no socket yet, or does not listen yet
            connection.close()
        if server is None:
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
            environment |= {"ARROW_DEFAULT_MEMORY_POOL": "system"}  # its own has a thread
            environment |= {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"}  # the other starts CUDA, which no fork survives
            words = [sys.executable, "-m", "helpers.fork_server", address, owner]
            server = os.spawnve(os.P_NOWAIT, sys.executable, words, environment)
        time.sleep(0.02)


def share_server() -> Callable[[], None]:
    """Lets this process and those that it starts share a server, which ends with it; gives what cleans up."""
    folder = tempfile.TemporaryDirectory()
    os.environ[OWNER] = f"{os.getpid()}:{folder.name}"
    return folder.cleanup
