"""Shows `muse serve` as a process: where it listens, when it asks for a password, and that Ctrl-C ends it at once."""

from __future__ import annotations

import ast
import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from email.message import Message
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest

from apps.host import serve
from apps.host.security.password import is_right, set_password
from apps.host.templating import SCRIPTS
from muse.errors import ConfigError
from tests.at_terminal import Terminal
from tests.browser.harness import Served, serving
from tests.journal_folder import ROOT, JournalFolder, environment

PASSWORD = "four plain words here"
STREAM = """
import asyncio
from sse_starlette import EventSourceResponse
from starlette.routing import Route

async def _ticks():
    while True:
        yield {"data": "tick"}
        await asyncio.sleep(0.05)

async def stream(request):
    return EventSourceResponse(_ticks())

ROUTES = [Route("/stream", stream)]
"""

SLOW = """
import threading
from starlette.routing import Route

def slow(request):
    with open({path!r}, "w") as fifo:
        fifo.write("begun")
    threading.Event().wait(120)

ROUTES = [Route("/slow", slow)]
"""


class Answer(NamedTuple):
    """What came back, without its body."""

    status: int
    headers: Message


def _get(served: Served, path: str, **headers: str) -> Answer:
    with _asked(served, path, **headers) as response:
        response.read()
        return Answer(response.status, response.headers)


@contextmanager
def _asked(served: Served, path: str, **headers: str) -> Iterator[http.client.HTTPResponse]:
    parts = urlsplit(served.url.replace("0.0.0.0", "127.0.0.1"))
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=180)
    connection.request("GET", path, headers=headers)
    with closing(connection), connection.getresponse() as response:
        yield response


def _add_ticks(journal: JournalFolder, tmp_path: Path) -> None:
    """An app that streams."""
    app = tmp_path / "more" / "ticks"
    app.mkdir(parents=True)
    (app / "workspace.html").write_text("ticks")
    (app / "routes.py").write_text(STREAM)
    journal.write({"descriptors": {"apps": [str(tmp_path / "more")]}})


def _log(journal: JournalFolder) -> str:
    """What the servers over a journal have logged."""
    return "".join(path.read_text(encoding="utf-8") for path in journal.path.parent.glob("serve-*.log"))


def _muse(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "muse", "serve", *arguments]
    return subprocess.run(
        command, check=False, env=environment(), input=given, capture_output=True, text=True, timeout=180
    )


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_a_signal_ends_it_at_once_although_a_stream_is_open(
    journal: JournalFolder, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    _add_ticks(journal, tmp_path)
    with serving(journal) as served, _asked(served, "/app/ticks/stream") as stream:
        assert b"tick" in stream.readline() + stream.readline()
        served.process.send_signal(number)
        assert served.process.wait(100) == status


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_streams_that_the_end_breaks_off_are_no_errors(
    journal: JournalFolder, tmp_path: Path, number: signal.Signals
) -> None:
    _add_ticks(journal, tmp_path)
    with contextlib.ExitStack() as open_streams, serving(journal) as served:
        for _ in range(10):
            stream = open_streams.enter_context(_asked(served, "/app/ticks/stream"))
            assert b"tick" in stream.readline() + stream.readline()
        served.process.send_signal(number)
        served.process.wait(100)
    assert "ERROR" not in _log(journal)


def test_what_a_stream_says_is_not_logged(journal: JournalFolder, tmp_path: Path) -> None:
    _add_ticks(journal, tmp_path)
    with serving(journal, "-d") as served, _asked(served, "/app/ticks/stream") as stream:
        assert b"tick" in stream.readline() + stream.readline()
    assert "GET /app/ticks/stream" in _log(journal)
    assert "data: tick" not in _log(journal)


def test_what_is_at_work_in_a_thread_does_not_hold_up_the_end(journal: JournalFolder, tmp_path: Path) -> None:
    app = tmp_path / "more" / "slow"
    app.mkdir(parents=True)
    (app / "workspace.html").write_text("slow")
    (app / "routes.py").write_text(SLOW.format(path=str(tmp_path / "begun")))
    os.mkfifo(tmp_path / "begun")
    journal.write({"descriptors": {"apps": [str(tmp_path / "more")]}})
    with serving(journal) as served:
        thread = threading.Thread(target=_give_up, args=(served,))
        thread.start()
        assert (tmp_path / "begun").read_text() == "begun"
        served.process.send_signal(signal.SIGINT)
        assert served.process.wait(100) == 130
        thread.join(180)


def _give_up(served: Served) -> None:
    with contextlib.suppress(http.client.HTTPException, OSError):
        _get(served, "/app/slow/slow")


def test_it_serves_this_machine_only_and_names_no_server(journal: JournalFolder) -> None:
    with serving(journal) as served:
        assert served.url.startswith("http://127.0.0.1:")
        answer = _get(served, "/")
        assert answer.status == 200
        assert answer.headers["Server"] is None
        assert _get(served, "/", Host="evil.example").status == 400


def test_requests_are_logged_only_on_demand(journal: JournalFolder) -> None:
    for arguments, expected in ((), False), (("-v",), True):
        with serving(journal, *arguments) as served:
            _get(served, "/static/host.css")
        assert ("GET /static/host.css" in _log(journal)) == expected


def test_another_address_needs_a_password(journal: JournalFolder) -> None:
    done = _muse("--host", "0.0.0.0", "--port", "0")
    assert done.returncode == 1
    assert "muse serve --set-password" in done.stderr
    assert _muse("--password", "--port", "0").returncode == 1


def test_with_a_password_another_address_is_served_behind_the_gate(journal: JournalFolder) -> None:
    done = _muse("--set-password", given=f"{PASSWORD}\n")
    assert done.returncode == 0, done.stderr
    assert "four plain words" not in done.stdout + done.stderr
    with serving(journal, "--host", "0.0.0.0") as served:
        answer = _get(served, "/")
        assert (answer.status, answer.headers["Location"]) == (303, "/login?next=/")
        assert _get(served, "/", Host=f"{socket.gethostname()}:1").status == 303
        assert _get(served, "/", Host="rebound.example").status == 400


@pytest.mark.parametrize(("again", "status"), [(PASSWORD, 0), ("another password here", 1)])
def test_a_typed_password_is_asked_for_twice_and_not_shown(journal: JournalFolder, again: str, status: int) -> None:
    code = "import sys\nfrom muse.cli import main\nsys.exit(main(['serve', '--set-password']))"
    with Terminal(code) as terminal:
        terminal.read_until("New password for the pages: ")
        terminal.type(f"{PASSWORD}\n")
        terminal.read_until("Once more: ")
        terminal.type(f"{again}\n")
        assert terminal.end() == status
    assert PASSWORD not in terminal.shown
    assert ("nothing was changed" in terminal.shown) == (status == 1)
    assert is_right(PASSWORD) == (status == 0)


def test_a_password_that_is_not_typed_changes_nothing(journal: JournalFolder) -> None:
    code = "import sys\nfrom muse.cli import main\nsys.exit(main(['serve', '--set-password']))"
    with Terminal(code) as terminal:
        terminal.read_until("New password for the pages: ")
        terminal.type("\x04")
        assert terminal.end() == 1
    assert "nothing was changed" in terminal.shown
    assert "Traceback" not in terminal.shown


@pytest.mark.parametrize("redirection", ["<&-", "</dev/null", "< <(printf '\\377%.0s' {1..12})"])
@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_a_password_that_cannot_be_read_is_an_error_in_words(
    journal: JournalFolder, redirection: str, locale: str
) -> None:
    command = ["bash", "-c", f'exec "$0" -m muse serve --set-password {redirection}', sys.executable]
    done = subprocess.run(
        command, check=False, env=environment(LC_ALL=locale), capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 1
    assert done.stderr.startswith("muse: password: found")


def test_a_password_without_an_end_is_not_read_to_it(journal: JournalFolder) -> None:
    with Path("/dev/zero").open() as endless:
        command = [sys.executable, "-m", "muse", "serve", "--set-password"]
        done = subprocess.run(
            command, check=False, env=environment(), stdin=endless, capture_output=True, text=True, timeout=180
        )
    assert done.returncode == 1
    assert "12 or more" in done.stderr


def test_it_serves_although_nobody_reads_what_it_says(journal: JournalFolder) -> None:
    command = [sys.executable, "-m", "muse", "serve", "--port", "0"]
    with (
        Path("/dev/full").open("w") as full,
        subprocess.Popen(command, env=environment(), stdout=full, stderr=subprocess.PIPE, text=True) as process,
    ):
        assert process.stderr is not None
        said = next(line for line in process.stderr if " at http" in line)
        url = urlsplit(said.partition(" at ")[2].split()[0])
        with socket.create_connection((url.hostname or "", url.port or 0), timeout=180):
            process.terminate()
        rest = process.stderr.read()
    assert "No space left on device" in said
    assert "Traceback" not in said + rest


def test_a_weak_password_is_refused(journal: JournalFolder) -> None:
    done = _muse("--set-password", given="short\n")
    assert done.returncode == 1
    assert "12 or more" in done.stderr


def test_a_taken_port_that_was_asked_for_is_an_error(journal: JournalFolder) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = _muse("--port", port)
    assert done.returncode == 1
    assert f"port {port}, which cannot be had" in done.stderr


def test_the_next_free_port_is_taken_in_place_of_the_usual_one(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with serve._listen(serve.Place("127.0.0.1", port, is_asked=False)) as listener:
            assert port < listener.getsockname()[1] <= port + 20
    assert f"port {port} is taken" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["192.0.2.1", "no such name", "999.1.1.1", "a..b"])
def test_an_address_of_elsewhere_is_an_error_with_a_next_step(journal: JournalFolder, address: str) -> None:
    set_password(PASSWORD)
    with pytest.raises(ConfigError, match="cannot be had"):
        serve.main(["--host", address])


def test_it_says_if_the_scripts_of_the_pages_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    serve._check_scripts()
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(serve, "STATIC", tmp_path)
    serve._check_scripts()
    assert "install muse again" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name", ["", "muse.example:443", "https://muse.example/", "müse.example", "*", "[::1]:5005", "a b"]
)
def test_a_name_that_no_browser_sends_is_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        serve._parser().parse_args(["--name", name])
    assert "expected a host name alone" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "known"), [("Muse.Example", "muse.example"), ("[FD00::1]", "fd00::1")])
def test_a_name_may_be_written_as_it_is_used(name: str, known: str) -> None:
    assert serve._parser().parse_args(["--name", name]).name == [known]


def test_the_scripts_that_are_looked_for_are_those_that_an_installation_copies() -> None:
    hook = ast.parse((ROOT / "apps" / "host" / "assets.py").read_text(encoding="utf-8"))
    tables = [node.value for node in hook.body if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)]
    taken = [key.value for table in tables for key in table.keys if isinstance(key, ast.Constant)]
    assert set(SCRIPTS) == set(taken)


@pytest.mark.parametrize("arguments", [["--port", "x"], ["--port", "70000"], ["--nonsense"]])
def test_wrong_usage_is_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert serve.main(arguments) == 2
    assert "usage: muse serve" in capsys.readouterr().err


def test_its_help_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert serve.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert "muse serve --open" in shown
    assert "--set-password" in shown


@pytest.mark.parametrize(
    ("host", "is_local", "is_everywhere"),
    [
        ("127.0.0.1", True, False),
        ("127.9.9.9", True, False),
        ("::1", True, False),
        ("[::1]", True, False),
        ("localhost", True, False),
        ("0.0.0.0", False, True),
        ("::", False, True),
        ("192.168.1.7", False, False),
        ("example.org", False, False),
    ],
)
def test_only_a_loopback_address_is_local(host: str, is_local: bool, is_everywhere: bool) -> None:
    place = serve.Place(host, 0, is_asked=True)
    assert (place.is_local, place.is_everywhere) == (is_local, is_everywhere)
