"""Agent runs under the policies of their context: a turn that fails falls back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from muse import agents
from tests.desk import Desk
from tests.loopback.outcomes import TEXT
from tests.provider_cases import FAMILY

OPENAI, ANTHROPIC, _ = FAMILY


def ran(desk: Desk, *, stream: bool = False, **rules: Any) -> list[dict[str, Any]]:
    """The events of one run of the default persona without tools."""
    desk.reach(OPENAI, ANTHROPIC)
    rule = {"provider": "openai", "model": OPENAI.model, **rules}
    desk.journal.route(default={"provider": "echo"}, contexts={"agent.*": rule})
    events: list[dict[str, Any]] = []
    request = {"prompt": "When does the tide turn?", "disable_mcp": True, "stream": stream}
    asyncio.run(agents.run(request, events.append))
    return events


@pytest.mark.parametrize("stream", [False, True])
def test_a_fallback_is_an_event_between_start_and_finish(desk: Desk, stream: bool) -> None:
    desk.play(OPENAI, "error_503")
    events = ran(desk, stream=stream, retries=0, fallbacks=["anthropic"])
    kinds = [event["event"] for event in events if event["event"] != "delta"]
    assert kinds == ["start", "fallback", "finish"]
    told = events[1]
    assert (told["provider"], told["to_provider"]) == ("openai", "anthropic")
    assert "503" in told["error"]
    assert isinstance(told["ts"], int)
    assert events[-1]["result"] == TEXT
    assert [line["provider"] for line in desk.journal.lines()] == ["openai", "anthropic"]


def test_a_turn_is_tried_again_without_an_event(desk: Desk) -> None:
    desk.play(OPENAI, "error_503")
    assert [event["event"] for event in ran(desk)] == ["start", "finish"]
    assert len(desk.journal.lines()) == 2


def test_a_run_never_leaves_the_bounds_of_its_context(desk: Desk) -> None:
    events = ran(desk, allow=["google"])
    assert [event["event"] for event in events] == ["error"]
    assert "providers.contexts['agent.*'].allow" in events[-1]["error"]
    assert not desk.server.requests
