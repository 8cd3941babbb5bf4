"""What a run may call, who is asked, and what becomes of strange results: held where the call is made."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from mcp.server import MCPServer
from mcp_types import ToolAnnotations

from muse import testing
from muse.agent_loop.mcp_client import servers_of
from muse.errors import ConfigError
from muse.types.messages import Image, ToolCall
from tests.agent_run import Run, calls, replay, results
from tests.agent_tools import BIG_CHARS, INJECTION, PNG, Odd
from tests.journal_folder import JournalFolder

pytestmark = pytest.mark.usefixtures("journal")


def _with(odd: Odd, **config: Any) -> dict[str, Any]:
    return {"mcp_servers": {"odd": odd.server}, **config}


# Strange results


@pytest.mark.parametrize(
    ("tool", "words"),
    [("explode", "executing tool explode"), ("call_back", "executing tool call_back"), ("no_such", "not offered")],
)
async def test_a_tool_that_fails_in_its_own_way_ends_its_call_and_not_the_run(tool: str, words: str) -> None:
    script, run = replay(calls(tool), "It failed.", **_with(Odd()))
    with script as played:
        assert await run.answer() == "It failed."
    assert words in run.result()["error"]
    (result,) = results(played, 1)
    assert result.failed
    assert words in str(result.parts)


async def test_a_tool_that_hangs_ends_with_its_own_time() -> None:
    odd = Odd()
    say = testing.calls(("hang", {}), ("look", {"text": "tide"}))
    script, run = replay(say, "One of two.", **_with(odd, tool_timeout_s=0.2))
    with script:
        assert await run.answer() == "One of two."
    assert run.result("call-0") == {"error": "hang gave no answer within 0.2 s"}
    assert run.result("call-1") == "seen: tide"
    assert odd.cancelled == ["hang"]


async def test_fifty_megabytes_are_cut_to_head_tail_and_a_handle_to_read_on_with() -> None:
    more = testing.calls(
        ("read_more", {"handle": "result-1", "offset": 8_000}),
        ("read_more", {"handle": "result-1", "offset": BIG_CHARS}),
        ("read_more", {"handle": "result-9"}),
    )
    script, run = replay(calls("big"), more, "Long.", **_with(Odd(), tools=["big"]))
    with script as played:
        assert await run.answer() == "Long."
    (result,) = results(played, 1)
    (text,) = result.parts
    assert isinstance(text, str)
    assert len(text) < 11_000
    assert (text[:4], text[-4:]) == ("HEAD", "TAIL")
    assert 'read_more(handle="result-1", offset=8000)' in text
    assert [tool.name for tool in played.requests[0].tools] == ["big"]
    assert [tool.name for tool in played.requests[1].tools] == ["big", "read_more"]
    page, beyond, unknown = (event["result"] for event in run.said("tool_end")[1:])
    assert page.startswith("x" * 8_000)
    assert page.endswith(f"[next: offset=16000 of {20_000_000}]")
    assert "offset: found" in beyond["error"]
    assert "expected one of result-1" in unknown["error"]


async def test_a_text_that_is_no_unicode_is_mended_before_it_is_sent(journal: JournalFolder) -> None:
    script, run = replay(calls("half"), "Read.", **_with(Odd()))
    with script:
        assert await run.answer() == "Read."
    assert run.result() == "torn ? text"


async def test_pictures_are_known_by_their_bytes_and_what_is_none_is_told() -> None:
    script, run = replay(calls("pictures"), "Seen.", **_with(Odd()))
    with script as played:
        await run.answer()
    (result,) = results(played, 1)
    png = Image(PNG, "image/png")
    unreadable = "[image/png that could not be read]"
    assert result.parts == ("four pictures", png, png, unreadable, unreadable)
    assert run.result()[1] == "[image/png, 12 bytes]"


async def test_sound_is_told_and_left_out() -> None:
    script, run = replay(calls("noises"), "Heard.", **_with(Odd()))
    with script:
        await run.answer()
    assert run.result() == "[audio/wav left out: sound cannot be passed on]"


# The allow-list


@pytest.mark.parametrize("allowed", [["letter"], ["let*", "look"], ["odd__letter"]], ids=str)
async def test_what_a_tool_tells_the_model_to_call_stays_refused(allowed: list[str]) -> None:
    odd = Odd()
    script, run = replay(calls("letter"), calls("erase_journal"), "I was told to.", **_with(odd, tools=allowed))
    with script as played:
        assert await run.answer() == "I was told to."
    assert run.said("tool_end")[0]["result"] == INJECTION
    assert "refused: 'erase_journal' is not offered" in run.said("tool_end")[1]["result"]["error"]
    assert odd.called == ["letter"]
    assert "erase_journal" not in {tool.name for tool in played.requests[1].tools}


@pytest.mark.parametrize("config", [{"tools": []}, {"tools": [], "mcp_server_url": "http://127.0.0.1:9/mcp"}], ids=str)
async def test_an_empty_list_refuses_all_and_connects_to_nothing(config: dict[str, Any]) -> None:
    script, run = replay(calls("letter"), "No tools.", **config)
    with script:
        assert await run.answer() == "No tools."
    assert "offered are: none" in run.result()["error"]


async def test_no_list_offers_everything() -> None:
    script, run = replay("Hello.", **_with(Odd()))
    with script as played:
        await run.answer()
    assert {"look", "letter", "erase_journal", "big"} <= {tool.name for tool in played.requests[0].tools}


# Approval


@pytest.mark.parametrize(("says", "called"), [(True, ["letter"]), (False, [])])
async def test_a_tool_that_needs_a_yes_is_called_with_one(says: bool, called: list[str]) -> None:
    asked: list[ToolCall] = []

    async def approver(call: ToolCall) -> bool:
        asked.append(call)
        return says

    odd = Odd()
    script, run = replay(calls("letter"), "Done.", **_with(odd, approve=["let*"], approver=approver))
    with script:
        await run.answer()
    assert [call.name for call in asked] == ["letter"]
    assert odd.called == called
    assert says or "was not approved" in run.result()["error"]


async def test_with_nobody_to_ask_it_is_refused() -> None:
    odd = Odd()
    script, run = replay(calls("letter"), "Refused.", **_with(odd, approve=["*"]))
    with script:
        await run.answer()
    assert "nobody to ask" in run.result()["error"]
    assert odd.called == []


async def test_a_tool_under_its_servers_name_needs_the_same_yes() -> None:
    one, two = Odd("one"), Odd("two")
    servers = {"one": one.server, "two": two.server}
    script, run = replay(calls("two__letter"), "Refused.", mcp_servers=servers, approve=["letter"])
    with script:
        await run.answer()
    assert "approval" in run.result()["error"]
    assert two.called == []


# Names


async def test_names_that_two_servers_share_get_the_servers_name() -> None:
    one, two = Odd("one"), Odd("two")
    say = testing.calls(("one__look", {"text": "a"}), ("two__look", {"text": "b"}), ("look", {"text": "c"}))
    script, run = replay(say, "Both.", mcp_servers={"one": one.server, "two": two.server}, tools=["look"])
    with script as played:
        await run.answer()
    assert [tool.name for tool in played.requests[0].tools] == ["one__look", "two__look"]
    assert (run.result("call-0"), run.result("call-1")) == ("seen: a", "seen: b")
    assert "not offered" in run.result("call-2")["error"]
    assert (one.called, two.called) == (["look"], ["look"])


async def test_every_offered_name_is_one_that_providers_take() -> None:
    def server() -> MCPServer[Any]:
        made = MCPServer("any", log_level="CRITICAL")
        for name in ("read.note", "read_note", "x" * 90, "read_more"):
            made.tool(name=name, annotations=ToolAnnotations(read_only_hint=True))(_say(name))
        return made

    script, run = replay(calls("read_note_2"), "Good.", mcp_servers={"my notes": server()})
    with script as played:
        await run.answer()
    names = [tool.name for tool in played.requests[0].tools]
    assert names == ["read_note", "read_note_2", "x" * 64, "my_notes__read_more"]
    assert run.result() == "read_note"


def _say(text: str) -> Any:
    async def say() -> str:
        """Say the tool's name."""
        return text

    return say


# Their entries


@pytest.mark.parametrize(
    "named",
    [
        ["url"],
        {"a": 5},
        {"a": None},
        {"a": {}},
        {"a": {"url": "  "}},
        {"a": {"command": "x", "args": 5}},
        {"a": {"command": "x", "args": [1]}},
        {"a": {"command": "x", "env": {"A": 1}}},
    ],
    ids=str,
)
def test_an_entry_that_is_no_server_is_said_with_its_place(named: Any) -> None:
    with pytest.raises(ConfigError, match="mcp_servers"):
        servers_of(named)


async def test_a_limit_on_tool_calls_holds_within_one_turn() -> None:
    odd = Odd()
    many = testing.calls(*(("look", {"text": str(number)}) for number in range(5)))
    script, run = replay(many, "Two will do.", **_with(odd, max_tool_calls=2))
    with script:
        assert await run.answer() == "Two will do."
    assert odd.called == ["look"] * 2
    refused = [event for event in run.said("tool_end") if "used up" in str(event["result"])]
    assert len(refused) == 3
    assert run.last["reason"] == "limit"


async def test_fifty_runs_share_one_server() -> None:
    odd = Odd()
    servers = _with(odd)

    async def one(number: int) -> tuple[str, Any]:
        run = Run(**servers, prompt=f"run {number}")
        return await run.answer(), run.names

    with testing.script(*[testing.calls(("look", {"text": "tide"}))] * 50, *["Done."] * 50):
        answers = await asyncio.gather(*map(one, range(50)))
    assert {text for text, _ in answers} == {"Done."}
    assert odd.called == ["look"] * 50
