"""Anthropic by way of its Messages API: requests into content blocks, content blocks into replies.

Sources: the API reference of `POST /v1/messages`; the migration guides of Claude 5 and 5.5 (no sampling parameters, no
budgets, which models can stop thinking and how); the page on structured outputs (which schema keywords are refused).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from muse.messages import (
    DEFAULT_TEMPERATURE,
    Assistant,
    File,
    Finish,
    Image,
    Part,
    Reply,
    Request,
    Results,
    ToolCall,
    Turn,
    User,
)
from muse.providers._base import Access, Capabilities, Encoded, Payload, Profile, Spec, bind
from muse.providers._sdk import ONLY_JSON, SdkProvider, as_args, refuse_parts, schema_words, stream_error
from muse.schema import close_objects
from muse.usage import Usage, usage_of

if TYPE_CHECKING:
    from muse.providers._batch_anthropic import AnthropicBatch

__all__ = ["generate", "agenerate", "run_agent"]

_EFFORTS = ("low", "medium", "high", "xhigh", "max")
_UP_TO_HIGH = ("low", "medium", "high")


def _budget(match: str) -> Profile:
    return Profile(match, "budget", thinking_off="disabled", min_budget=1_024, files=True, output_cap=64_000)


def _adaptive(match: str, off: str = "", efforts: tuple[str, ...] = _EFFORTS, *, temperature: bool = False) -> Profile:
    return Profile(match, "adaptive", efforts, off, temperature=temperature, files=True, output_cap=128_000)


# Said outright: where it is not, the SDK takes its variable even if that is empty.
_HOME = "https://api.anthropic.com"
SPEC = Spec(
    name="anthropic",
    label="Anthropic (Claude)",
    env_key="ANTHROPIC_API_KEY",
    base_url_env="ANTHROPIC_BASE_URL",
    endpoint_paths=("/v1/messages", "/v1"),
    tiers={1: "claude-opus-5-5", 2: "claude-sonnet-5-5", 3: "claude-haiku-5-5"},
    prefixes=("claude-",),
    capabilities=Capabilities(
        vision=True, files=True, structured_output=True, function_calling=True, max_context_tokens=1_000_000
    ),
    profiles=(
        _adaptive("claude-sonnet-5-5*", "between_tools"),
        _adaptive("claude-haiku-5-5*", "disabled"),
        _adaptive("claude-opus-5-5*"),
        _budget("claude-*-4-5*"),
        _adaptive("claude-*-5", "disabled"),
        _adaptive("claude-*-4-[78]*", "disabled"),
        _adaptive("claude-*-4-6*", "disabled", _UP_TO_HIGH, temperature=True),
        _budget("claude-*-4*"),
        Profile("claude-3*", files=True, schema=False, output_cap=8_192),
        _adaptive("*"),
    ),
    options=frozenset({"stop"}),
    extra="anthropic",
    price_id="anthropic",
    batch_price=0.5,  # the pricing page: batch input and output at half the standard rate
)

_FINISHES: Mapping[str, Finish] = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "blocked",
    "tool_use": "tools",
}
# The SDK's own measure (its `_calculate_nonstreaming_timeout`): beyond this an answer may take over ten minutes.
_LONGEST_UNSTREAMED_TOKENS = 21_333
# Keywords that the schema compiler refuses; replies are checked against the caller's own schema all the same.
_REFUSED_KEYWORDS = (
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "uniqueItems",
    "minProperties",
    "maxProperties",
)


class AnthropicProvider(SdkProvider):
    """The Messages API; thinking blocks are kept with their signatures and replayed untouched."""

    spec = SPEC
    sdk = "anthropic"
    path: ClassVar[str] = "/v1/messages"

    def connect(self, sdk: Any, access: Access, *, is_async: bool, **wiring: Any) -> Any:
        kind = sdk.AsyncAnthropic if is_async else sdk.Anthropic
        return kind(api_key=access.key, base_url=access.base_url or _HOME, **wiring)

    def encode(self, request: Request) -> Encoded:
        profile = SPEC.profile(request.model)
        dropped: list[str] = []
        payload: Payload = {
            "model": request.model,
            "messages": [_message(turn, profile, request.model) for turn in request.turns],
            "max_tokens": profile.limit(request.max_output_tokens, request.thinking_budget),
        }
        system = [text for text in (request.system, ONLY_JSON if _wants_bare_json(request, profile) else None) if text]
        if system:
            payload["system"] = "\n\n".join(system)
        if "stop" in request.extras:
            payload["stop_sequences"] = list(request.extras["stop"])
        if request.tools:
            payload["tools"] = [_tool(tool.name, tool.description, tool.schema) for tool in request.tools]
            payload |= {} if request.may_call_tools else {"tool_choice": {"type": "none"}}
        _add_thinking(payload, request, profile, dropped)
        _add_temperature(payload, request, profile, dropped)
        _add_schema(payload, request, profile)
        return Encoded(payload, tuple(dropped))

    def decode(self, raw: Mapping[str, Any], request: Request) -> Reply:
        blocks = raw.get("content")
        if raw.get("type") == "error" or blocks is None:
            raise stream_error(SPEC.name, request.model, raw)
        text = "".join(block["text"] for block in blocks if block["type"] == "text")
        thinking = "\n\n".join(
            block["thinking"] for block in blocks if block["type"] == "thinking" and block["thinking"]
        )
        calls = tuple(ToolCall(b["id"], b["name"], as_args(b["input"])) for b in blocks if b["type"] == "tool_use")
        finish = _FINISHES.get(raw.get("stop_reason") or "", "stop")
        turn = Assistant(text, calls, native=blocks, provider=SPEC.name)
        model = raw.get("model") or request.model
        return Reply(text, turn, usage_of(raw.get("usage")), finish, model, SPEC.name, thinking)

    def must_stream(self, payload: Payload) -> bool:
        return bool(payload["max_tokens"] > _LONGEST_UNSTREAMED_TOKENS)

    def gather(self) -> _Gatherer:
        return _Gatherer()

    def native_batch(self) -> AnthropicBatch:
        from muse.providers._batch_anthropic import (
            AnthropicBatch,  # it brings asyncio, and only the overnight lane needs it
        )

        return AnthropicBatch()


class _Gatherer:
    """Message events put together into the message they are pieces of."""

    def __init__(self) -> None:
        self._message: dict[str, Any] | None = None
        self._usage: dict[str, Any] = {}
        self._inputs: dict[int, str] = {}
        self._is_over = False

    def feed(self, event: Any) -> str:
        match event.get("type"):
            case "message_start":
                self._message = {**event["message"], "content": []}
                self._usage = dict(event["message"].get("usage") or {})
            case "content_block_start":
                self._blocks().append(dict(event["content_block"]))
            case "content_block_delta":
                return self._add(event["index"], event["delta"])
            case "content_block_stop" if event["index"] in self._inputs:
                self._blocks()[event["index"]]["input"] = json.loads(self._inputs.pop(event["index"]) or "{}")
            case "message_delta":
                self._whole().update(event["delta"])
                self._usage |= {name: count for name, count in (event.get("usage") or {}).items() if count is not None}
            case "message_stop":
                self._is_over = True
            case _:
                pass
        return ""

    def _whole(self) -> dict[str, Any]:
        if self._message is None:
            self._message = {"content": []}
        return self._message

    def _blocks(self) -> list[dict[str, Any]]:
        blocks: list[dict[str, Any]] = self._whole()["content"]
        return blocks

    def _add(self, index: int, delta: Mapping[str, Any]) -> str:
        block = self._blocks()[index]
        match delta.get("type"):
            case "text_delta":
                block["text"] += delta["text"]
                return str(delta["text"])
            case "thinking_delta":
                block["thinking"] += delta["thinking"]
            case "signature_delta":
                block["signature"] = delta["signature"]
            case "input_json_delta":
                self._inputs[index] = self._inputs.get(index, "") + delta["partial_json"]
            case _:
                pass
        return ""

    def usage(self) -> Usage | None:
        return usage_of(self._usage) if self._usage else None

    def raw(self) -> Mapping[str, Any] | None:
        return {**self._whole(), "usage": self._usage} if self._is_over else None


def _wants_bare_json(request: Request, profile: Profile) -> bool:
    """JSON is asked for in words where no schema can be enforced: the API has no JSON mode without one."""
    return request.json_output or (request.json_schema is not None and not profile.schema)


def _add_thinking(payload: Payload, request: Request, profile: Profile, dropped: list[str]) -> None:
    budget = request.thinking_budget
    if budget is None:
        return
    if profile.thinking == "none":
        dropped.extend(["thinking_budget"] if budget else [])
    elif budget == 0 and profile.thinking_off:
        payload["thinking"] = {"type": profile.thinking_off}
    elif profile.thinking == "budget":
        tokens = min(profile.budget(budget), payload["max_tokens"] - 1)
        payload["thinking"] = {"type": "enabled", "budget_tokens": tokens}
    else:
        payload["thinking"] = {"type": "adaptive", "display": "summarized"}
        payload["output_config"] = {"effort": profile.effort(budget)}


def _add_temperature(payload: Payload, request: Request, profile: Profile, dropped: list[str]) -> None:
    """A temperature beside thinking is refused, as it is by the newer families altogether."""
    thinks = payload.get("thinking", {}).get("type") in ("enabled", "adaptive")
    if profile.temperature and not thinks and request.temperature is not None:
        payload["temperature"] = request.temperature
    elif request.temperature not in (None, DEFAULT_TEMPERATURE):
        dropped.append("temperature")


def _add_schema(payload: Payload, request: Request, profile: Profile) -> None:
    """The schema with closed objects, as structured outputs want it; one with open objects goes along in words."""
    if request.json_schema is None:
        return
    closed = (
        close_objects(request.json_schema, require_all=False, without=_REFUSED_KEYWORDS) if profile.schema else None
    )
    if closed is None:
        words = schema_words(request.json_schema)
        payload["system"] = "\n\n".join(text for text in (payload.get("system"), words) if text)
        return
    form = {"type": "json_schema", "schema": closed}
    payload["output_config"] = {**payload.get("output_config", {}), "format": form}


def _message(turn: Turn, profile: Profile, model: str) -> dict[str, Any]:
    """A turn as a message; another provider's assistant turn is replayed as its text and calls."""
    match turn:
        case User(parts):
            refuse_parts(parts, profile, model)
            return {"role": "user", "content": [_part(part) for part in parts]}
        case Assistant(native=native, provider="anthropic") if native:
            return {"role": "assistant", "content": native}
        case Assistant(text, calls):
            return {"role": "assistant", "content": list(_assistant_blocks(text, calls))}
        case Results(results):
            blocks = [
                {
                    "type": "tool_result",
                    "tool_use_id": result.call_id,
                    "content": [_part(part) for part in result.parts],
                    "is_error": result.failed,
                }
                for result in results
            ]
            return {"role": "user", "content": blocks}


def _assistant_blocks(text: str, calls: tuple[ToolCall, ...]) -> Iterator[dict[str, Any]]:
    if text:
        yield {"type": "text", "text": text}
    for call in calls:
        yield {"type": "tool_use", "id": call.call_id, "name": call.name, "input": dict(call.args)}


def _part(part: Part) -> dict[str, Any]:
    match part:
        case Image() | File():
            data = base64.b64encode(part.data).decode("ascii")
            kind = "image" if isinstance(part, Image) else "document"
            return {"type": kind, "source": {"type": "base64", "media_type": part.media_type, "data": data}}
        case str():
            return {"type": "text", "text": part}


def _tool(name: str, description: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": name, "description": description, "input_schema": schema}


generate, agenerate, run_agent = bind(AnthropicProvider())
