"""OpenAI over its Responses API: requests become input items, output items become replies.

Sources: the API reference of `POST /responses`; the deployment checklist (no temperature beside reasoning); the model
pages (which efforts a family accepts). `client.post` is the SDK's way to send a self-made body: it keeps
authentication and error classes, and skips the walk through every union member that typed methods make.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from muse.providers._backend.fitting import ToolRules
from muse.providers._base import Capabilities, Credentials, EncodedRequest, ModelProfile, Payload, ProviderSpec, bind
from muse.providers._http.sse import DONE
from muse.providers._replies.finish_reasons import finish_of
from muse.providers._replies.tool_calls import IdRule, args_text, fit_ids, fresh_ids, parse_args, wire_name
from muse.providers._sdk_base import ONLY_JSON, SdkProvider, data_url, refuse_parts, schema_words, stream_error
from muse.types.json_schema.strict import OPENAI, make_strict, unwrapped, with_object_root
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
from muse.types.usage import Usage, parse_usage

if TYPE_CHECKING:
    from muse.providers._batch.openai import OpenAIBatch

__all__ = ["generate", "agenerate", "run_agent"]

_ALL = ("low", "medium", "high", "xhigh", "max")
# Always passed: without an address the SDK reads its own variable, even if that is empty.
_HOME = "https://api.openai.com/v1"
SPEC = ProviderSpec(
    name="openai",
    label="OpenAI (GPT)",
    env_key="OPENAI_API_KEY",
    base_url_env="OPENAI_BASE_URL",
    endpoint_paths=("/chat/completions", "/completions", "/responses"),
    tiers={1: "gpt-6-astra", 2: "gpt-6.1-sol", 3: "gpt-6-luna"},
    prefixes=("gpt-", "o1", "o3", "o4", "chatgpt-", "codex-"),
    capabilities=Capabilities(
        vision=True, files=True, structured_output=True, function_calling=True, max_context_tokens=1_050_000
    ),
    profiles=(
        ModelProfile("gpt-6.1-*", "effort", _ALL, temperature=False, files=True),
        ModelProfile("gpt-6-astra*", "effort", _ALL, temperature=False, files=True),
        ModelProfile("gpt-5-*", "effort", ("minimal", "low", "medium", "high"), temperature=False, files=True),
        ModelProfile("gpt-5", "effort", ("minimal", "low", "medium", "high"), temperature=False, files=True),
        ModelProfile("o[134]*", "effort", ("low", "medium", "high"), temperature=False, files=True),
        ModelProfile("gpt-3.5*", images=False, schema=False),
        ModelProfile("gpt-4o*", files=True),
        ModelProfile("gpt-4.1*", files=True),
        ModelProfile("gpt-4*", schema=False),
        ModelProfile("chatgpt-4o*", files=True),
        ModelProfile("*", "effort", ("none", *_ALL), temperature=False, files=True),
    ),
    options=frozenset({"top_p"}),
    extra="openai",
    price_id="openai",
    batch_price=0.5,  # the pricing page: batch input and output at half the standard rate
)

# The states of a complete response; `incomplete` comes with a reason of its own.
_GOOD = frozenset({"completed", "succeeded"})
# The reference: `call_id` has 1 to 64 characters.
_ID_RULE = IdRule("[A-Za-z0-9_.:-]{1,64}")


class OpenAIProvider(SdkProvider):
    """The Responses API, used statelessly: nothing is stored, and encrypted reasoning is returned and replayed."""

    spec = SPEC
    sdk = "openai"
    path: ClassVar[str] = "/responses"
    tool_rules: ClassVar[ToolRules | None] = ToolRules()

    def connect(self, sdk: Any, access: Credentials, *, is_async: bool, **wiring: Any) -> Any:
        kind = sdk.AsyncOpenAI if is_async else sdk.OpenAI
        return kind(api_key=access.key, base_url=access.base_url or _HOME, **wiring)

    def encode(self, request: Request) -> EncodedRequest:
        profile = SPEC.profile(request.model)
        dropped: list[str] = []
        turns = fit_ids(request.turns, SPEC.name, _ID_RULE)
        payload: Payload = {
            "model": request.model,
            "input": [item for turn in turns for item in _items(turn, profile, request.model)],
            "max_output_tokens": profile.limit(request.max_output_tokens, request.thinking_budget),
            "store": False,
        }
        if request.system:
            payload["instructions"] = request.system
        if profile.temperature and request.temperature is not None:
            payload["temperature"] = request.temperature
            payload |= {"top_p": request.extras["top_p"]} if "top_p" in request.extras else {}
        else:
            dropped += [] if request.temperature in (None, DEFAULT_TEMPERATURE) else ["temperature"]
            dropped += [name for name in ("top_p",) if name in request.extras]
        if request.tools:
            payload["tools"] = [_tool(tool.name, tool.description, tool.schema) for tool in request.tools]
            payload |= {} if request.may_call_tools else {"tool_choice": "none"}
        _add_reasoning(payload, request, profile, dropped)
        _add_format(payload, request, profile)
        return EncodedRequest(payload, tuple(dropped))

    def decode(self, raw: Mapping[str, Any], request: Request) -> Reply:
        error = raw.get("error")
        if error or raw.get("status") == "failed" or "output" not in raw:
            raise stream_error(SPEC.name, request.model, raw)
        items = _with_ids(raw["output"] or [], request)
        text = "".join(_texts(items, "output_text", "text"))
        refusal = "".join(_texts(items, "refusal", "refusal"))
        calls = tuple(_call(item) for item in items if item.get("type") == "function_call")
        end = _end_of(raw)
        finish = finish_of(end, _GOOD)
        if finish == "stop":
            finish = "blocked" if refusal else "tools" if calls else "stop"
        thinking = "\n\n".join(
            part.get("text") or ""
            for item in items
            if item.get("type") == "reasoning"
            for part in item.get("summary") or ()
        )
        turn = Assistant(text, calls, native=items, provider=SPEC.name)
        usage, model = parse_usage(raw.get("usage")), raw.get("model") or request.model
        said = unwrapped(text, request.json_schema) or refusal
        return Reply(said, turn, usage, finish, model, SPEC.name, thinking, ended_with=end)

    def gather(self) -> _Accumulator:
        return _Accumulator()

    def native_batch(self) -> OpenAIBatch:
        from muse.providers._batch.openai import OpenAIBatch  # imports asyncio, which only batches need

        return OpenAIBatch()


# Events with a piece of a refusal or of arguments, or with a complete part of the answer.
_PARTS = frozenset(
    {
        *("response.refusal.delta", "response.refusal.done", "response.output_text.done", "response.content_part.done"),
        *("response.function_call_arguments.delta", "response.function_call_arguments.done"),
    }
)
# Types of parts that are not part of the answer.
_ASIDE = ("reasoning_text", "summary_text")


class _Accumulator:
    """An accumulator of Responses events.

    The last event carries the whole response; items that it lacks are joined from the other events. A whole response in
    place of events is accepted too.
    """

    def __init__(self) -> None:
        self._whole: Mapping[str, Any] | None = None
        self._items: dict[int, dict[str, Any]] = {}
        self._texts: dict[tuple[int, int], list[str]] = {}
        self._refusals: dict[int, list[str]] = {}
        self._args: dict[int, list[str]] = {}
        self._said: list[str] = []
        self._places: dict[Any, int] = {}
        self._last = -1

    def feed(self, event: Any) -> str:
        if event is DONE:
            return self._done()
        match event.get("type"):
            case "response.output_text.delta":
                return self._add_text(event)
            case kind if kind in _PARTS:
                return self._add_part(event)
            case "response.output_item.added" | "response.output_item.done":
                self._items[self._place(event)] = event["item"]
            case "response.completed" | "response.incomplete" | "response.failed" | "response.cancelled":
                return self._end(event["response"])
            case "error":
                raise stream_error(
                    SPEC.name, "", event if isinstance(event.get("error"), Mapping) else {"error": event}
                )
            case _ if event.get("error"):
                raise stream_error(SPEC.name, "", event)
            case _ if "output" in event:
                return self._end(event)
            case _:
                pass
        return ""

    def _add_text(self, event: Mapping[str, Any]) -> str:
        piece = str(event.get("delta") or "")
        place = (self._place(event), event.get("content_index") or 0)
        self._texts.setdefault(place, []).append(piece)
        self._said.append(piece)
        return piece

    def _add_part(self, event: Mapping[str, Any]) -> str:
        """Take a piece of a refusal or of arguments, or a whole part; return text that no earlier piece brought."""
        place = self._place(event)
        match event["type"]:
            case "response.refusal.delta":
                self._refusals.setdefault(place, []).append(event.get("delta") or "")
            case "response.function_call_arguments.delta":
                self._args.setdefault(place, []).append(event.get("delta") or "")
            case "response.function_call_arguments.done":
                self._args[place] = [args_text(event.get("arguments"))]
            case _:
                return self._add_whole(event, event.get("part") or event, place)
        return ""

    def _add_whole(self, event: Mapping[str, Any], part: Mapping[str, Any], place: int) -> str:
        if part.get("refusal"):
            self._refusals[place] = [str(part["refusal"])]
        text = str(part.get("text") or "") if part.get("type") not in _ASIDE else ""
        is_known = (place, event.get("content_index") or 0) in self._texts or "".join(self._said).endswith(text)
        return "" if is_known else self._add_text({**event, "delta": text})

    def _place(self, event: Mapping[str, Any]) -> int:
        """Return the position of an event's item: its index, else that of its id, else a new one or the last."""
        index, item = event.get("output_index"), event.get("item")
        item_id = event.get("item_id") or (item.get("id") if isinstance(item, Mapping) else None)
        if not isinstance(index, int):
            begins = self._last < 0 or event["type"] == "response.output_item.added"
            index = self._places.get(item_id) if item_id else None
            index = self._last + begins if index is None else index
        if item_id:
            self._places[item_id] = index
        self._last = index
        return index

    def _end(self, response: Mapping[str, Any]) -> str:
        """Take the whole response and return the text in it that no event brought."""
        self._whole = {**response, "output": self._completed(response.get("output") or [])}
        text, said = "".join(_texts(self._whole["output"], "output_text", "text")), "".join(self._said)
        return text[len(said) :] if text.startswith(said) else ""

    def _done(self) -> str:
        """Build the response from what came, if the server ended its stream without the last event."""
        if self._whole is not None or not (self._items or self._texts or self._refusals):
            return ""
        return self._end({"output": [], "status": "completed"})

    def _completed(self, output: list[Any]) -> list[Any]:
        """Return the items of a whole response; if it has no message, or no call, add those of its events."""
        if not output:
            return self._output()
        lacking = {"message", "function_call"} - {item.get("type") for item in output}
        return [*output, *(item for item in self._output() if item.get("type") in lacking)] if lacking else output

    def _output(self) -> list[dict[str, Any]]:
        """Return the items as far as their events have come."""
        places = {*self._items, *self._refusals, *(place for place, _ in self._texts)}
        return [self._item(place) for place in sorted(places)]

    def _item(self, place: int) -> dict[str, Any]:
        """Return the item at a position, with its text or arguments joined from pieces if it has none itself."""
        item = dict(self._items.get(place) or {"type": "message", "role": "assistant"})
        if item.get("type") == "message" and not item.get("content"):
            texts = [pieces for (owner, _), pieces in sorted(self._texts.items()) if owner == place]
            refused = "".join(self._refusals.get(place, ()))
            item["content"] = [{"type": "output_text", "text": "".join(pieces)} for pieces in texts]
            item["content"] += [{"type": "refusal", "refusal": refused}] if refused else []
        if item.get("type") == "function_call" and not item.get("arguments"):
            item["arguments"] = "".join(self._args.get(place, ()))
        return item

    def usage(self) -> Usage | None:
        return parse_usage(self._whole.get("usage")) if self._whole else None

    def raw(self) -> Mapping[str, Any] | None:
        return self._whole


def _end_of(raw: Mapping[str, Any]) -> str:
    """Return the finish reason of a response: its status, or why it is incomplete."""
    status = str(raw.get("status") or "")
    if status != "incomplete":
        return status
    return str((raw.get("incomplete_details") or {}).get("reason") or "max_output_tokens")


def _with_ids(items: list[Any], request: Request) -> list[Any]:
    """Return output items whose calls have arguments as text, and ids that are new in the conversation."""
    calls = [item for item in items if item.get("type") == "function_call"]
    if not calls:
        return items
    told = [str(item.get("call_id") or "") for item in calls]
    ids = iter(fresh_ids(request.turns, told))
    return [
        {**item, "call_id": next(ids), "arguments": args_text(item.get("arguments"))}
        if item.get("type") == "function_call"
        else item
        for item in items
    ]


def _items(turn: Turn, profile: ModelProfile, model: str) -> Iterator[dict[str, Any]]:
    """Yield a turn's input items; another provider's assistant turn is replayed as its text and calls."""
    match turn:
        case User(parts):
            refuse_parts(parts, profile, model)
            yield {"role": "user", "content": [_part(part) for part in parts]}
        case Assistant(native=native, provider="openai") if native:
            yield from (kept for item in native if (kept := _replayed(item)))
        case Assistant(text, calls):
            if text:
                yield {"role": "assistant", "content": [{"type": "output_text", "text": text}]}
            for call in calls:
                args = json.dumps(dict(call.args), ensure_ascii=False)
                yield {"type": "function_call", "call_id": call.call_id, "name": call.name, "arguments": args}
        case ToolResults(results):
            for result in results:
                output = [_part(part) for part in result.parts]
                yield {"type": "function_call_output", "call_id": result.call_id, "output": output}


def _replayed(item: dict[str, Any]) -> dict[str, Any] | None:
    """Return an output item to send back, without empty texts and with a valid name; None if it is empty."""
    if item.get("type") == "function_call":
        name = item.get("name")
        return item if wire_name(name) == name else {**item, "name": wire_name(name)}
    if item.get("type") != "message":
        return item
    content = item.get("content") or []
    said = [part for part in content if part.get("text") != ""]
    if not said:
        return None
    return item if len(said) == len(content) else {**item, "content": said}


def _part(part: Part) -> dict[str, Any]:
    match part:
        case Image():
            return {"type": "input_image", "image_url": data_url(part), "detail": "auto"}
        case File():
            return {"type": "input_file", "filename": part.name, "file_data": data_url(part)}
        case str():
            return {"type": "input_text", "text": part}


def _tool(name: str, description: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "function", "name": name, "description": description, "parameters": schema, "strict": False}


def _add_reasoning(payload: Payload, request: Request, profile: ModelProfile, dropped: list[str]) -> None:
    if profile.thinking != "effort":
        if request.thinking_budget:
            dropped.append("thinking_budget")
        return
    payload["include"] = ["reasoning.encrypted_content"]
    if request.thinking_budget is not None:
        effort = profile.effort(request.thinking_budget)
        payload["reasoning"] = {"effort": effort} | ({} if request.thinking_budget <= 0 else {"summary": "auto"})


def _add_format(payload: Payload, request: Request, profile: ModelProfile) -> None:
    """Add the schema, strict if it can be closed; otherwise ask for plain JSON, which the input must mention."""
    if request.json_schema is not None and profile.schema:
        rooted = with_object_root(request.json_schema)
        closed = make_strict(rooted, OPENAI)
        form = {"type": "json_schema", "name": "reply", "schema": closed or rooted, "strict": closed is not None}
        payload["text"] = {"format": form}
    elif request.json_output or request.json_schema is not None:
        words = ONLY_JSON if request.json_schema is None else schema_words(request.json_schema)
        payload["text"] = {"format": {"type": "json_object"}}
        payload["input"].append({"role": "developer", "content": words})


def _texts(items: list[Mapping[str, Any]], kind: str, key: str) -> Iterator[str]:
    for item in items:
        if item.get("type") == "message":
            yield from (part.get(key) or "" for part in item.get("content") or () if part.get("type") == kind)


def _call(item: Mapping[str, Any]) -> ToolCall:
    return ToolCall(item["call_id"], item["name"], parse_args(item.get("arguments")))


generate, agenerate, run_agent = bind(OpenAIProvider())
