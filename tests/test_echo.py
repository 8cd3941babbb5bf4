"""The scripted provider: it says what it is told, in every way, and tells when script and questions differ."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from muse import models, testing
from muse.errors import BlockedReply, EmptyReply, ProviderDown, TruncatedReply
from muse.providers import echo
from muse.testing import Say
from muse.types.messages import Image, User
from muse.types.usage import Usage
from tests.desk import CONTEXT, WAYS, Desk

every_way = pytest.mark.parametrize("way", WAYS)


@pytest.fixture(autouse=True)
def _routed(desk: Desk) -> None:
    desk.journal.route(default={"provider": "echo"})


@every_way
def test_unscripted_it_says_the_last_words_again(desk: Desk, way: str) -> None:
    assert desk.ask(way, "Low water is at noon.").text == "Low water is at noon."
    turns = [{"role": "user", "content": "First."}, {"role": "assistant", "content": "Then."}]
    assert desk.ask(way, [*turns, {"role": "user", "content": "Last."}]).text == "Last."
    png = Image(b"\x89PNG\r\n\x1a\n0000", "image/png")
    assert desk.ask(way, ["Look.", png]).text == "Look.\nImage(image/png, 12 bytes)"
    assert json.loads(desk.ask(way, "Moin", json_output=True).text) == {"echo": "Moin"}


@every_way
def test_the_same_question_has_the_same_answer(desk: Desk, way: str) -> None:
    first, second = desk.ask(way, "When?"), desk.ask(way, "When?")
    assert (first.text, first.usage, first.model) == (second.text, second.usage, second.model)


@every_way
def test_it_costs_nothing_and_is_logged(desk: Desk, way: str) -> None:
    reply = desk.ask(way, "When?")
    (line,) = desk.journal.lines()
    assert (line["provider"], line["model"], line["cost_usd"], line["finish"]) == ("echo", "echo-1", 0.0, "stop")
    assert reply.usage.requests == 1
    assert not reply.usage.estimated


@every_way
def test_a_script_is_played_in_order_and_notes_what_was_asked(desk: Desk, way: str) -> None:
    with testing.script("One.", Say("Two.", thinking="Hm.", usage=Usage(10, 5, cached_tokens=4))) as script:
        assert desk.ask(way, "First?").text == "One."
        reply = desk.ask(way, "Second?")
    assert (reply.text, reply.thinking) == ("Two.", "Hm.")
    assert (reply.usage.input_tokens, reply.usage.output_tokens, reply.usage.cached_tokens) == (10, 5, 4)
    assert [request.turns for request in script.requests] == [(User(("First?",)),), (User(("Second?",)),)]


@every_way
def test_scripted_failures_are_raised_and_logged(desk: Desk, way: str) -> None:
    down = ProviderDown("out for lunch", retryable=True)
    cut, blocked = Say("Half of", finish="length"), Say(finish="blocked")
    desk.journal.route(default={"provider": "echo", "retries": 0})
    with testing.script(down, cut, blocked, ""):
        kinds = [type(desk.fail(way)) for _ in range(4)]
    assert kinds == [ProviderDown, TruncatedReply, BlockedReply, EmptyReply]
    classes = [line["error"]["class"] for line in desk.journal.lines()]
    assert classes == [kind.__name__ for kind in kinds]


@every_way
def test_scripted_tool_calls_are_calls(desk: Desk, way: str) -> None:
    with testing.script(testing.calls(("search", {"q": "tide"}), ("list_days", {}))):
        reply = desk.ask(way)
    assert reply.finish == "tools"
    assert [(call.name, call.args) for call in reply.turn.calls] == [("search", {"q": "tide"}), ("list_days", {})]
    assert len({call.call_id for call in reply.turn.calls}) == 2


def test_steps_left_over_are_told() -> None:
    with (
        pytest.raises(AssertionError, match=r"1 of 2 scripted steps were not used.*'Two'"),
        testing.script("One", "Two"),
    ):
        models.generate("When?", CONTEXT)


@every_way
def test_a_question_too_many_is_told(desk: Desk, way: str) -> None:
    with testing.script("One"):
        desk.ask(way)
        with pytest.raises(AssertionError, match=r"asked once more than its script has answers: 'And now\?'"):
            desk.ask(way, "And now?")


def test_scripts_nest_and_the_inner_one_is_played() -> None:
    with testing.script("outer") as outer:
        with testing.script("inner"):
            assert models.generate("?", CONTEXT) == "inner"
        assert models.generate("?", CONTEXT) == "outer"
    assert len(outer.requests) == 1
    assert echo.PROVIDER.scripts == []


def test_an_error_in_the_test_itself_is_not_hidden_by_steps_left_over() -> None:
    with pytest.raises(KeyError), testing.script("never asked for"):
        raise KeyError("the test's own")
    assert echo.PROVIDER.scripts == []


async def test_a_scripted_agent_run_needs_no_network(tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    config = {"prompt": "When?", "model": "echo-1", "disable_mcp": True}
    with testing.script(Say("At six.", thinking="Hm.")):
        assert await echo.run_agent(config, events.append) == "At six."
    assert [event["event"] for event in events] == ["start", "thinking", "finish"]
