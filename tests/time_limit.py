"""Ends a test that hangs, and only that test: the worker goes on with the others."""

from __future__ import annotations

import faulthandler
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

# Those on the embedded model take half a minute on two idle cores, ten times that where other programs keep both busy.
MOST_S = float(os.environ.get("MUSE_TEST_MOST_S", "600"))
# Should the first end be swallowed by an `except BaseException`, it comes again.
_AGAIN_S = 15.0


_leave_popen = subprocess.Popen.__exit__


def _kill_and_leave(process: subprocess.Popen[Any], kind: Any, exc: Any, trace: Any) -> None:
    """Kill the process of a `with` block that an error ends: nobody will, and the block would wait for it for ever."""
    if kind is not None:
        process.kill()
    _leave_popen(process, kind, exc, trace)


subprocess.Popen.__exit__ = _kill_and_leave  # type: ignore[method-assign]


@contextmanager
def limited(what: str) -> Iterator[None]:
    """Fail what runs in the main thread after `MOST_S` seconds, with the stacks of all threads on standard error."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_: object) -> None:
        faulthandler.dump_traceback(sys.__stderr__ or sys.stderr)
        pytest.fail(f"{what} did not end within {MOST_S:g} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, MOST_S, _AGAIN_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    """Bound the fixtures of a test."""
    with limited(f"the setup of {item.nodeid}"):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Bound a test."""
    with limited(item.nodeid):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    """Bound what follows a test."""
    with limited(f"the teardown of {item.nodeid}"):
        return (yield)
