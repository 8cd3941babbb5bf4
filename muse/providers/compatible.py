"""OpenAI-shaped endpoints (Chat Completions): one class for all of them, so that a gateway is a row of data.

Sources: the API reference of `POST /chat/completions`; OpenRouter's and DeepSeek's pages for `reasoning` in a message; Azure's
page on its v1 API, which takes the same paths below `https://<resource>.openai.azure.com/openai/v1`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any, ClassVar

from muse.config import Gateway
from muse.errors import ConfigError
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
from muse.providers._sdk import SdkProvider, data_url, parse_args, refuse_parts, stream_error
from muse.schema import close_objects
from muse.usage import Usage, usage_of

_OPTIONS = frozenset({"top_p", "stop", "seed"})
_SEES = Capabilities(vision=True, structured_output=True, function_calling=True)
_TEXT_ONLY = Capabilities(structured_output=True, function_calling=True)
_EFFORTS = ("none", "minimal", "low", "medium", "high")

_ROWS = (
    Spec(
        "openrouter",
        "OpenRouter",
        "OPENROUTER_API_KEY",
        tiers={1: "anthropic/claude-opus-5.5", 2: "google/gemini-3.8-flash", 3: "openai/gpt-6-luna"},
        capabilities=Capabilities(vision=True, files=True, structured_output=True, function_calling=True),
        profiles=(Profile("*", "effort", _EFFORTS, files=True),),
        base_url="https://openrouter.ai/api/v1",
        price_id="openrouter",
    ),
    Spec(
        "lobechat",
        "LobeChat",
        "LOBECHAT_API_KEY",
        {},
        base_url="http://localhost:3210/api",
        key_required=False,
        capabilities=_SEES,
    ),
    Spec(
        "mindbridge",
        "MindBridge",
        "MINDBRIDGE_API_KEY",
        {},
        base_url="https://api.mindbridge.ai/v1",
        key_required=False,
        capabilities=_SEES,
    ),
    Spec(
        "ollama",
        "Ollama (on this machine)",
        "OLLAMA_API_KEY",
        {},
        base_url="http://localhost:11434/v1",
        key_required=False,
        free=True,
        capabilities=_SEES,
    ),
    Spec(
        "digitalocean",
        "DigitalOcean Inference",
        "DIGITALOCEAN_API_KEY",
        {},
        base_url="https://inference.do-ai.run/v1",
        profiles=(Profile("*", images=False),),
        capabilities=_TEXT_ONLY,
    ),
    Spec(
        "azure",
        "Azure OpenAI",
        "AZURE_API_KEY",
        {},
        profiles=(
            Profile("gpt-4*", output_limit="max_completion_tokens"),
            Profile("*", "effort", _EFFORTS, temperature=False, output_limit="max_completion_tokens"),
        ),
        price_id="azure",
        capabilities=_SEES,
    ),
)


def _row(spec: Spec) -> Spec:
    """A row with what follows from its name and from being of this kind."""
    return spec.having(base_url_env=f"{spec.name.upper()}_BASE_URL", options=_OPTIONS, extra="openai")


ROWS: Mapping[str, Spec] = {spec.name: _row(spec) for spec in _ROWS}
_FINISHES: Mapping[str, Finish] = {"length": "length", "content_filter": "blocked", "tool_calls": "tools"}


def spec_of(gateway: Gateway) -> Spec:
    """The spec of a user-defined endpoint (`providers.compatible.<name>` in journal.json)."""
    return _row(
        Spec(
            gateway.name,
            gateway.label or gateway.name,
            gateway.env_key,
            tiers=gateway.models,
            base_url=gateway.base_url,
            key_required=bool(gateway.env_key),
            profiles=(Profile("*", images=gateway.images),),
            capabilities=_SEES if gateway.images else _TEXT_ONLY,
        )
    )


_modules: dict[str, ModuleType] = {}


def module_of(spec: Spec) -> ModuleType:
    """A module with the seed's three functions for one row; made once per row."""
    known = _modules.get(spec.name)
    if known is None or known.SPEC is not spec:
        known = _modules[spec.name] = ModuleType(
            f"muse.providers.{spec.name}", f"{spec.label}, by way of muse.providers.compatible."
        )
        known.SPEC = spec  # type: ignore[attr-defined]
        known.__all__ = ["generate", "agenerate", "run_agent"]  # type: ignore[attr-defined]
        known.generate, known.agenerate, known.run_agent = bind(CompatibleProvider(spec))  # type: ignore[attr-defined]
    return known


class CompatibleProvider(SdkProvider):
    """Chat Completions at the address of one spec."""

    sdk = "openai"
    path: ClassVar[str] = "/chat/completions"

    def __init__(self, spec: Spec) -> None:
        self.spec = spec

    def access(self, api_key: str | None = None) -> Access:
        """As every provider's; here an address is a must.

        Raises:
            ConfigError: neither the row nor the environment names an address.
        """
        access = super().access(api_key)
        if access.base_url is None:
            raise ConfigError(
                self.spec.base_url_env, "nothing", "the endpoint's address, such as https://host/openai/v1"
            )
        return access

    def connect(self, sdk: Any, access: Access, http_client: Any, *, is_async: bool) -> Any:
        kind = sdk.AsyncOpenAI if is_async else sdk.OpenAI
        return kind(api_key=access.key or "none", base_url=access.base_url, max_retries=0, http_client=http_client)

    def encode(self, request: Request) -> Encoded:
        profile = self.spec.profile(request.model)
        dropped: list[str] = []
        messages = [{"role": "system", "content": request.system}] if request.system else []
        messages += [message for turn in request.turns for message in _messages(turn, profile, request.model)]
        payload: Payload = {
            "model": request.model,
            "messages": messages,
            profile.output_limit: request.max_output_tokens + max(request.thinking_budget or 0, 0),
        }
        if profile.temperature:
            payload["temperature"] = request.temperature
        elif request.temperature != DEFAULT_TEMPERATURE:
            dropped.append("temperature")
        if profile.thinking == "effort" and request.thinking_budget is not None:
            payload["reasoning_effort"] = profile.effort(request.thinking_budget)
        elif request.thinking_budget:
            dropped.append("thinking_budget")
        payload |= {name: value for name, value in request.extras.items() if name in _OPTIONS}
        if request.tools:
            payload["tools"] = [_tool(tool.name, tool.description, tool.schema) for tool in request.tools]
        _add_format(payload, request)
        return Encoded(payload, tuple(dropped))

    def decode(self, raw: Mapping[str, Any], request: Request) -> Reply:
        name = self.spec.name
        choices = raw.get("choices")
        if raw.get("error") or not choices:
            raise stream_error(name, request.model, raw)
        choice = choices[0]
        message = choice.get("message") or {}
        text, refusal = _said(message.get("content")), message.get("refusal") or ""
        calls = tuple(_call(call) for call in message.get("tool_calls") or ())
        finish = _FINISHES.get(choice.get("finish_reason") or "", "stop")
        if calls and finish == "stop":
            finish = "tools"
        if refusal:
            finish = "blocked"
        thinking = message.get("reasoning") or message.get("reasoning_content") or ""
        usage = usage_of(raw["usage"]) if raw.get("usage") else Usage(requests=1)
        turn = Assistant(text, calls, native=_replayable(message), provider=name)
        return Reply(text or refusal, turn, usage, finish, raw.get("model") or request.model, name, thinking)

    def streamed(self, payload: Payload) -> Payload:
        return payload | {"stream": True, "stream_options": {"include_usage": True}}

    def gather(self) -> _Gatherer:
        return _Gatherer(self.spec.name)


class _Gatherer:
    """Chunks put together into the completion they are pieces of."""

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._head: dict[str, Any] = {}
        self._message: dict[str, Any] = {"role": "assistant", "content": ""}
        self._calls: dict[int, dict[str, Any]] = {}
        self._finish: str | None = None
        self._usage: Mapping[str, Any] | None = None

    def feed(self, event: Any) -> str:
        if event.get("error"):
            raise stream_error(self._provider, "", event)
        self._head |= {key: event[key] for key in ("id", "model", "created") if event.get(key)}
        self._usage = event.get("usage") or self._usage
        choices = event.get("choices") or ()
        return self._add(choices[0]) if choices else ""

    def _add(self, choice: Mapping[str, Any]) -> str:
        self._finish = choice.get("finish_reason") or self._finish
        delta = choice.get("delta") or {}
        for key in ("reasoning", "reasoning_content", "refusal"):
            if delta.get(key):
                self._message[key] = self._message.get(key, "") + delta[key]
        for piece in delta.get("tool_calls") or ():
            self._add_call(piece)
        text = _said(delta.get("content"))
        self._message["content"] += text
        return text

    def _add_call(self, piece: Mapping[str, Any]) -> None:
        empty = {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
        call = self._calls.setdefault(piece.get("index", len(self._calls)), empty)
        call["id"] = piece.get("id") or call["id"]
        function = piece.get("function") or {}
        call["function"]["name"] += function.get("name") or ""
        call["function"]["arguments"] += function.get("arguments") or ""

    def usage(self) -> Usage | None:
        return usage_of(self._usage) if self._usage else None

    def raw(self) -> Mapping[str, Any] | None:
        if self._finish is None:
            return None
        message = self._message
        if self._calls:
            message["tool_calls"] = [self._calls[index] for index in sorted(self._calls)]
        return {**self._head, "choices": [{"message": message, "finish_reason": self._finish}], "usage": self._usage}


def _said(content: object) -> str:
    """A message's text: a string, or the text parts of a list."""
    if isinstance(content, list):
        return "".join(part.get("text") or "" for part in content if isinstance(part, Mapping))
    return str(content or "")


def _replayable(message: Mapping[str, Any]) -> dict[str, Any]:
    """An assistant message as it may be sent back: gateways refuse `null` refusals and unknown annotations."""
    kept = ("role", "content", "tool_calls", "reasoning_details")
    return {"role": "assistant"} | {key: message[key] for key in kept if message.get(key)}


def _messages(turn: Turn, profile: Profile, model: str) -> Iterator[dict[str, Any]]:
    match turn:
        case User(parts):
            refuse_parts(parts, profile, model)
            only = parts[0] if len(parts) == 1 and isinstance(parts[0], str) else None
            yield {"role": "user", "content": only or [_part(part) for part in parts]}
        case Assistant(text, calls):
            message: dict[str, Any] = {"role": "assistant", "content": text or None}
            if calls:
                message["tool_calls"] = [_call_again(call) for call in calls]
            yield message
        case Results(results):
            for result in results:
                text = "\n".join(part if isinstance(part, str) else f"[{part.media_type}]" for part in result.parts)
                yield {"role": "tool", "tool_call_id": result.call_id, "content": text}


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
    function = call.get("function") or {}
    return ToolCall(str(call.get("id") or ""), str(function.get("name") or ""), parse_args(function.get("arguments")))


def _call_again(call: ToolCall) -> dict[str, Any]:
    arguments = json.dumps(dict(call.args), ensure_ascii=False)
    return {"id": call.call_id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _add_format(payload: Payload, request: Request) -> None:
    if request.json_schema is not None:
        closed = close_objects(request.json_schema, require_all=True)
        form = {"name": "reply", "schema": closed or request.json_schema, "strict": closed is not None}
        payload["response_format"] = {"type": "json_schema", "json_schema": form}
    elif request.json_output:
        payload["response_format"] = {"type": "json_object"}
        payload["messages"].append({"role": "system", "content": "Answer with one JSON object."})
