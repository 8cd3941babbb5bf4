"""`muse describe` killed at several points and run again: each frame is a line, only calls under way are repeated."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter

import pytest

from observe.segments.runner import MOST_AT_ONCE
from tests.at_terminal import Terminal
from tests.journal_folder import JournalFolder, run, start
from tests.screens import DAY, lines, put_screens, segment
from tests.seeing import KEY, SeeingServer

FRAMES = 24
RUN = "import sys; from observe.describe import main; sys.exit(main([sys.argv[1]]))"


@pytest.mark.parametrize("requests", [3, 9, FRAMES + 1], ids=lambda count: f"after {count}")
def test_a_run_that_is_killed_goes_on_and_pays_nothing_twice(journal: JournalFolder, requests: int) -> None:
    put_screens(folder := segment(journal.path), range(FRAMES))
    journal.route(default={"provider": "openai", "model": "gpt-5-mini", "retries": 0})
    with SeeingServer(latency_s=0.05) as server:
        server.category = "messaging" if requests < FRAMES else "code"
        address = {"OPENAI_BASE_URL": f"{server.url}/v1", "OPENAI_API_KEY": KEY}
        with start(RUN, DAY, **address) as child:
            assert server.wait_until(lambda server: len(server.requests) >= requests, 30)
            os.kill(child.pid, signal.SIGKILL)
            child.communicate()
        assert not (folder / "screen.jsonl").exists()
        server.latency_s = 0.0
        printed = run(RUN, DAY, **address)
    assert f"{FRAMES} frames" in printed
    assert [line["file"] for line in lines(folder)] == [f"screen_{number}.png" for number in range(1, FRAMES + 1)]
    assert not any(line.get("error") for line in lines(folder))
    times = Counter(server.pictures)
    assert len(times) == FRAMES
    assert sum(times.values()) <= FRAMES + MOST_AT_ONCE
    assert server.asked["selection"] <= 2
    assert list((journal.path / "batches").glob("*.sqlite*")) == []


def test_one_segment_by_itself_does_not_lose_what_a_broken_run_has_of_the_others(journal: JournalFolder) -> None:
    put_screens(segment(journal.path), range(FRAMES))
    put_screens(other := segment(journal.path, name="160000_60"), [1])
    journal.route(default={"provider": "openai", "model": "gpt-5-mini", "retries": 0})
    with SeeingServer(latency_s=0.05) as server:
        server.category = "messaging"
        address = {"OPENAI_BASE_URL": f"{server.url}/v1", "OPENAI_API_KEY": KEY}
        with start(RUN, DAY, **address) as child:
            assert server.wait_until(lambda server: len(server.requests) >= 12, 30)
            os.kill(child.pid, signal.SIGKILL)
            child.communicate()
        server.latency_s = 0.0
        run(RUN.replace("[sys.argv[1]]", "sys.argv[1:]"), DAY, "--segment", "160000_60", **address)
        assert len(lines(other)) == 1
        run(RUN, DAY, **address)
    assert len(server.pictures) <= FRAMES + 1 + MOST_AT_ONCE
    assert list((journal.path / "batches").glob("*.sqlite*")) == []


def test_a_second_run_on_the_same_day_is_refused_and_the_first_one_finishes(journal: JournalFolder) -> None:
    put_screens(folder := segment(journal.path), range(4))
    journal.route(default={"provider": "openai", "model": "gpt-5-mini", "retries": 0})
    refused = "import sys; from muse.cli import main; sys.exit(main(['describe', sys.argv[1]]))"
    with SeeingServer(latency_s=1.0) as server:
        address = {"OPENAI_BASE_URL": f"{server.url}/v1", "OPENAI_API_KEY": KEY}
        with start(RUN, DAY, **address) as first:
            assert server.wait_until(lambda server: len(server.requests) >= 1, 30)
            with start(refused, DAY, **address) as second:
                _, complaint = second.communicate(timeout=180)
            server.latency_s = 0.0
            first.communicate(timeout=60)
    assert (first.returncode, second.returncode) == (0, 1)
    assert "which another run is writing to" in complaint
    assert json.loads((folder / "screen.json").read_text())["frames"] == 4


COMMAND = "import sys; from muse.cli import main; sys.exit(main(sys.argv[1:]))"


def test_at_a_terminal_a_bar_is_shown_and_ctrl_c_leaves_a_state_to_go_on_from(journal: JournalFolder) -> None:
    put_screens(folder := segment(journal.path), range(FRAMES))
    journal.route(default={"provider": "openai", "model": "gpt-5-mini", "retries": 0})
    with SeeingServer(latency_s=0.1) as server:
        server.category = "messaging"
        address = {"OPENAI_BASE_URL": f"{server.url}/v1", "OPENAI_API_KEY": KEY}
        with Terminal(COMMAND, "describe", DAY, **address) as terminal:
            terminal.read_until("told apart")
            terminal.read_until(f"/{FRAMES}")
            assert server.wait_until(lambda server: len(server.requests) >= 6, 30)
            terminal.type("\x03")
            assert terminal.end() == 130
        assert not (folder / "screen.jsonl").exists()
        server.latency_s = 0.0
        run(RUN, DAY, **address)
    assert len(lines(folder)) == FRAMES
    assert len(server.pictures) <= FRAMES + MOST_AT_ONCE
