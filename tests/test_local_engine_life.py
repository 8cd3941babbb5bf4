"""How the engine's process ends, forks and stays private, with real owners and real weights."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from muse.providers._local.engine import Engine
from tests.embedded import WEIGHTS, needs_model

ROOT = Path(__file__).parents[1]
PATIENCE_S = 60.0


needs_fork = pytest.mark.skipif(sys.platform == "win32", reason="needs fork")


def is_gone(pid: int, timeout_s: float) -> bool:
    """Wait for another's process to end; a zombie counts as ended."""
    try:
        watch = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(watch, select.POLLIN)
        return bool(poll.poll(timeout_s * 1000))
    finally:
        os.close(watch)


OWNER = """
import ctypes, os, signal, sys, threading
from pathlib import Path
from muse.providers._local.engine import Engine

engine = Engine.shared(Path(sys.argv[1]))
body = {"prompt": "Once upon a time", "max_tokens": 4000, "ignore_eos": True}
print(engine.ready(timeout_s=200)["pid"], flush=True)
stream = engine.stream("complete", body)
next(stream)
"""
WAITING_THREAD = """
waiter = threading.Thread(target=engine.request, args=("complete", body), daemon=True)
waiter.start()
"""
SECOND_HOLDER = """
if (second := ctypes.CDLL(None).fork()) == 0:  # without Python's hooks: keeps every pipe open
    signal.pause()
print(second, flush=True)
"""
ENDINGS = {
    "end of the program": "",
    "end with a thread waiting": WAITING_THREAD,
    "sys.exit": "sys.exit(3)",
    "exception": "raise SystemError",
    "os._exit": "os._exit(0)",
    "SIGKILL": "os.kill(os.getpid(), signal.SIGKILL)",
    "SIGTERM": "os.kill(os.getpid(), signal.SIGTERM)",
    "SIGINT": "os.kill(os.getpid(), signal.SIGINT)",
    "SIGKILL, pipes held by another": SECOND_HOLDER + "os.kill(os.getpid(), signal.SIGKILL)",
    "os._exit, pipes held by another": SECOND_HOLDER + "os._exit(0)",
}


def run_owner(program: str) -> subprocess.Popen[str]:
    """Start a program that owns an engine."""
    command = [sys.executable, "-c", program, str(WEIGHTS)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdout=pipe, stderr=subprocess.DEVNULL, text=True)


@needs_model
@pytest.mark.skipif(sys.platform != "linux", reason="waits with pidfd")
@pytest.mark.parametrize("ending", ENDINGS)
def test_the_engine_is_gone_a_second_after_its_owner(ending: str) -> None:
    with run_owner(OWNER + ENDINGS[ending]) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        second = int(owner.stdout.readline()) if "another" in ending else None
        owner.wait(timeout=PATIENCE_S)
        try:
            assert is_gone(pid, timeout_s=1.0)
        finally:
            if second is not None:
                os.kill(second, signal.SIGKILL)


FORKING_OWNER = """
import os, sys
from pathlib import Path
from muse.providers._local.engine import Engine

engine = Engine.shared(Path(sys.argv[1]))
body = {"prompt": "one two three", "max_tokens": 4, "temperature": 0}
def say():
    answer = engine.request("complete", body, timeout_s=200)
    text = answer["choices"][0]["text"].strip().replace(" ", "_")
    print(engine.ready(timeout_s=200)["pid"], text, flush=True)
say()
if os.fork() == 0:
    say()
    sys.exit(0)
status = os.wait()[1]
say()
print(status)
"""


@needs_model
@needs_fork
def test_a_forked_process_has_an_engine_of_its_own() -> None:
    with run_owner(FORKING_OWNER) as owner:
        said, _ = owner.communicate(timeout=PATIENCE_S)
    (pid, text), (other_pid, other_text), (pid_after, text_after), status = (line.split() for line in said.splitlines())
    assert pid == pid_after != other_pid
    assert text == other_text == text_after
    assert status == ["0"]


@needs_model
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_nobody_else_can_reach_the_engine() -> None:
    assert WEIGHTS is not None
    engine = Engine.shared(WEIGHTS)
    pid = engine.ready(timeout_s=PATIENCE_S)["pid"]
    descriptors = Path(f"/proc/{pid}/fd").iterdir()
    sockets = {os.readlink(fd)[8:-1] for fd in descriptors if os.readlink(fd)[:8] == "socket:["}
    for family in ("tcp", "tcp6", "udp", "udp6"):
        table = Path(f"/proc/{pid}/net/{family}")
        rows = table.read_text().splitlines()[1:] if table.exists() else []
        assert not sockets & {row.split()[9] for row in rows}
    rows = Path(f"/proc/{pid}/net/unix").read_text().splitlines()[1:]
    paths = [row.split()[7] for row in rows if row.split()[6] in sockets and len(row.split()) > 7]
    assert [path for path in paths if Path(path).exists()] == []
    engine.stop()
