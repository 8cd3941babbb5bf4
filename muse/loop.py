"""The one agent loop: ask, call tools, ask again; it owns events, limits and the error pattern, and no wire form."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from msgspec import Struct

from muse.errors import TurnLimitError
from muse.events import JSONEventCallback
from muse.history import Past, past_of
from muse.keys import mask
from muse.messages import Reply, Request, Results, ToolCall, ToolResult, Turn, User
from muse.policies.deadline import Deadline
from muse.run_config import RunConfig
from muse.streams import AsyncReplyStream
from muse.tools import Toolbox, open_toolbox
from muse.usage import Usage

OnEvent = Callable[[dict[str, Any]], None] | None
_CLOSING = "The limit of this run is reached. Answer now, from what you have; no more tools can be called."
_INTERRUPTED = "interrupted: the run was cut off while this tool was at work; it may or may not have had its effect"


class Asked(Protocol):
    """How the loop reaches a model: a whole reply, or one as it is written."""

    async def ask(self, request: Request, context: str) -> Reply:
        """One call, answered."""

    async def open(self, request: Request, context: str) -> AsyncReplyStream:
        """One call, its answer as it is written."""


class _Run(Struct):
    """A run under way: its conversation and what it has spent."""

    config: RunConfig
    box: Toolbox
    events: JSONEventCallback
    model: Asked
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
        self.cost_usd += reply.cost_usd or 0.0
        self.replies += 1
        self.turns.append(reply.turn)
        if reply.thinking:
            self.events.emit({"event": "thinking", "summary": reply.thinking, "model": reply.model})
        return reply

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
        """Run the calls of one turn in parallel; events begin, and results stand, in the order of the calls."""
        import asyncio  # a coroutine runs, so it is loaded; 20 ms for whoever imports muse without one

        for call in calls:
            self.events.emit({"event": "tool_start", **_head(call)})
        self.tool_calls += len(calls)
        results = await asyncio.gather(*(self._call_tool(call) for call in calls))
        self.turns.append(Results(tuple(results)))

    async def _call_tool(self, call: ToolCall) -> ToolResult:
        """One call to its end; whatever a tool or its server does ends the call, not the run."""
        try:
            result, shown = await self.deadline.bound(self.box.call(call))
        except BaseException as exc:
            is_over = isinstance(exc, TimeoutError) or not isinstance(exc, Exception)
            text = "cancelled" if not isinstance(exc, Exception) else _words(exc)
            self.events.emit({"event": "tool_end", **_head(call), "result": {"error": text}})
            if is_over:
                raise
            return ToolResult(call.call_id, call.name, (f"Error: {text}",), failed=True)
        self.events.emit({"event": "tool_end", **_head(call), "result": shown})
        return result

    async def settle(self, past: Past) -> None:
        """End what a cut-off run had under way: tools that only read run again, others are told as interrupted."""
        if not past.pending:
            return
        safe = {tool.name for tool in self.box.tools if tool.read_only}
        settled: list[ToolResult] = list(past.ended)
        for call in past.pending:
            if call.name in safe:
                self.events.emit({"event": "tool_start", **_head(call)})
                settled.append(await self._call_tool(call))
            else:
                self.events.emit({"event": "tool_end", **_head(call), "result": {"error": _INTERRUPTED}})
                settled.append(ToolResult(call.call_id, call.name, (f"Error: {_INTERRUPTED}",), failed=True))
        self.turns.append(Results(tuple(settled)))


async def run(config: Mapping[str, Any], on_event: OnEvent, *, model: Asked, provider: str) -> str:
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
                **({"resume_from": wanted.resume_from} if wanted.resume_from else {}),
            }
        )
        return await _run(wanted, events, model)
    except BaseException as exc:
        reason = {} if isinstance(exc, Exception) else {"reason": "cancelled"}
        events.emit({"event": "error", "error": _words(exc), "trace": mask(traceback.format_exc()), **reason})
        exc._evented = True  # type: ignore[attr-defined]
        raise


async def _run(config: RunConfig, events: JSONEventCallback, model: Asked) -> str:
    deadline = Deadline.after(config.timeout_s)
    past = _past(config)
    async with open_toolbox(config.servers(), config.policy, agent_id=config.agent_id, persona=config.persona) as box:
        run_state = _Run(config, box, events, model, deadline, [*past.turns, *_opening(config)])
        await run_state.settle(past)
        while True:
            reply = await run_state.turn()
            if not reply.turn.calls:
                return _finish(run_state, reply)
            await run_state.call_tools(reply.turn.calls)
            if run_state.is_at_limit():
                return await _close(run_state)


async def _close(run_state: _Run) -> str:
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


def _past(config: RunConfig) -> Past:
    """What came before: an earlier run to continue or resume, or nothing."""
    earlier = config.resume_from or config.continue_from
    return past_of(earlier) if earlier else Past()


def _opening(config: RunConfig) -> tuple[Turn, ...]:
    """What the run itself begins with: the extra context and the prompt; a resumed run has said them already."""
    if config.resume_from:
        return ()
    asked = User((config.prompt,))
    fresh = config.extra_context and not config.continue_from
    return (User((str(config.extra_context),)), asked) if fresh else (asked,)


def _finish(run_state: _Run, reply: Reply, **reason: str) -> str:
    usage = run_state.usage.as_dict() | {"requests": run_state.usage.requests}
    run_state.events.emit({"event": "finish", "result": reply.text, "usage": usage, **reason})
    return reply.text


def _head(call: ToolCall) -> dict[str, Any]:
    return {"tool": call.name, "args": dict(call.args), "call_id": call.call_id}


def _words(exc: BaseException) -> str:
    """An exception in words, without keys."""
    return mask(str(exc) or ("the run's time ran out" if isinstance(exc, TimeoutError) else type(exc).__name__))
