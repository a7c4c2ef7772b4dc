"""watch: the server, asked as browsers and as strangers ask."""

import http.client
import shutil
import socket
import threading

import pytest

from selfdistill.commands.watch import WatchServer, draw_live_page, list_logs


@pytest.fixture
def served(tmp_path):
    """A server of a page that counts how often it was drawn, and a function that asks it."""
    drawn, file = [], tmp_path / "metrics.jsonl"
    file.write_text("1\n")

    def draw():
        if file.read_text() == "broken":
            raise ValueError("<b>damaged</b>")
        drawn.append(file.read_text())
        return f"<!doctype html>page {len(drawn)}"

    with WatchServer(draw, lambda: [file, tmp_path / "missing"]) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()

        def ask(path="/", host=None, method="GET"):
            connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
            try:
                connection.putrequest(method, path, skip_host=True)
                for name in (
                    host if isinstance(host, list) else [f"127.0.0.1:{server.server_port}" if host is None else host]
                ):
                    connection.putheader("Host", name)
                connection.endheaders()
                answer = connection.getresponse()
                return answer.status, answer.read().decode(), dict(answer.getheaders())
            finally:
                connection.close()

        yield server, ask, file
        server.shutdown()
        thread.join()


def test_the_page_is_drawn_anew_only_where_a_file_changed(served):
    server, ask, file = served
    assert [ask()[1], ask()[1]] == ["<!doctype html>page 1"] * 2
    file.write_text("1\n22\n")
    status, page, headers = ask(host=f"LocalHost:{server.server_port}")
    assert (status, page) == (200, "<!doctype html>page 2")
    assert headers["Refresh"] == "5" and headers["Cache-Control"] == "no-store"
    assert ask(method="HEAD")[:2] == (200, "")


def test_it_listens_on_this_machine_alone(served):
    server, _, _ = served
    assert server.server_address[0] == "127.0.0.1" and server.socket.family == socket.AF_INET


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{}", "127.0.0.1.evil.example:{}", "evil@127.0.0.1:{}", "127.0.0.1:x", "", []]
)
def test_another_name_than_its_own_is_refused(served, host):
    server, ask, _ = served
    status, page, _ = ask(host=host if isinstance(host, list) else host.format(server.server_port))
    assert status == 403 and "page" not in page


def test_a_tunnel_may_have_another_port(served):
    assert [served[1](host=host)[0] for host in ("localhost:8080", "127.0.0.1:1", "localhost")] == [200] * 3


def test_two_names_are_refused(served):
    server, ask, _ = served
    assert ask(host=[f"127.0.0.1:{server.server_port}", "evil.example"])[0] == 403


@pytest.mark.parametrize("path", ["/metrics.jsonl", "/../../etc/passwd", "/%2e%2e/x", "/?a=1", "http://127.0.0.1/"])
def test_there_is_nothing_but_the_page(served, path):
    assert served[1](path)[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_is_written_or_run(served, method):
    assert served[1](method=method)[0] == 501


def test_damage_is_told_and_a_later_look_succeeds(served):
    _, ask, file = served
    file.write_text("broken")
    status, page, headers = ask()
    assert status == 503 and "&lt;b&gt;damaged" in page and headers["Refresh"] == "5"
    file.write_text("whole again")
    assert ask()[0] == 200


@pytest.fixture
def under_way(digits_run, tmp_path):
    """A folder of one run that ended, and one that is still going on."""
    for name in ("ended", "<i>going"):
        shutil.copytree(digits_run, tmp_path / "runs" / name)
    log = tmp_path / "runs" / "<i>going" / "metrics.jsonl"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:1]))
    return tmp_path / "runs"


def test_the_page_is_the_report_below_how_far_each_run_is(under_way):
    page = draw_live_page(under_way)
    progress = page[page.index('id="progress"') : page.index('id="arms"')]
    assert "going on" in progress and ">ended<" in progress and "&lt;i&gt;going" in progress and "<i>" not in page
    assert "Loss term" in page and "Distance from the self-teacher at each level: frskd" in page
    assert [file.parent.name for file in list_logs(under_way)] == ["<i>going", "ended", "runs"]
    assert "going on" in draw_live_page(under_way / "<i>going")


def test_ctrl_c_ends_it_and_a_port_that_is_taken_is_told(run, under_way, monkeypatch):
    def interrupt(self):
        raise KeyboardInterrupt

    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, _, err = run("watch", under_way, "--port", taken.getsockname()[1])
    assert code == 1 and "cannot be taken" in err
    monkeypatch.setattr(WatchServer, "serve_forever", interrupt)
    code, out, err = run("watch", under_way)
    assert code == 0 and "http://127.0.0.1:" in out and err == "no longer watched; training goes on\n"
    (under_way / "empty").mkdir()
    assert "is neither a run folder nor a folder of runs" in run("watch", under_way / "empty")[2]


def test_runs_of_different_tasks_lie_in_one_folder(digits_run, masks_run, tmp_path):
    for name, folder in (("digits", digits_run), ("masks", masks_run)):
        shutil.copytree(folder, tmp_path / "runs" / name)
    page = draw_live_page(tmp_path / "runs")
    assert page.count(">ended<") == 2 and "What is taken for what" not in page
