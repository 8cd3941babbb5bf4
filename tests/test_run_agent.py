"""Agent runs over a real tool server: events, calls, results in each provider's form, limits, errors, continuation."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from muse import providers, testing
from muse.errors import MissingKeyError, MuseError, ProviderDown
from muse.testing import Say
from muse.types.messages import ToolCall, ToolResults, User
from tests.desk import Desk
from tests.loopback.outcomes import OUTCOMES, SERVED, THOUGHT
from tests.loopback.server import Hang
from tests.provider_cases import WIRES, Case
from tests.tool_server import DAYS, ToolServer

every_wire = pytest.mark.parametrize("case", WIRES, ids=str)
PROMPT = "When is the release?"
ANSWER = OUTCOMES["tools_answer"].text


@pytest.fixture(scope="module")
def running() -> Iterator[ToolServer]:
    with ToolServer() as server:
        yield server


@pytest.fixture
def tools(running: ToolServer) -> ToolServer:
    running.forget()
    return running


class Run:
    """One agent run and what it said."""

    def __init__(self, provider: str, **config: Any) -> None:
        self.config = {"prompt": PROMPT, "model": "echo-1", **config}
        self.events: list[dict[str, Any]] = []
        self._run_agent = providers.get_provider_module(provider).run_agent

    async def answer(self) -> str:
        text: str = await self._run_agent(self.config, self.events.append)
        return text

    async def fail(self, kind: type[BaseException], match: str | None = None) -> BaseException:
        with pytest.raises(kind, match=match) as caught:
            await self.answer()
        return caught.value

    def said(self, name: str) -> list[dict[str, Any]]:
        """The events of one kind, without their time."""
        return [
            {key: value for key, value in event.items() if key != "ts"}
            for event in self.events
            if event["event"] == name
        ]

    @property
    def names(self) -> list[str]:
        return [event["event"] for event in self.events]


def _replay(*steps: Any, **config: Any) -> Any:
    return testing.script(*steps), Run("echo", **config)


# On every provider


@every_wire
async def test_a_run_with_tools_on_every_provider(desk: Desk, tools: ToolServer, case: Case) -> None:
    desk.use(case)
    desk.play(case, "tools", "tools_answer")
    run = Run(case.name, model=case.model, mcp_server_url=tools.url, tools=["search_journal", "list_days"])
    assert await run.answer() == ANSWER
    start = {"event": "start", "prompt": PROMPT, "persona": "default", "model": case.model, "provider": case.name}
    assert run.said("start") == [start]
    begun, ended = run.said("tool_start"), run.said("tool_end")
    assert [(event["tool"], event["args"]) for event in begun] == [
        ("search_journal", {"query": "release"}),
        ("list_days", {"limit": 3}),
    ]
    assert {event["call_id"] for event in begun} == {event["call_id"] for event in ended}
    results = {event["tool"]: event["result"] for event in ended}
    assert results == {"search_journal": "2 hits for 'release'", "list_days": DAYS}
    assert all(isinstance(event["ts"], int) and event["ts"] > 1_700_000_000_000 for event in run.events)
    (finish,) = run.said("finish")
    assert finish["result"] == ANSWER
    assert finish["usage"]["input_tokens"] == OUTCOMES["tools"].input_tokens + OUTCOMES["tools_answer"].input_tokens
    assert finish["usage"]["output_tokens"] == OUTCOMES["tools"].output_tokens + OUTCOMES["tools_answer"].output_tokens
    assert finish["usage"]["requests"] == 2
    assert run.names[-1] == "finish"
    lines = desk.journal.lines()
    assert [line["context"] for line in lines] == ["agent.system.default"] * 2
    assert {line["model"] for line in lines} == {SERVED[case.wire]}


def _offered(case: Case, body: dict[str, Any]) -> dict[str, Any]:
    """The tools of a request: name -> schema of the arguments."""
    match case.wire:
        case "openai":
            return {tool["name"]: tool["parameters"] for tool in body["tools"]}
        case "anthropic":
            return {tool["name"]: tool["input_schema"] for tool in body["tools"]}
        case "google":
            (group,) = body["tools"]
            return {tool["name"]: tool["parametersJsonSchema"] for tool in group["functionDeclarations"]}
    return {tool["function"]["name"]: tool["function"]["parameters"] for tool in body["tools"]}


@every_wire
async def test_tools_and_results_go_out_in_the_providers_form(desk: Desk, tools: ToolServer, case: Case) -> None:
    desk.use(case)
    desk.play(case, "tools", "tools_answer")
    run = Run(case.name, model=case.model, mcp_server_url=tools.url, tools=["search_journal", "list_days"])
    await run.answer()
    first, second = (request.body for request in desk.server.requests)
    schemas = _offered(case, first)
    assert set(schemas) == {"search_journal", "list_days"}
    assert schemas["search_journal"]["properties"]["query"]["type"] == "string"
    call_ids = [event["call_id"] for event in run.said("tool_start")]
    match case.wire:
        case "openai":
            outputs = [item for item in second["input"] if item.get("type") == "function_call_output"]
            assert [item["call_id"] for item in outputs] == call_ids
            texts = [[part["text"] for part in item["output"]] for item in outputs]
            assert texts == [["2 hits for 'release'"], DAYS]
            kinds = [item.get("type") for item in second["input"]]
            assert kinds.index("function_call") < kinds.index("function_call_output")
        case "anthropic":
            _, said, results = second["messages"]
            assert [block["id"] for block in said["content"] if block["type"] == "tool_use"] == call_ids
            assert [block["tool_use_id"] for block in results["content"]] == call_ids
            assert [part["text"] for part in results["content"][1]["content"]] == DAYS
        case "google":
            _, said, results = second["contents"]
            assert [part["functionCall"]["name"] for part in said["parts"]] == ["search_journal", "list_days"]
            responses = [part["functionResponse"]["response"] for part in results["parts"]]
            assert responses == [{"result": "2 hits for 'release'"}, {"result": "\n".join(DAYS)}]
        case _:
            *_, search, days = second["messages"]
            assert [message["tool_call_id"] for message in (search, days)] == call_ids
            assert (search["role"], days["content"]) == ("tool", "\n".join(DAYS))


@every_wire
async def test_thinking_is_told_with_the_model_that_thought(desk: Desk, case: Case) -> None:
    desk.use(case)
    desk.play(case, "thinking")
    run = Run(case.name, model=case.model, disable_mcp=True, thinking_budget=2_048)
    await run.answer()
    assert run.said("thinking") == [{"event": "thinking", "summary": THOUGHT, "model": SERVED[case.wire]}]
    assert run.names == ["start", "thinking", "finish"]


@every_wire
async def test_an_error_of_the_provider_is_told_once_and_goes_on(desk: Desk, case: Case) -> None:
    desk.use(case)
    desk.play(case, "error_500")
    run = Run(case.name, model=case.model, disable_mcp=True)
    error = await run.fail(ProviderDown)
    assert vars(error)["_evented"] is True
    assert run.names == ["start", "error"]
    (told,) = run.said("error")
    assert told["error"] == str(error)
    assert "Traceback" in told["trace"]
    assert case.key not in json.dumps(run.events)


@every_wire
async def test_a_run_ends_with_its_time(desk: Desk, case: Case) -> None:
    desk.use(case)
    desk.play(case, Hang())
    run = Run(case.name, model=case.model, disable_mcp=True, timeout_s=0.3)
    await run.fail(MuseError, r"no answer within 0\.[0-3]\d* s|no answer in time")
    assert run.names == ["start", "error"]


# Tools


def _calls(*names: str) -> Say:
    return testing.calls(*((name, {}) for name in names))


async def test_calls_of_one_turn_run_at_the_same_time(desk: Desk, tools: ToolServer) -> None:
    script, run = _replay(_calls("meet", "meet"), "Done.", mcp_server_url=tools.url, timeout_s=10)
    with script as played:
        assert await run.answer() == "Done."
    assert [event["result"] for event in run.said("tool_end")] == ["met", "met"]
    results = played.requests[1].turns[-1]
    assert isinstance(results, ToolResults)
    assert [result.call_id for result in results.results] == ["call-0", "call-1"]


async def test_a_failing_tool_is_an_error_for_the_model_and_the_run_goes_on(desk: Desk, tools: ToolServer) -> None:
    script, run = _replay(_calls("fail", "picture"), "It failed.", mcp_server_url=tools.url)
    with script as played:
        assert await run.answer() == "It failed."
    ended = {event["tool"]: event["result"] for event in run.said("tool_end")}
    assert "the shelf is empty" in ended["fail"]["error"]
    assert ended["picture"] == "[image/png, 12 bytes]"
    results = played.requests[1].turns[-1]
    assert isinstance(results, ToolResults)
    failed, shown = results.results
    assert failed.failed
    assert "the shelf is empty" in str(failed.parts)
    assert not shown.failed
    assert run.names[-1] == "finish"


async def test_a_tool_beyond_the_list_is_neither_offered_nor_called(desk: Desk, tools: ToolServer) -> None:
    allowed = {"mcp_server_url": tools.url, "tools": ["list_*"]}
    script, run = _replay(_calls("fail", "no_such_tool"), "All right.", **allowed)
    with script as played:
        assert await run.answer() == "All right."
    assert [tool.name for tool in played.requests[0].tools] == ["list_days"]
    assert all("not offered" in event["result"]["error"] for event in run.said("tool_end"))
    assert tools.called == []


@pytest.mark.parametrize("config", [{"tools": []}, {"disable_mcp": True}], ids=str)
async def test_no_tools_means_no_server(desk: Desk, config: dict[str, Any]) -> None:
    script, run = _replay("Hello.", **config)
    with script as played:
        assert await run.answer() == "Hello."
    assert played.requests[0].tools == ()


async def test_arguments_that_do_not_fit_never_reach_the_tool(desk: Desk, tools: ToolServer) -> None:
    calls = testing.calls(("list_days", {"limit": "many"}), ("list_days", {"_invalid": '{"limit": 3'}))
    script, run = _replay(calls, "Sorry.", mcp_server_url=tools.url)
    with script:
        assert await run.answer() == "Sorry."
    assert all("error" in event["result"] for event in run.said("tool_end"))
    assert tools.called == []


async def test_who_calls_reaches_the_server_as_headers_and_metadata(desk: Desk, tools: ToolServer) -> None:
    call = testing.calls(("search_journal", {"query": "tide"}))
    who = {"agent_id": "1790000000001", "persona": "planner"}
    script, run = _replay(call, "Done.", mcp_server_url=tools.url, **who)
    with script:
        await run.answer()
    assert (tools.headers[0]["x-agent-id"], tools.headers[0]["x-agent-persona"]) == ("1790000000001", "planner")
    assert tools.metadata[0].items() >= who.items()
    assert run.said("start")[0]["persona"] == "planner"
    assert desk.last_line()["context"] == "agent.system.planner"


async def test_an_app_persona_has_its_own_context(desk: Desk) -> None:
    script, run = _replay("Done.", persona="todo:sorter", disable_mcp=True)
    with script:
        await run.answer()
    assert desk.last_line()["context"] == "agent.todo.sorter"


# What it begins with


async def test_a_run_without_an_address_for_its_tools_is_a_runtime_error(desk: Desk) -> None:
    run = Run("echo")
    await run.fail(RuntimeError, "^MCP server URL not provided in config$")
    assert run.names == ["start", "error"]


@pytest.mark.parametrize("missing", ["prompt", "model"])
async def test_prompt_and_model_are_required(desk: Desk, missing: str) -> None:
    run = Run("echo", disable_mcp=True, **{missing: ""})
    error = await run.fail(ValueError, f"Missing '{missing}'")
    assert vars(error)["_evented"] is True
    assert run.names == ["error"]


async def test_a_server_that_is_not_there_is_one_error(desk: Desk) -> None:
    run = Run("echo", mcp_server_url="http://127.0.0.1:9/mcp")
    await run.fail(Exception)
    assert run.names == ["start", "error"]


async def test_a_missing_key_is_one_error(desk: Desk) -> None:
    run = Run("openai", model="gpt-5-mini", disable_mcp=True)
    await run.fail(MissingKeyError, "OPENAI_API_KEY not found in environment")
    assert run.names == ["start", "error"]


async def test_instruction_and_extra_context_are_part_of_the_request(desk: Desk) -> None:
    config = {"instruction": "Be short.", "extra_context": "Today is Friday.", "max_tokens": 99, "thinking_budget": 7}
    script, run = _replay("Yes.", disable_mcp=True, **config)
    with script as played:
        await run.answer()
    (request,) = played.requests
    assert request.system == "Be short."
    assert [turn.parts for turn in request.turns if isinstance(turn, User)] == [("Today is Friday.",), (PROMPT,)]
    assert (request.max_output_tokens, request.thinking_budget) == (99, 7)


def _keep(desk: Desk, agent_id: str, events: list[dict[str, Any]]) -> None:
    """Put a finished run's events where the journal keeps them."""
    path = desk.journal.path / "agents" / f"{agent_id}.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")


@every_wire
async def test_any_provider_continues_any_others_run(desk: Desk, tools: ToolServer, case: Case) -> None:
    call = testing.calls(("search_journal", {"query": "release"}))
    script, run = _replay(call, "On Thursday.", mcp_server_url=tools.url)
    with script:
        await run.answer()
    _keep(desk, "1790000000001", run.events)
    desk.use(case)
    extra = {"extra_context": "must not be said", "continue_from": "1790000000001", "disable_mcp": True}
    await Run(case.name, model=case.model, **extra | {"prompt": "And the party?"}).answer()
    said = desk.server.requests[-1].content.decode()
    assert said.index(PROMPT) < said.index("On Thursday.") < said.index("And the party?")
    assert "search_journal" in said
    assert "must not be said" not in said


async def test_an_unknown_run_to_continue_is_warned_of(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    script, run = _replay("Hm.", continue_from="1700000000000", disable_mcp=True)
    with script as played:
        assert await run.answer() == "Hm."
    assert "Cannot continue from 1700000000000: log not found" in caplog.text
    assert [turn.parts for turn in played.requests[0].turns if isinstance(turn, User)] == [(PROMPT,)]


# How it ends


async def test_at_the_limit_of_turns_one_more_answer_is_asked_for(desk: Desk, tools: ToolServer) -> None:
    call = testing.calls(("search_journal", {"query": "tide"}))
    script, run = _replay(call, call, "That is all I have.", mcp_server_url=tools.url, max_turns=2)
    with script as played:
        assert await run.answer() == "That is all I have."
    (finish,) = run.said("finish")
    assert finish["reason"] == "limit"
    assert finish["usage"]["requests"] == 3
    assert len(played.requests) == 3
    assert not played.requests[2].tools or not played.requests[2].may_call_tools


async def test_a_cancelled_run_says_so_and_ends_its_tools(desk: Desk, tools: ToolServer) -> None:
    script, run = _replay(_calls("wait"), mcp_server_url=tools.url)
    begun = asyncio.Event()
    events = run.events
    loop = asyncio.get_running_loop()

    def hear(event: dict[str, Any]) -> None:
        events.append(event)
        if event["event"] == "tool_start":
            loop.call_soon(begun.set)

    with script:
        task = asyncio.create_task(providers.get_provider_module("echo").run_agent(run.config, hear))
        await asyncio.wait_for(begun.wait(), 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert run.names == ["start", "tool_start", "tool_end", "error"]
    assert run.said("tool_end")[0]["result"] == {"error": "cancelled"}
    assert run.said("error")[0]["reason"] == "cancelled"


async def test_the_time_of_a_run_holds_for_its_tools_too(desk: Desk, tools: ToolServer) -> None:
    script, run = _replay(_calls("wait"), mcp_server_url=tools.url, timeout_s=0.5)
    started_s = asyncio.get_running_loop().time()
    with script:
        await run.fail(TimeoutError)
    assert asyncio.get_running_loop().time() - started_s < 2.0
    assert run.names == ["start", "tool_start", "tool_end", "error"]


async def test_without_listener_it_runs_all_the_same(desk: Desk) -> None:
    with testing.script("Fine."):
        config = {"prompt": PROMPT, "model": "echo-1", "disable_mcp": True}
        assert await providers.get_provider_module("echo").run_agent(config) == "Fine."


def test_a_scripted_call_has_arguments_of_its_own() -> None:
    assert testing.calls(("a", {"b": 1})).calls == (ToolCall("call-0", "a", {"b": 1}),)
