"""The tie of a run to its cortex: when standard input closes, the run ends, willing or not."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.journal_folder import environment

_TIED = "import signal, threading\nfrom muse.agent_loop.parent_watch import read_line, exit_with_parent\n"
_TIED += "print(read_line(0), end='', flush=True)\n"
_WAIT = "exit_with_parent(0, grace_s=0.1)\nprint('tied', flush=True)\nthreading.Event().wait()"


@contextmanager
def _tied(code: str) -> Iterator[subprocess.Popen[str]]:
    """A tied process that has taken its line."""
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("a request\n")
        process.stdin.flush()
        assert [process.stdout.readline(), process.stdout.readline()] == ["a request\n", "tied\n"]
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("deaf", "status"),
    [("", -signal.SIGTERM), ("signal.signal(signal.SIGTERM, signal.SIG_IGN)\n", -signal.SIGKILL)],
    ids=["willing", "deaf"],
)
def test_a_tied_process_ends_with_its_standard_input(deaf: str, status: int) -> None:
    with _tied(_TIED + deaf + _WAIT) as process:
        assert process.poll() is None
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(180) == status
