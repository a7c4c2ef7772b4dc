"""watch: shows runs that are still going on in a browser of this machine."""

import re
import shlex
import time
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock

from ..errors import one_line
from ..report.document import draw_document, to_html
from ..report.elements import element
from ..report.evidence import gather_evidence
from ..report.live import draw_progress, read_progress
from ..report.page import draw_page
from .console import say, tell
from .report import compare_paths, list_arms

LOG = "metrics.jsonl"
ADDRESS = "127.0.0.1"  # reached from this machine alone
SECONDS, PATIENCE = 5, 10  # a browser looks again after 5 s, or after 10 times what drawing took
# What a browser may call this server, on whatever port a tunnel has. Another name was made to lead here by the page of
# somebody else, which would then read the answer.
OWN_HOST = re.compile(r"(127\.0\.0\.1|localhost)(:\d{1,5})?", re.ASCII | re.IGNORECASE)
LONGEST = 10  # seconds that a request may take
HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}


def watch(path: Path, *, port: int = 0, trust: bool = False) -> None:
    """Serves the report of a run, or of the folder of a comparison, until Ctrl-C; port 0 takes a free one."""
    list_arms([path], trust=trust)  # refuses what is neither
    try:
        server = WatchServer(lambda: draw_live_page(path, trust=trust), lambda: list_logs(path), port)
    except OSError as error:
        raise ValueError(f"--port={port} cannot be taken ({error.strerror}); name another, or leave it out") from None
    with server:
        say(f"http://{ADDRESS}:{server.server_port}/ shows {path} to browsers of this machine; Ctrl-C ends it")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            tell("no longer watched; training goes on")


def list_logs(path: Path) -> list[Path]:
    """The logs of a run, or of all runs in a folder."""
    return sorted({path / LOG, *(file.with_name(LOG) for file in path.glob("*/recipe.yaml"))})


def draw_live_page(path: Path, *, trust: bool = False) -> str:
    """The report as it would be now, below a table of how far each run is."""
    comparison, plan = compare_paths([path], trust=trust)
    evidence = gather_evidence(comparison, plan.controls, trust=trust)
    page = draw_page(
        evidence,
        command=shlex.join(["selfdistill", "report", str(path)]),
        gallery="The report of the finished runs shows the images.",
        progress=draw_progress([read_progress(run.run, run.records) for run in evidence.runs]),
    )
    return to_html(page)


class WatchServer(ThreadingHTTPServer):
    """Answers a GET of / with the page that `draw` gives, drawn anew when one of the `files` changed. Nothing else."""

    daemon_threads = True

    def __init__(self, draw: Callable[[], str], list_files: Callable[[], Sequence[Path]], port: int = 0) -> None:
        super().__init__((ADDRESS, port), WatchHandler)
        self.draw, self.list_files = draw, list_files
        self.lock, self.page = Lock(), b""
        self.drawn_from: list[tuple[Path, int, int]] | None = None

        self.seconds = SECONDS  # after which a browser looks again

    def get_page(self) -> bytes:
        """The page of what the files say now."""
        with self.lock:
            states = [(file, *_look_at(file)) for file in self.list_files()]
            if states != self.drawn_from:
                started = time.monotonic()
                self.page = self.draw().encode()
                self.drawn_from = states
                self.seconds = max(SECONDS, round(PATIENCE * (time.monotonic() - started)))
            return self.page


def _look_at(file: Path) -> tuple[int, int]:
    """When a file was changed, and its size."""
    try:
        status = file.stat()
    except OSError:
        return 0, 0
    return status.st_mtime_ns, status.st_size


class WatchHandler(BaseHTTPRequestHandler):
    """One request of a browser."""

    server: WatchServer
    timeout = LONGEST
    server_version, sys_version = "selfdistill", ""

    def do_GET(self) -> None:
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or not OWN_HOST.fullmatch(hosts[0]):
            self._send(403, b"This server is for the browser of its own machine.\n")
        elif self.path != "/":
            self._send(404, b"There is nothing but /.\n")
        else:
            self._send_page()

    do_HEAD = do_GET

    def _send_page(self) -> None:
        try:
            status, page = 200, self.server.get_page()
        except Exception as error:  # of a damaged file, or one that is just being written: a later look may succeed
            problem = element("p", f"The runs cannot be read: {one_line(error)}")
            status, page = 503, to_html(draw_document("Watch", problem)).encode()
        self._send(status, page)

    def _send(self, status: int, page: bytes) -> None:
        self.send_response(status)
        own = {"Refresh": str(self.server.seconds), "Content-Length": str(len(page))}
        for name, value in {**HEADERS, **own}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(page)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing: that a browser looked is no news."""
