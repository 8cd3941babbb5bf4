"""Anthropic over its Messages API: requests become content blocks, content blocks become replies.

Sources: the API reference of `POST /v1/messages`; the migration guides of Claude 5 and 5.5 (no sampling parameters, no
budgets, which models can stop thinking and how); the page on structured outputs (which schema keywords are refused).
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from muse.providers._backend.fitting import ToolRules
from muse.providers._base import Capabilities, Credentials, EncodedRequest, ModelProfile, Payload, ProviderSpec, bind
from muse.providers._http.sse import DONE
from muse.providers._replies.finish_reasons import finish_of
from muse.providers._replies.tool_calls import IdRule, fit_ids, fresh_ids, index_of, parse_args
from muse.providers._sdk_base import ONLY_JSON, SdkProvider, refuse_parts, schema_words, stream_error
from muse.types.json_schema.strict import ANTHROPIC, make_strict, unwrapped, with_object_root
from muse.types.messages import (
    DEFAULT_TEMPERATURE,
    Assistant,
    File,
    Image,
    Part,
    Reply,
    Request,
    ToolCall,
    ToolResults,
    Turn,
    User,
)
from muse.types.usage import Usage, merge_counts, parse_usage

if TYPE_CHECKING:
    from muse.providers._batch.anthropic import AnthropicBatch

__all__ = ["generate", "agenerate", "run_agent"]

_EFFORTS = ("low", "medium", "high", "xhigh", "max")
_UP_TO_HIGH = ("low", "medium", "high")


def _budget(match: str) -> ModelProfile:
    return ModelProfile(match, "budget", thinking_off="disabled", min_budget=1_024, files=True, output_cap=64_000)


def _adaptive(
    match: str, off: str = "", efforts: tuple[str, ...] = _EFFORTS, *, temperature: bool = False
) -> ModelProfile:
    return ModelProfile(match, "adaptive", efforts, off, temperature=temperature, files=True, output_cap=128_000)


# Always passed: without an address the SDK reads its own variable, even if that is empty.
_HOME = "https://api.anthropic.com"
SPEC = ProviderSpec(
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
        ModelProfile("claude-3*", files=True, schema=False, output_cap=8_192),
        _adaptive("*"),
    ),
    options=frozenset({"stop"}),
    extra="anthropic",
    price_id="anthropic",
    batch_price=0.5,  # the pricing page: batch input and output at half the standard rate
)

# Stop reasons of a complete answer. `pause_turn` is not one: the server's own tools, which muse never offers, were
# not finished.
_GOOD = frozenset({"end_turn", "stop_sequence", "tool_use", "stop"})
# The API refuses other characters, and two calls with the same id.
_ID_RULE = IdRule("[a-zA-Z0-9_-]{1,64}")
# The SDK's own limit (`_calculate_nonstreaming_timeout`): an answer with more tokens may take over ten minutes.
_LONGEST_UNSTREAMED_TOKENS = 21_333


class AnthropicProvider(SdkProvider):
    """The Messages API; thinking blocks are kept with their signatures and replayed unchanged."""

    spec = SPEC
    sdk = "anthropic"
    path: ClassVar[str] = "/v1/messages"
    tool_rules: ClassVar[ToolRules | None] = ToolRules(most=0)
    takes_blanks: ClassVar[bool] = False

    def connect(self, sdk: Any, access: Credentials, *, is_async: bool, **wiring: Any) -> Any:
        kind = sdk.AsyncAnthropic if is_async else sdk.Anthropic
        return kind(api_key=access.key, base_url=access.base_url or _HOME, **wiring)

    def encode(self, request: Request) -> EncodedRequest:
        profile = SPEC.profile(request.model)
        dropped: list[str] = []
        payload: Payload = {
            "model": request.model,
            "messages": list(_messages(request, profile)),
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
        return EncodedRequest(payload, tuple(dropped))

    def decode(self, raw: Mapping[str, Any], request: Request) -> Reply:
        blocks = raw.get("content")
        if raw.get("type") == "error" or blocks is None:
            raise stream_error(SPEC.name, request.model, raw)
        blocks = _with_ids(blocks, request)
        text = "".join(block.get("text") or "" for block in blocks if block["type"] == "text")
        thinking = "\n\n".join(
            block["thinking"] for block in blocks if block["type"] == "thinking" and block.get("thinking")
        )
        calls = tuple(ToolCall(b["id"], b["name"], b["input"]) for b in blocks if b["type"] == "tool_use")
        end = str(raw.get("stop_reason") or "")
        finish = finish_of(end, _GOOD)
        if calls and finish == "stop":
            finish = "tools"
        turn = Assistant(text, calls, native=blocks, provider=SPEC.name)
        usage, model = parse_usage(raw.get("usage")), raw.get("model") or request.model
        said = unwrapped(text, request.json_schema)
        return Reply(said, turn, usage, finish, model, SPEC.name, thinking, ended_with=end)

    def must_stream(self, payload: Payload) -> bool:
        return bool(payload["max_tokens"] > _LONGEST_UNSTREAMED_TOKENS)

    def gather(self) -> _Accumulator:
        return _Accumulator()

    def native_batch(self) -> AnthropicBatch:
        from muse.providers._batch.anthropic import AnthropicBatch

        return AnthropicBatch()


class _Accumulator:
    """An accumulator that joins message events into a message; a whole message is accepted too."""

    def __init__(self) -> None:
        self._message: dict[str, Any] = {}
        self._usage: dict[str, Any] = {}
        self._blocks: list[_Block] = []
        self._is_over = False

    def feed(self, event: Any) -> str:
        if event is DONE:
            self._is_over = self._is_over or bool(self._blocks)
            return ""
        match event.get("type"):
            case "content_block_delta":
                return self._block(event).add(event["delta"])
            case "content_block_start":
                self._blocks.append(_Block(index_of(event), dict(event["content_block"])))
                return self._blocks[-1].text
            case "content_block_stop":
                self._block(event).is_closed = True
            case "message_start":
                self._message = {**event["message"], "content": []}
                self._usage = merge_counts(self._usage, event["message"].get("usage"))
                return "".join(map(self._begin, event["message"].get("content") or ()))
            case "message_delta":
                self._message |= {key: value for key, value in (event.get("delta") or {}).items() if value}
                self._usage = merge_counts(self._usage, event.get("usage"))
            case "message_stop":
                self._is_over = True
            case "message" | None if isinstance(event.get("content"), list):
                self._message, self._usage, self._is_over = dict(event), dict(event.get("usage") or {}), True
                return "".join(map(self._begin, event.get("content") or ()))
            case _ if event.get("error"):
                raise stream_error(SPEC.name, "", event)
            case _:
                pass
        return ""

    def _begin(self, block: Mapping[str, Any]) -> str:
        """Take a whole block and return its text."""
        self._blocks.append(_Block(None, dict(block)))
        return self._blocks[-1].text

    def _block(self, event: Mapping[str, Any]) -> _Block:
        """Return the block of an event: the open one of its number, or the last.

        A block that had no start event is created.
        """
        number = index_of(event)
        if self._blocks and number in (None, self._blocks[-1].number):
            return self._blocks[-1]
        alike = [block for block in self._blocks if block.number == number]
        found = next((block for block in reversed(alike) if not block.is_closed), alike[-1] if alike else None)
        if found is None:
            found = _Block(number, {})
            self._blocks.append(found)
        return found

    def usage(self) -> Usage | None:
        return parse_usage(self._usage) if self._usage else None

    def raw(self) -> Mapping[str, Any] | None:
        """Return the message once its last event or its stop reason has come, else None."""
        if not (self._is_over or self._message.get("stop_reason")):
            return None
        numbered = enumerate(self._blocks)
        ordered = sorted(numbered, key=lambda place: place[0] if place[1].number is None else place[1].number)
        return {**self._message, "content": [block.whole() for _, block in ordered], "usage": self._usage}


class _Block:
    """A content block as far as its pieces have come; `number` is its position in the message."""

    __slots__ = ("_args", "_block", "_pieces", "is_closed", "number")

    def __init__(self, number: int | None, block: dict[str, Any]) -> None:
        self.number = number
        self.is_closed = False
        self._block = block
        self._pieces: dict[str, list[str]] = {}
        self._args: list[str] = []

    @property
    def text(self) -> str:
        """Return the text that the block started with."""
        return str(self._block.get("text") or "") if self._block.get("type") == "text" else ""

    def add(self, delta: Mapping[str, Any]) -> str:
        """Take a piece and return the text it adds."""
        match delta.get("type"):
            case "text_delta":
                return self._grow("text", delta.get("text") or "")
            case "thinking_delta":
                self._grow("thinking", delta.get("thinking") or "")
            case "signature_delta":
                self._block["signature"] = delta["signature"]
            case "input_json_delta":
                self._block.setdefault("type", "tool_use")
                self._args.append(delta.get("partial_json") or "")
            case _:
                pass
        return ""

    def _grow(self, kind: str, piece: str) -> str:
        if kind not in self._pieces:
            self._block.setdefault("type", kind)
            self._pieces[kind] = [str(self._block.get(kind) or "")]
        self._pieces[kind].append(piece)
        return str(piece)

    def whole(self) -> dict[str, Any]:
        """Return the block; truncated arguments are kept as they are, so that they are refused later."""
        block = self._block | {kind: "".join(pieces) for kind, pieces in self._pieces.items()}
        args = "".join(self._args)
        return {**block, "input": parse_args(args)} if args.strip() else block


def _with_ids(blocks: list[Any], request: Request) -> list[Any]:
    """Return content blocks whose calls have arguments, and ids that are new in the conversation."""
    calls = [block for block in blocks if block["type"] == "tool_use"]
    if not calls:
        return blocks
    ids = iter(fresh_ids(request.turns, [str(block.get("id") or "") for block in calls]))
    return [
        {**block, "id": next(ids), "input": parse_args(block.get("input"))} if block["type"] == "tool_use" else block
        for block in blocks
    ]


def _wants_bare_json(request: Request, profile: ModelProfile) -> bool:
    """Return True if JSON must be requested in words: the API has no JSON mode without a schema."""
    return request.json_output or (request.json_schema is not None and not profile.schema)


def _add_thinking(payload: Payload, request: Request, profile: ModelProfile, dropped: list[str]) -> None:
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


def _add_temperature(payload: Payload, request: Request, profile: ModelProfile, dropped: list[str]) -> None:
    """Add the temperature if the model accepts it; thinking excludes it, and the newer families always refuse it."""
    thinks = payload.get("thinking", {}).get("type") in ("enabled", "adaptive")
    if profile.temperature and not thinks and request.temperature is not None:
        payload["temperature"] = request.temperature
    elif request.temperature not in (None, DEFAULT_TEMPERATURE):
        dropped.append("temperature")


def _add_schema(payload: Payload, request: Request, profile: ModelProfile) -> None:
    """Add the schema with closed objects, as structured outputs need it; ask in words for one with open objects."""
    if request.json_schema is None:
        return
    closed = make_strict(with_object_root(request.json_schema), ANTHROPIC) if profile.schema else None
    if closed is None:
        words = schema_words(request.json_schema)
        payload["system"] = "\n\n".join(text for text in (payload.get("system"), words) if text)
        return
    form = {"type": "json_schema", "schema": closed}
    payload["output_config"] = {**payload.get("output_config", {}), "format": form}


def _messages(request: Request, profile: ModelProfile) -> Iterator[dict[str, Any]]:
    """Yield the turns as messages; an empty turn of the model is left out."""
    for turn in fit_ids(request.turns, SPEC.name, _ID_RULE):
        message = _message(turn, profile, request.model)
        if message["content"]:
            yield message


def _message(turn: Turn, profile: ModelProfile, model: str) -> dict[str, Any]:
    """Return a turn as a message; another provider's assistant turn is replayed as its text and calls."""
    match turn:
        case User(parts):
            refuse_parts(parts, profile, model)
            return {"role": "user", "content": [_part(part) for part in parts]}
        case Assistant(native=native, provider="anthropic") if native:
            return {"role": "assistant", "content": [block for block in native if not _is_blank(block)]}
        case Assistant(text, calls):
            return {"role": "assistant", "content": list(_assistant_blocks(text, calls))}
        case ToolResults(results):
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


def _is_blank(block: Mapping[str, Any]) -> bool:
    """Return True if a block is text of only white space: models write such blocks, and the API refuses them."""
    return block.get("type") == "text" and not str(block.get("text") or "").strip()


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
