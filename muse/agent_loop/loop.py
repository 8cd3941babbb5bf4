"""The one agent loop: ask, call tools, ask again; it owns events, limits and the error pattern, and no wire form."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from msgspec import Struct

from muse.agent_loop.run_config import RunConfig
from muse.agent_loop.toolset import Toolset, open_toolset
from muse.journal.secrets import redact
from muse.policies.deadline import Deadline
from muse.runs.history import INTERRUPTED, RunHistory, interrupted, load_history
from muse.runs.images import read_pictures
from muse.runs.run_files import is_running
from muse.streaming.streams import AsyncReplyStream
from muse.types.errors import (
    BlockedReply,
    ConfigError,
    EmptyReply,
    InterruptedReply,
    LimitError,
    ProviderTimeout,
    ToolError,
    TruncatedReply,
    TurnLimitError,
    cause_of,
)
from muse.types.events import JSONEventCallback
from muse.types.messages import Reply, Request, ToolCall, ToolResult, ToolResults, Turn, User
from muse.types.usage import Usage

log = logging.getLogger(__name__)
OnEvent = Callable[[dict[str, Any]], None] | None
_CLOSING = "The limit of this run is reached. Answer now, from what you have; no more tools can be called."


class AgentModel(Protocol):
    """How the loop reaches a model: a whole reply, or one as it is written."""

    async def load(self) -> None:
        """Import what calls need, before the clock of a run starts."""

    async def ask(self, request: Request, context: str) -> Reply:
        """One call, answered."""

    async def open(self, request: Request, context: str) -> AsyncReplyStream:
        """One call, its answer as it is written."""


class _RunState(Struct):
    """A run under way: its conversation and what it has spent."""

    config: RunConfig
    box: Toolset
    events: JSONEventCallback
    model: AgentModel
    deadline: Deadline
    turns: list[Turn]
    usage: Usage = Usage()
    cost_usd: float = 0.0
    tool_calls: int = 0
    replies: int = 0

    async def turn(self, *, may_call_tools: bool = True) -> Reply:
        """Ask the model once."""
        config = self.config
        request = Request(
            model=config.model,
            turns=tuple(self.turns),
            system=config.instruction or None,
            tools=self.box.tools,
            may_call_tools=may_call_tools,
            max_output_tokens=config.max_tokens,
            thinking_budget=config.thinking_budget,
            timeout_s=self.deadline.left_s(),
        )
        reply = await (self._streamed(request) if config.stream else self.model.ask(request, config.ledger_context))
        self.usage = self.usage + reply.usage
        self._add_cost(reply)
        self.replies += 1
        self.turns.append(reply.turn)
        if reply.thinking:
            self.events.emit({"event": "thinking", "summary": reply.thinking, "model": reply.model})
        return reply

    def _add_cost(self, reply: Reply) -> None:
        """Add up what the replies cost; a limit in dollars that cannot hold, for want of a price, is said once."""
        self.cost_usd += reply.cost_usd or 0.0
        if reply.cost_usd is None and self.config.max_cost_usd is not None and not self.replies:
            log.warning("max_cost_usd cannot hold in this run: no price is known for %s", reply.model)

    async def _streamed(self, request: Request) -> Reply:
        async with await self.model.open(request, self.config.ledger_context) as pieces:
            async for piece in pieces:
                self.events.emit({"event": "delta", "text": piece})
            return await pieces.reply()

    def is_at_limit(self) -> bool:
        """Whether turns, tool calls, tokens or dollars are used up."""
        config = self.config
        return (
            self.replies >= config.max_turns
            or self.tool_calls >= config.max_tool_calls
            or (config.max_total_tokens is not None and self.usage.total_tokens >= config.max_total_tokens)
            or (config.max_cost_usd is not None and self.cost_usd >= config.max_cost_usd)
        )

    async def call_tools(self, calls: tuple[ToolCall, ...]) -> None:
        """Run the calls of one turn in parallel; events begin, and results stand, in the order of the calls.

        All of them have ended when this returns or raises: no event of a tool comes after the run's own end.
        """
        import asyncio  # a coroutine runs, so it is loaded; 20 ms for whoever imports muse without one

        for call in calls:
            self.events.emit({"event": "tool_start", **_event_fields(call)})
        left = self.config.max_tool_calls - self.tool_calls
        self.tool_calls += len(calls)
        not_begun = dict(enumerate(calls))

        async def begin(number: int) -> ToolResult:
            return await self._call_tool(not_begun.pop(number), is_within=number < left)

        try:
            ended = await asyncio.gather(*map(begin, range(len(calls))), return_exceptions=True)
        finally:  # who cancels before the first step of a task keeps it from saying anything
            for call in not_begun.values():
                self.events.emit({"event": "tool_end", **_event_fields(call), "result": {"error": "cancelled"}})
        self.turns.append(ToolResults(tuple(map(_result_or_raise, ended))))

    async def _call_tool(self, call: ToolCall, *, is_within: bool = True) -> ToolResult:
        """One call to its end; whatever a tool or its server does ends the call, not the run."""
        try:
            if not is_within:
                raise ToolError(f"refused: the {self.config.max_tool_calls} tool calls of this run are used up")
            result, shown = await self.deadline.bound(self.box.call(call))
        except BaseException as exc:
            is_over = isinstance(exc, TimeoutError) or not isinstance(exc, Exception)
            text = "cancelled" if not isinstance(exc, Exception) else _words(exc)
            self.events.emit({"event": "tool_end", **_event_fields(call), "result": {"error": text}})
            if is_over:
                raise
            return ToolResult(call.call_id, call.name, (f"Error: {text}",), failed=True)
        self.events.emit({"event": "tool_end", **_event_fields(call), "result": shown})
        return result

    async def settle(self, past: RunHistory) -> None:
        """End what a cut-off run had under way: tools that only read run again, others are told as interrupted."""
        if not past.pending:
            return
        safe = {tool.name for tool in self.box.tools if tool.read_only}
        settled = {result.call_id: result for result in past.ended}
        for call in past.pending:
            self.events.emit({"event": "tool_start", **_event_fields(call)})
            if call.name in safe:
                settled[call.call_id] = await self._call_tool(call)
            else:
                self.events.emit({"event": "tool_end", **_event_fields(call), "result": {"error": INTERRUPTED}})
                settled[call.call_id] = interrupted(call)
        self.turns.append(ToolResults(tuple(settled[call.call_id] for call in past.calls)))


async def run(config: Mapping[str, Any], on_event: OnEvent, *, model: AgentModel, provider: str) -> str:
    """Run an agent to its answer; see `ProviderBackend.run_agent` for `config`.

    Events: `start`, then any of `thinking`, `delta`, `tool_start`, `tool_end`, then one `finish` or `error`. At a
    limit one more turn without tools still gives an answer, and `finish` says `reason: "limit"`.

    Raises:
        ValueError: `prompt` or `model` is missing.
        MuseError, RuntimeError: whatever ended the run; the `error` event was sent (`exc._evented` is True).
    """
    events = JSONEventCallback(on_event)
    try:
        wanted = RunConfig.of(config)
        events.emit(
            {
                "event": "start",
                "prompt": wanted.prompt,
                "persona": wanted.persona,
                "model": wanted.model,
                "provider": provider,
                **({"images": list(wanted.images)} if wanted.images else {}),
                **_earlier(wanted),
            }
        )
        finish = await _run(wanted, events, model)
    except BaseException as exc:
        events.emit({"event": "error", "error": _words(exc), "trace": redact(traceback.format_exc()), **_why(exc)})
        exc._evented = True  # type: ignore[attr-defined]
        raise
    events.emit(finish)
    return str(finish["result"])


async def _run(config: RunConfig, events: JSONEventCallback, model: AgentModel) -> dict[str, Any]:
    """The run's `finish` event; it is to be told when the tools are closed, so that nothing can go wrong after it."""
    await model.load()
    deadline = Deadline.after(config.timeout_s)
    past = _load_history(config)
    async with open_toolset(
        config.servers(),
        config.policy,
        agent_id=config.agent_id,
        persona=config.persona,
        deadline=deadline,
        call_timeout_s=config.tool_timeout_s,
    ) as box:
        for note in box.notes:
            events.emit({"event": "info", "message": note})
        run_state = _RunState(config, box, events, model, deadline, list(past.turns))
        await run_state.settle(past)
        run_state.turns += _initial_turns(config)
        while True:
            reply = await run_state.turn()
            if not reply.turn.calls:
                return _finish(run_state, reply)
            await run_state.call_tools(reply.turn.calls)
            if run_state.is_at_limit():
                return await _close(run_state)


async def _close(run_state: _RunState) -> dict[str, Any]:
    """The closing turn at a limit: an answer from what is there, without tools.

    Raises:
        TurnLimitError: the model called tools all the same and said nothing.
    """
    run_state.turns.append(User((_CLOSING,)))
    reply = await run_state.turn(may_call_tools=False)
    if not reply.text.strip():
        raise TurnLimitError(
            f"the run's limit was reached after {run_state.replies} replies, and the model gave no answer"
        )
    return _finish(run_state, reply, reason="limit")


def _load_history(config: RunConfig) -> RunHistory:
    """What came before: an earlier run to continue or resume, or nothing.

    Raises:
        ConfigError: that run is still running, or there is nothing of it to resume.
    """
    entry = "resume_from" if config.resume_from else "continue_from"
    earlier = config.resume_from or config.continue_from
    if not earlier:
        return RunHistory()
    if earlier != config.agent_id and is_running(earlier):
        raise ConfigError(entry, f"run {earlier}, which is still running", "a run that is over (see: muse runs)")
    past = load_history(earlier, sees=config.sees)
    if config.resume_from and not past.turns:
        raise ConfigError(entry, repr(earlier), "the id of a run in this journal (see: muse runs)")
    return past if config.resume_from else RunHistory(past.closed)


def _earlier(config: RunConfig) -> dict[str, str]:
    """Which run this one takes up, for its `start`: so its log says where the conversation began."""
    if config.resume_from:
        return {"resume_from": config.resume_from}
    return {"continue_from": config.continue_from} if config.continue_from else {}


def _initial_turns(config: RunConfig) -> tuple[Turn, ...]:
    """What the run itself begins with: the extra context and the prompt; a resumed run has said them already."""
    if config.resume_from:
        return ()
    asked = User((config.prompt, *read_pictures(config.images)))
    fresh = config.extra_context and not config.continue_from
    return (User((str(config.extra_context),)), asked) if fresh else (asked,)


def _finish(run_state: _RunState, reply: Reply, **reason: str) -> dict[str, Any]:
    usage = run_state.usage.as_dict() | {"requests": run_state.usage.requests}
    return {"event": "finish", "result": reply.text, "usage": usage, **reason}


def _result_or_raise(ended: ToolResult | BaseException) -> ToolResult:
    if isinstance(ended, BaseException):
        raise ended
    return ended


def _event_fields(call: ToolCall) -> dict[str, Any]:
    return {"tool": call.name, "args": dict(call.args), "call_id": call.call_id}


def _why(exc: BaseException) -> dict[str, Any]:
    """Return the entries of an `error` event that a program reads: `reason` where there is one, and `cause`."""
    return _reason(exc) | ({"cause": cause_of(exc)} if isinstance(exc, Exception) else {})


def _reason(exc: BaseException) -> dict[str, str]:
    """Why a run ended, where there is a word for it: its time, another limit, an unusable reply, somebody's will."""
    if not isinstance(exc, Exception):
        return {"reason": "cancelled"}
    return next(({"reason": reason} for kinds, reason in _REASONS if isinstance(exc, kinds)), {})


_REASONS: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
    ((TimeoutError, ProviderTimeout), "timeout"),
    ((LimitError, TurnLimitError), "limit"),
    ((TruncatedReply,), "truncated"),
    ((BlockedReply,), "blocked"),
    ((EmptyReply,), "empty"),
    ((InterruptedReply,), "interrupted"),
)


def _words(exc: BaseException) -> str:
    """An exception in words, without keys."""
    if not isinstance(exc, Exception):
        return "cancelled"
    return redact(str(exc) or ("the run's time ran out" if isinstance(exc, TimeoutError) else type(exc).__name__))
