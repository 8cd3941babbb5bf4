"""The one agent loop: ask, call tools, ask again; it owns every event, the turn limit and the error pattern, no wire form."""

from __future__ import annotations

import traceback
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

from msgspec import Struct

from muse.contexts import agent_context
from muse.events import JSONEventCallback
from muse.history import turns_of_run
from muse.keys import mask
from muse.messages import DEFAULT_MAX_OUTPUT_TOKENS, Reply, Request, Results, ToolCall, ToolResult, Turn, User
from muse.policies.deadline import Deadline
from muse.tools import Toolbox, open_toolbox
from muse.usage import Usage

Ask = Callable[[Request, str], Awaitable[Reply]]
OnEvent = Callable[[dict[str, Any]], None] | None
DEFAULT_MAX_TURNS = 32
_CLOSING = "The limit of tool calls is reached. Answer now, from what you have."


class RunConfig(Struct, frozen=True):
    """One agent run as it was asked for; `tools` is the allow-list (None all, empty none)."""

    prompt: str
    model: str
    max_tokens: int = DEFAULT_MAX_OUTPUT_TOKENS
    max_turns: int = DEFAULT_MAX_TURNS
    thinking_budget: int | None = None
    timeout_s: float | None = None
    instruction: str | None = None
    extra_context: str | None = None
    mcp_server_url: str | None = None
    disable_mcp: bool = False
    tools: Collection[str] | None = None
    agent_id: str | None = None
    persona: str = "default"
    continue_from: str | None = None
    context: str | None = None

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> RunConfig:
        """The known entries of `config`; None counts as left out.

        Raises:
            ValueError: `prompt` or `model` is missing.
        """
        for name in ("prompt", "model"):
            if not config.get(name):
                raise ValueError(f"Missing {name!r} in config")
        known = {name: config[name] for name in cls.__struct_fields__ if config.get(name) is not None}
        return cls(**known)

    @property
    def ledger_context(self) -> str:
        """The context under which the run's calls are logged: the given one, or that of its persona."""
        if self.context:
            return self.context
        owner, _, name = self.persona.rpartition(":")
        return agent_context(owner, name)


class _Run(Struct):
    """A run under way: its conversation and what it has spent."""

    config: RunConfig
    box: Toolbox
    events: JSONEventCallback
    ask: Ask
    deadline: Deadline
    turns: list[Turn]
    usage: Usage = Usage()

    async def turn(self, tools: bool) -> Reply:
        """Ask the model once, with or without tools on offer."""
        config = self.config
        request = Request(
            model=config.model,
            turns=tuple(self.turns),
            system=config.instruction or None,
            tools=self.box.tools if tools else (),
            max_output_tokens=config.max_tokens,
            thinking_budget=config.thinking_budget,
            timeout_s=self.deadline.left_s(),
        )
        reply = await self.ask(request, config.ledger_context)
        self.usage = self.usage + reply.usage
        self.turns.append(reply.turn)
        if reply.thinking:
            self.events.emit({"event": "thinking", "summary": reply.thinking, "model": reply.model})
        return reply

    async def call_tools(self, calls: tuple[ToolCall, ...]) -> None:
        """Run the calls of one turn in parallel; results are kept in the order of the calls."""
        import asyncio  # a coroutine runs, so it is loaded; 20 ms for whoever imports muse without one

        results = await asyncio.gather(*(self._call_tool(call) for call in calls))
        self.turns.append(Results(tuple(results)))

    async def _call_tool(self, call: ToolCall) -> ToolResult:
        head = {"tool": call.name, "args": dict(call.args), "call_id": call.call_id}
        self.events.emit({"event": "tool_start", **head})
        try:
            result, shown = await self.deadline.bound(self.box.call(call))
        except TimeoutError:
            self.events.emit({"event": "tool_end", **head, "result": {"error": "the run's time ran out"}})
            raise
        except BaseException as exc:
            if not isinstance(exc, Exception):
                self.events.emit({"event": "tool_end", **head, "result": {"error": "cancelled"}})
                raise
            # whatever a tool or its server does ends the call, not the run
            text = mask(str(exc) or type(exc).__name__)
            result, shown = ToolResult(call.call_id, call.name, (f"Error: {text}",), failed=True), {"error": text}
        self.events.emit({"event": "tool_end", **head, "result": shown})
        return result


async def run(config: Mapping[str, Any], on_event: OnEvent, *, ask: Ask, provider: str) -> str:
    """Run an agent to its answer; see `ProviderBackend.run_agent` for `config`.

    Events: `start`, then any of `thinking`, `tool_start`, `tool_end`, then one `finish` or `error`. At the turn limit one more
    turn without tools still gives an answer, and `finish` says `reason: "limit"`.

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
            }
        )
        return await _run(wanted, events, ask)
    except BaseException as exc:
        reason = {} if isinstance(exc, Exception) else {"reason": "cancelled"}
        text = mask(str(exc) or type(exc).__name__)
        events.emit({"event": "error", "error": text, "trace": mask(traceback.format_exc()), **reason})
        exc._evented = True  # type: ignore[attr-defined]
        raise


async def _run(config: RunConfig, events: JSONEventCallback, ask: Ask) -> str:
    deadline = Deadline.after(config.timeout_s)
    async with open_toolbox(
        config.mcp_server_url,
        disabled=config.disable_mcp,
        allowed=config.tools,
        agent_id=config.agent_id,
        persona=config.persona,
    ) as box:
        run_state = _Run(config, box, events, ask, deadline, list(_opening(config)))
        for _ in range(config.max_turns):
            reply = await run_state.turn(tools=True)
            if not reply.turn.calls:
                return _finish(run_state, reply)
            await run_state.call_tools(reply.turn.calls)
        run_state.turns.append(User((_CLOSING,)))
        return _finish(run_state, await run_state.turn(tools=False), reason="limit")


def _opening(config: RunConfig) -> tuple[Turn, ...]:
    """What the conversation begins with: an earlier run or the extra context, then the prompt."""
    asked = User((config.prompt,))
    if config.continue_from:
        return (*turns_of_run(config.continue_from), asked)
    return (User((config.extra_context,)), asked) if config.extra_context else (asked,)


def _finish(run_state: _Run, reply: Reply, **reason: str) -> str:
    usage = run_state.usage.as_dict() | {"requests": run_state.usage.requests}
    run_state.events.emit({"event": "finish", "result": reply.text, "usage": usage, **reason})
    return reply.text
