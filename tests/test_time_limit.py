"""Shows that a test that hangs fails by itself, and the tests after it are run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.journal_folder import ROOT, environment

HANGS = """
import asyncio, subprocess, sys, threading

def test_a_lock():
    threading.Event().wait()

async def test_a_loop():
    await asyncio.Event().wait()

def test_a_child():
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as child:
        child.wait()

def test_that_is_well():
    pass
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no timer signals")
def test_each_test_that_hangs_fails_and_the_others_are_run(tmp_path: Path) -> None:
    path = tmp_path / "test_hanging.py"
    path.write_text(HANGS)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-n0",
        "-p",
        "tests.time_limit",
        "-p",
        "no:cacheprovider",
        str(path),
    ]
    done = subprocess.run(
        [*command, "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path)],
        check=False,
        cwd=ROOT,
        env=environment(MUSE_TEST_MOST_S="1"),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "3 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    assert len(re.findall(r"did not end within 1 s", done.stdout)) >= 3
    assert "in test_a_lock" in done.stdout + done.stderr
