"""A run's events as the blocks of a page: deltas joined, calls with their results; it knows no file and no HTML."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import msgspec
from msgspec import Struct

from muse.agent_loop.run_config import RunConfig
from muse.runs.follow import NumberedEvent
from muse.runs.run_files import time_of
from muse.terminal.text import escape_control

Kind = Literal["started", "said", "thinking", "tool", "approval", "fallback", "info", "answer", "error"]
_MOST_CHARS = 20_000
_SHORT_CHARS = 90


class Block(Struct):
    """One piece of a run; `key` is its place on the page, `ts` its time in milliseconds.

    `text` is what was said, thought, answered or went wrong. Of a call: `tool`, `args`, `result` as text to show, and
    `state`: open, asks (waits for approval), done, failed, refused; of an approval: open, allowed, refused. `cause` is
    of an error what `muse.errors.cause_of` knows of it, with the run's `provider`, `model` and `context`.
    """

    key: str
    kind: Kind
    ts: int = 0
    text: str = ""
    tool: str = ""
    call_id: str = ""
    args: str = ""
    short: str = ""
    result: str = ""
    state: str = ""
    note: str = ""
    cause: Mapping[str, Any] = {}


class Change(Struct, frozen=True):
    """What an event did to the blocks: one is new or another now, has more text from `at` on, or is gone."""

    block: Block
    kind: Literal["put", "more", "gone"] = "put"
    at: int = 0


class RunView:
    """The blocks of a run as far as its lines were taken, and what is known of it besides."""

    def __init__(self) -> None:
        self.blocks: dict[str, Block] = {}
        self.facts: dict[str, Any] = {}
        self.end: Mapping[str, Any] = {}
        self._said: Block | None = None
        self._calls: dict[str, list[Block]] = {}  # under way, by call_id
        self._approvals: list[Block] = []  # open
        self._refused: set[str] = set()  # calls that somebody refused, until they end

    def take(self, line: NumberedEvent) -> list[Change]:
        """One more line of the log, and what it changed."""
        event, key = line.event, f"b{line.number}"
        name = str(event.get("event"))
        take = {"delta": self._add_delta, "tool_end": self._end_call, "finish": self._finish, "error": self._finish}
        if name in take:
            return take[name](event, key)
        if name == "request":
            self.facts.update(event)
        if name == "answer":
            return self._settle(str(event.get("call_id")), "allowed" if event.get("approved") is True else "refused")
        block = self._block_of(name, event, key)
        if block is None:
            return []
        self._said = None
        return [self._put(block), *(self._mark(block.call_id, "asks") if name == "approval" else ())]

    def take_all(self, lines: Iterable[NumberedEvent]) -> None:
        """Lines whose changes nobody needs one by one."""
        for line in lines:
            self.take(line)

    def _block_of(self, name: str, event: Mapping[str, Any], key: str) -> Block | None:
        """The block that an event begins; None for one that shows nothing."""
        if name == "start":
            self.facts.update({name: event[name] for name in _STARTS if event.get(name)})
        if name == "tool_start":
            call = f"call-{event.get('call_id') or key}"
            block = _call(call if call not in self.blocks else f"{call}-{key}", "tool", event)
            self._calls.setdefault(block.call_id, []).append(block)
            return block
        if name == "approval":
            self._approvals.append(_call(key, "approval", event))
            return self._approvals[-1]
        return _plain_block(name, event, key)

    def _add_delta(self, event: Mapping[str, Any], key: str) -> list[Change]:
        text = str(event.get("text") or "")
        if self._said is not None:
            at = len(self._said.text)
            self._said.text += text
            return [Change(self._said, "more", at)]
        self._said = _block(key, "said", event, text=text)
        return [self._put(self._said)]

    def _end_call(self, event: Mapping[str, Any], key: str) -> list[Change]:
        call_id = str(event.get("call_id") or "")
        open_calls = self._calls.get(call_id)
        block = open_calls.pop(0) if open_calls else _call(key, "tool", event)
        result = event.get("result")
        has_failed = isinstance(result, Mapping) and "error" in result
        settled = self._settle(call_id, "refused" if has_failed else "allowed")
        is_refused = has_failed and call_id in self._refused
        block.state = "refused" if is_refused else "failed" if has_failed else "done"
        block.result = _shown(result["error"] if has_failed and isinstance(result, Mapping) else result)
        self._refused.discard(call_id)
        return [self._put(block), *settled]

    def _mark(self, call_id: str, state: str) -> list[Change]:
        """Give the first call of an id that is under way another state."""
        blocks = self._calls.get(call_id) or []
        for block in blocks[:1]:
            block.state = state
        return [Change(block) for block in blocks[:1]]

    def _settle(self, call_id: str, state: str) -> list[Change]:
        """Approvals of a call that are not open any more."""
        settled = [one for one in self._approvals if one.call_id == call_id or not call_id]
        self._approvals = [one for one in self._approvals if one not in settled]
        changes = [Change(block) for block in settled]
        for block in settled:
            block.state = state
            if state == "refused":
                self._refused.add(block.call_id)
            changes += self._mark(block.call_id, "open")
        return changes

    def _finish(self, event: Mapping[str, Any], key: str) -> list[Change]:
        self.end = event
        changes = self._settle("", "refused")
        for block in (block for calls in self._calls.values() for block in calls):
            block.state, block.result = "failed", "The run ended before this call did."
            changes.append(Change(block))
        self._calls = {}
        if event.get("event") == "finish":
            if self._said is not None:
                changes.append(Change(self.blocks.pop(self._said.key), "gone"))
            note = "A limit of the run was reached." if event.get("reason") == "limit" else ""
            block = _block(key, "answer", event, text=str(event.get("result") or ""), note=note)
        else:
            block = _block(key, "error", event, text=str(event.get("error") or ""), note=str(event.get("reason") or ""))
            block.cause = self._cause(event)
        self._said = None
        return [*changes, self._put(block)]

    def _cause(self, event: Mapping[str, Any]) -> Mapping[str, Any]:
        """What is known of an error, with who was asked and for what."""
        said = event.get("cause")
        facts = {name: self.facts[name] for name in ("provider", "model") if self.facts.get(name)}
        persona = str(self.facts.get("persona") or "default")
        context = str(self.facts.get("context") or RunConfig(prompt="-", model="-", persona=persona).ledger_context)
        return {**facts, **(said if isinstance(said, Mapping) else {}), "context": context}

    def _put(self, block: Block) -> Change:
        self.blocks[block.key] = block
        return Change(block)


_STARTS = ("prompt", "persona", "model", "provider", "continue_from", "resume_from", "images", "ts")


def _plain_block(name: str, event: Mapping[str, Any], key: str) -> Block | None:
    match name:
        case "start":
            words = f"{event.get('provider', '')} {event.get('model', '')}".strip()
            return _block(key, "started", event, text=words, note=str(event.get("resume_from") or ""))
        case "thinking":
            return _block(key, "thinking", event, text=str(event.get("summary") or ""))
        case "fallback":
            words = f"{event.get('provider')} (model {event.get('model')}) could not answer: {event.get('error')}"
            then = f"{event.get('to_provider')} (model {event.get('to_model')})"
            return _block(key, "fallback", event, text=words, note=then)
        case "info":
            return _block(key, "info", event, text=str(event.get("message") or ""))
        case _:
            return None


def _block(key: str, kind: Kind, event: Mapping[str, Any], *, text: str, note: str = "") -> Block:
    return Block(key, kind, time_of(event), text=text if kind in ("said", "answer") else _cut(text), note=note)


def _call(key: str, kind: Literal["tool", "approval"], event: Mapping[str, Any]) -> Block:
    args, is_asked = event.get("args"), kind == "approval"
    named = args.items() if isinstance(args, Mapping) else ()
    tool, server = str(event.get("tool") or "unknown"), str(event.get("server") or "")
    short = ", ".join(f"{name}: {value if isinstance(value, str) else json.dumps(value)}" for name, value in named)
    return Block(
        key,
        kind,
        time_of(event),
        tool=escape_control(f"{tool} of server {server}" if is_asked and server else tool),
        call_id=str(event.get("call_id") or ""),
        args=(_whole(args) if is_asked else _shown(args)) if named else "",
        short=" ".join(short.split())[:_SHORT_CHARS],
        text=escape_control(str(event.get("preview") or ""), keep_newlines=True),
        state="open",
    )


def _whole(args: object) -> str:
    """What is approved, all of it, with characters that hide or reorder text as escapes."""
    return escape_control(msgspec.json.format(msgspec.json.encode(args), indent=2).decode(), keep_newlines=True)


def _shown(value: object) -> str:
    """A tool's arguments or result as text to read: JSON with line ends, several texts one below the other."""
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return _cut("\n\n".join(map(_shown, value)))
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.lstrip()[:1] in ("{", "[") else value
        except (ValueError, RecursionError):
            return _cut(str(value))
    if value is None or isinstance(value, str):
        return _cut(value or "")
    try:
        return _cut(json.dumps(value, indent=2, ensure_ascii=False))
    except RecursionError:  # it is written one level after the other, so it fails where reading did not
        return _cut(msgspec.json.encode(value).decode())


def _cut(text: str) -> str:
    if len(text) <= _MOST_CHARS:
        return text
    return f"{text[:_MOST_CHARS]}\n… ({len(text) - _MOST_CHARS:,} more characters are in the run's log)"
