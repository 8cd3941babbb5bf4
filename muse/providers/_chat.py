"""The wire form of Chat Completions, shared by OpenAI-shaped endpoints and llama.cpp; it makes no call.

Entry points: `chat_messages`, `add_tools_and_format`, `decode_completion`, `ChatAccumulator`.

Sources: the API reference of `POST /chat/completions`; OpenRouter's and DeepSeek's pages for reasoning in a message.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from muse.providers._backend.provider import Payload
from muse.providers._http.sse import DONE
from muse.providers._replies.finish_reasons import finish_of, is_no_end
from muse.providers._replies.tool_calls import (
    IdRule,
    ToolCallJoiner,
    args_text,
    fit_ids,
    fresh_ids,
    parse_args,
    wire_name,
)
from muse.providers._sdk_base import data_url, refuse_parts, stream_error
from muse.types.json_schema.strict import OPENAI, make_strict, unwrapped, with_object_root
from muse.types.messages import Assistant, File, Image, Part, Reply, Request, ToolCall, ToolResults, Turn, User
from muse.types.provider_spec import ModelProfile
from muse.types.usage import Usage, merge_counts, parse_usage

# The call ids that endpoints of this form accept: OpenAI's have at most 40 characters, those of Mistral's models have
# exactly 9 letters and digits.
_ID_RULE = IdRule("[A-Za-z0-9_-]{1,40}", 9)
_MISTRAL_ID_RULE = IdRule("[A-Za-z0-9]{9}", 9)
_MISTRAL = "(?i:(?:mi|mini|magi|dev|code|vox)stral|pixtral|mixtral)"
# Finish reasons of a complete answer; gateways also pass on those of the API that they call.
_GOOD = frozenset(
    {
        *("stop", "tool_calls", "function_call", "stop_sequence", "eos", "eos_token", "end_turn", "tool_use"),
        *("complete", "completed", "end", "done", "tool_call", "finish", "finished", "normal"),
    }
)


def chat_messages(request: Request, profile: ModelProfile, provider: str) -> list[dict[str, Any]]:
    """Return a request as messages; `provider`'s own assistant messages are replayed unchanged."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": request.system}] if request.system else []
    turns = fit_ids(request.turns, provider, _MISTRAL_ID_RULE if re.search(_MISTRAL, request.model) else _ID_RULE)
    messages += [message for turn in turns for message in _messages(turn, profile, request.model, provider)]
    return messages


def add_tools_and_format(payload: Payload, request: Request) -> None:
    """Add the tools and the answer format to the payload: a schema (strict if it can be closed), or plain JSON."""
    if request.tools:
        payload["tools"] = [_tool(tool.name, tool.description, tool.schema) for tool in request.tools]
        payload |= {} if request.may_call_tools else {"tool_choice": "none"}
    if request.json_schema is not None:
        rooted = with_object_root(request.json_schema)
        closed = make_strict(rooted, OPENAI)
        form = {"name": "reply", "schema": closed or rooted, "strict": closed is not None}
        payload["response_format"] = {"type": "json_schema", "json_schema": form}
    elif request.json_output:
        payload["response_format"] = {"type": "json_object"}
        payload["messages"].append({"role": "system", "content": "Answer with one JSON object."})


def decode_completion(raw: Mapping[str, Any], request: Request, provider: str) -> Reply:
    """Return a completion as a reply.

    Raises:
        ProviderError: The answer is an error, or has no choices.
    """
    choices = raw.get("choices")
    if raw.get("error") or not choices:
        raise stream_error(provider, request.model, raw)
    choice = choices[0]
    if choice.get("error"):
        raise stream_error(provider, request.model, choice)
    message = _with_ids(choice.get("message") or {}, request)
    text, refusal = _said(message.get("content")), message.get("refusal") or _refused(message.get("content"))
    calls = tuple(_call(call) for call in message.get("tool_calls") or ())
    end = choice.get("finish_reason")
    finish = finish_of(end, _GOOD)
    if calls and finish == "stop":
        finish = "tools"
    if refusal:
        finish = "blocked"
    thinking = _said(message.get("reasoning") or message.get("reasoning_content"))
    usage = parse_usage(_counts(raw))
    turn = Assistant(text, calls, native=_replayable(message), provider=provider)
    model = raw.get("model") or request.model
    said = unwrapped(text, request.json_schema) or refusal
    return Reply(said, turn, usage, finish, model, provider, thinking, ended_with=str(end or ""))


def _counts(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the token counts of a completion or chunk from wherever the server puts them.

    That is the top level, the choice, the message or delta, or the server's own extension. Sources: Groq's reference
    (`x_groq.usage` in the last chunk), Moonshot's (`choices[0].usage`).
    """
    choice = next(iter(raw.get("choices") or ()), None) or {}
    inner = choice.get("message") or choice.get("delta") or {}
    merged: Mapping[str, Any] = {}
    for place in (raw.get("x_groq"), inner, choice, raw):
        counts = place.get("usage") if isinstance(place, Mapping) else None
        merged = merge_counts(merged, counts) if counts else merged
    return merged


def _has_usage(choice: Mapping[str, Any]) -> bool:
    return "usage" in choice or "usage" in (choice.get("delta") or choice.get("message") or ())


_GROWING = ("text", "summary", "data")


class ChatAccumulator:
    """An accumulator that joins chunks into a completion; a whole completion counts as the only chunk."""

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._head: dict[str, Any] = {}
        self._message: dict[str, Any] = {"role": "assistant", "content": ""}
        self._calls = ToolCallJoiner()
        self._details: dict[int, dict[str, Any]] = {}
        self._finish: str | None = None
        self._index: Any = None
        self._usage: Mapping[str, Any] = {}
        self._is_done = False

    def feed(self, event: Any) -> str:
        if event is DONE:
            self._is_done = True
            return ""
        if event.get("error"):
            raise stream_error(self._provider, "", event)
        self._head |= {key: event[key] for key in ("id", "model", "created") if event.get(key)}
        choices = self._own(event.get("choices") or ())
        if event.get("usage") or event.get("x_groq") or (choices and _has_usage(choices[0])):
            self._usage = merge_counts(self._usage, _counts(event))
        return self._add(choices[0]) if choices else ""

    def _own(self, choices: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Return the choices of the answer that came first; servers that write several answers at once number them."""
        if choices and self._index is None:
            self._index = choices[0].get("index") or 0
        return [choice for choice in choices if (choice.get("index") or 0) == self._index]

    def _add(self, choice: Mapping[str, Any]) -> str:
        if choice.get("error"):
            raise stream_error(self._provider, "", choice)
        if not is_no_end(end := choice.get("finish_reason")):
            self._finish = end
        delta = choice.get("delta") or choice.get("message") or {}
        for key in ("reasoning", "reasoning_content", "refusal"):
            if delta.get(key):
                self._message[key] = self._message.get(key, "") + _said(delta[key])
        if pieces := _call_pieces(delta):
            self._calls.add(pieces)
        for piece in delta.get("reasoning_details") or ():
            self._add_detail(piece)
        text = _said(delta.get("content"))
        self._message["content"] += text
        return text

    def _add_detail(self, piece: Mapping[str, Any]) -> None:
        """Join a reasoning piece to those of its index: text is appended, any other value (a signature) is replaced."""
        detail = self._details.setdefault(piece.get("index", len(self._details)), {})
        for key, value in piece.items():
            grows = key in _GROWING and isinstance(value, str)
            detail[key] = detail.get(key, "") + value if grows else value

    def usage(self) -> Usage | None:
        return parse_usage(self._usage) if self._usage else None

    def raw(self) -> Mapping[str, Any] | None:
        """Return the completion if it is complete, else None.

        It is complete at its finish reason, or at `[DONE]` if it has any content.
        """
        message, calls = self._message, self._calls.calls()
        if self._finish is None and not (self._is_done and (len(message) > 2 or message["content"] or calls)):
            return None
        if calls:
            message["tool_calls"] = calls
        if self._details:
            message["reasoning_details"] = list(self._details.values())
        return {**self._head, "choices": [{"message": message, "finish_reason": self._finish}], "usage": self._usage}


def _call_pieces(delta: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the tool calls in a message or delta, including one in the older form (`function_call`)."""
    pieces = delta.get("tool_calls")
    if not pieces and delta.get("function_call"):
        return [{"index": 0, "function": delta["function_call"]}]
    return pieces or []


def _said(content: object) -> str:
    """Return a message's text: a string, or the joined text parts of a list."""
    if isinstance(content, list):
        return "".join(part.get("text") or "" for part in content if isinstance(part, Mapping))
    return str(content or "")


def _refused(content: object) -> str:
    """Return the refusal among a message's parts."""
    parts = content if isinstance(content, list) else ()
    return "".join(part.get("refusal") or "" for part in parts if isinstance(part, Mapping))


def _with_ids(message: Mapping[str, Any], request: Request) -> Mapping[str, Any]:
    """Return a message whose calls have ids that are new in the conversation, and arguments as JSON text."""
    pieces = _call_pieces(message)
    if not pieces:
        return message
    ids = fresh_ids(request.turns, [str(piece.get("id") or "") for piece in pieces])
    calls = []
    for piece, call_id in zip(pieces, ids, strict=True):
        function = piece.get("function") or {}
        said = {"name": str(function.get("name") or ""), "arguments": args_text(function.get("arguments"))}
        calls.append({**piece, "id": call_id, "type": piece.get("type") or "function", "function": function | said})
    return {**message, "tool_calls": calls}


def _replayable(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return an assistant message in a form that can be sent back: gateways reject `null` refusals and annotations."""
    kept = ("role", "content", "tool_calls", "reasoning_details")
    return {"role": "assistant"} | {key: message[key] for key in kept if message.get(key)}


def _messages(turn: Turn, profile: ModelProfile, model: str, provider: str) -> Iterator[dict[str, Any]]:
    match turn:
        case User(parts):
            refuse_parts(parts, profile, model)
            only = parts[0] if len(parts) == 1 and isinstance(parts[0], str) else None
            yield {"role": "user", "content": only or [_part(part) for part in parts]}
        case Assistant(native=native, provider=author) if native and author == provider:
            yield from _replayed(native)
        case Assistant(text, calls) if text or calls:
            message: dict[str, Any] = {"role": "assistant", "content": text or None}
            if calls:
                message["tool_calls"] = [_call_again(call) for call in calls]
            yield message
        case Assistant():
            pass  # an empty turn is left out
        case ToolResults(results):
            for result in results:
                text = "\n".join(part if isinstance(part, str) else f"[{part.media_type}]" for part in result.parts)
                yield {"role": "tool", "tool_call_id": result.call_id, "content": text}


def _replayed(native: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the endpoint's own message without empty texts, if anything is left."""
    content = native.get("content")
    if isinstance(content, list):
        content = [part for part in content if not isinstance(part, Mapping) or part.get("text") != ""]
    message = {**native, "content": content} if content else {k: v for k, v in native.items() if k != "content"}
    if isinstance(message.get("tool_calls"), list):
        message["tool_calls"] = [_named(call) for call in message["tool_calls"]]
    if content or set(message) - {"role"}:
        yield message


def _named(call: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a call with a name that endpoints accept back, whatever name the model wrote."""
    if not isinstance(call.get("function"), Mapping):  # a call of another kind, such as a custom tool's
        return call
    name = call["function"]["name"]
    return call if wire_name(name) == name else {**call, "function": {**call["function"], "name": wire_name(name)}}


def _part(part: Part) -> dict[str, Any]:
    match part:
        case Image():
            return {"type": "image_url", "image_url": {"url": data_url(part)}}
        case File():
            return {"type": "file", "file": {"filename": part.name, "file_data": data_url(part)}}
        case str():
            return {"type": "text", "text": part}


def _tool(name: str, description: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}


def _call(call: Mapping[str, Any]) -> ToolCall:
    return ToolCall(call["id"], call["function"]["name"], parse_args(call["function"]["arguments"]))


def _call_again(call: ToolCall) -> dict[str, Any]:
    arguments = json.dumps(dict(call.args), ensure_ascii=False)
    return {"id": call.call_id, "type": "function", "function": {"name": call.name, "arguments": arguments}}
