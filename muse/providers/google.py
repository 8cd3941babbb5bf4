"""Google over the Gemini API's generateContent: requests become contents, candidates become replies.

Sources: the REST reference of `models.generateContent`; the thinking page (budgets up to Gemini 2.5, levels after,
which levels a family accepts); the guide to Gemini 3.5 (a function response carries the id of its call). The payload
is the REST body itself, passed to the SDK as `extra_body`. This skips the SDK's typed walk over every part and keeps
its authentication, addresses and errors.
"""

from __future__ import annotations

import base64
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import aclosing
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlencode

from msgspec import Struct

from muse.policies.deadline import Deadline
from muse.providers._backend.fitting import ToolRules
from muse.providers._backend.provider import without_query
from muse.providers._base import (
    Capabilities,
    Credentials,
    EncodedRequest,
    ModelProfile,
    Payload,
    Provider,
    ProviderSpec,
    bind,
    status_error,
)
from muse.providers._http.sse import DONE, aread_events, read_events
from muse.providers._replies.finish_reasons import finish_of
from muse.providers._replies.tool_calls import OWN_ID, IdRule, fit_ids, fresh_ids, parse_args
from muse.providers._sdk_base import ONLY_JSON, STREAM_STATUS, refuse_parts, schema_words, transport_fault
from muse.types.errors import MuseError
from muse.types.messages import (
    Assistant,
    File,
    Image,
    Part,
    Reply,
    Request,
    ToolCall,
    ToolResult,
    ToolResults,
    Turn,
    User,
)
from muse.types.redaction import RedactedText
from muse.types.usage import Usage, merge_counts, parse_usage

if TYPE_CHECKING:
    from muse.providers._batch.google import GoogleBatch

__all__ = ["generate", "agenerate", "run_agent"]

# The output limit is exclusive: 65,536 itself is refused.
_OUTPUT_CAP = 65_535
_LEVELS = ("minimal", "low", "medium", "high")
_FROM_LOW = ("low", "medium", "high")


def _levels(match: str, levels: tuple[str, ...]) -> ModelProfile:
    return ModelProfile(match, "effort", levels, files=True, output_cap=_OUTPUT_CAP)


# Always passed: without an address the SDK reads its own variable, even if that is empty.
_HOME = "https://generativelanguage.googleapis.com"
SPEC = ProviderSpec(
    name="google",
    label="Google (Gemini)",
    env_key="GOOGLE_API_KEY",
    base_url_env="GOOGLE_GEMINI_BASE_URL",
    endpoint_paths=("/v1beta/models", "/v1beta", "/v1/models", "/v1"),
    tiers={1: "gemini-4-argon", 2: "gemini-3.8-flash", 3: "gemini-3.5-flash-lite"},
    prefixes=("gemini-", "gemma-"),
    capabilities=Capabilities(
        vision=True, files=True, structured_output=True, function_calling=True, max_context_tokens=1_048_576
    ),
    profiles=(
        ModelProfile("gemini-2.5-pro*", "budget", min_budget=128, files=True, output_cap=_OUTPUT_CAP),
        ModelProfile(
            "gemini-2.5-flash-lite*", "budget", thinking_off="0", min_budget=512, files=True, output_cap=_OUTPUT_CAP
        ),
        ModelProfile("gemini-2.5*", "budget", thinking_off="0", files=True, output_cap=_OUTPUT_CAP),
        ModelProfile("gemini-[12].*", files=True, output_cap=8_192),
        ModelProfile("gemma-*", schema=False, output_cap=8_192),
        _levels("gemini-3.[78]*", _FROM_LOW),
        _levels("gemini-3.1-pro*", _FROM_LOW),
        _levels("gemini-3*", _LEVELS),
        _levels("*", _FROM_LOW),
    ),
    options=frozenset({"top_p", "stop", "seed", "cached_content"}),
    extra="google",
    price_id="google",
    batch_price=0.5,  # the pricing page: batch input and output at half the standard rate
)

# The only finish reason of a complete answer (`FinishReason` in the REST reference); `finish_of` knows the others.
_GOOD = frozenset({"stop"})
# The reference sets no limits for ids; this rule accepts the ids of all other providers.
_ID_RULE = IdRule("[A-Za-z0-9_.:-]{1,128}")


class _Line(Struct, frozen=True):
    """An SDK client, its types, and the HTTP client that async calls go through."""

    sdk: Any
    types: Any
    http: Any = None


# The JSON Schema keywords that the API knows beyond types, properties and items.
_KEYWORDS = frozenset({"prefixItems", "minItems", "maxItems", "minimum", "maximum", "additionalProperties"})


class GoogleProvider(Provider):
    """The Gemini API; the SDK's own retries and its automatic function calling are off."""

    spec = SPEC
    sdk = "google.genai"
    tool_rules: ClassVar[ToolRules | None] = ToolRules("[A-Za-z_][A-Za-z0-9_-]{0,63}", 512, _KEYWORDS)

    def client(self, access: Credentials) -> _Line:
        genai, http = import_module(self.sdk), import_module("muse.providers._http.clients")
        options = self._options(genai, access, http)
        return _Line(_connected(genai, access, options), genai.types)

    def aclient(self, access: Credentials) -> _Line:
        genai, http = import_module(self.sdk), import_module("muse.providers._http.clients")
        options = self._options(genai, access, http)
        return _Line(_connected(genai, access, options), genai.types, options.httpx_async_client)

    def _options(self, genai: Any, access: Credentials, http: Any) -> Any:
        """Return the SDK's options: one attempt, the address, muse's HTTP clients and TLS context.

        Both clients are given, because the SDK makes a missing one itself, with connections of its own.
        """
        tls = http.tls_context()
        return genai.types.HttpOptions(
            base_url=without_query(access.base_url)[0] or _HOME,
            httpx_client=http.sync_client(access.max_bytes),
            httpx_async_client=http.async_client(access.max_bytes),
            retry_options=genai.types.HttpRetryOptions(attempts=1),
            client_args={"verify": tls},
            async_client_args={"ssl": tls, "allow_redirects": False},
        )

    async def aclose(self, client: _Line) -> None:
        if client.http is not None:
            await client.http.aclose()

    def send(self, client: _Line, payload: Payload, deadline: Deadline) -> bytes:
        answer = client.sdk.models.generate_content(**_arguments(client, payload, deadline))
        return (answer.sdk_http_response.body or "").encode()

    async def asend(self, client: _Line, payload: Payload, deadline: Deadline) -> bytes:
        answer = await client.sdk.aio.models.generate_content(**_arguments(client, payload, deadline))
        return (answer.sdk_http_response.body or "").encode()

    def stream(self, client: _Line, payload: Payload, deadline: Deadline) -> Iterator[Any]:
        request, options = _streamed(client, payload, deadline)
        response = client.sdk._api_client._request(request, options, stream=True).response_stream
        try:
            yield from read_events(response.iter_bytes(), SPEC.name)
        finally:
            response.close()

    async def astream(self, client: _Line, payload: Payload, deadline: Deadline) -> AsyncIterator[Any]:
        request, options = _streamed(client, payload, deadline)
        sent = await client.sdk.aio._api_client._async_request(request, options, stream=True)
        response = sent.response_stream
        try:
            async with aclosing(aread_events(response.aiter_bytes(), SPEC.name)) as values:
                async for value in values:
                    yield value
        finally:
            await response.aclose()

    def encode(self, request: Request) -> EncodedRequest:
        profile = SPEC.profile(request.model)
        dropped: list[str] = []
        config: Payload = {
            **({} if request.temperature is None else {"temperature": request.temperature}),
            "maxOutputTokens": profile.limit(request.max_output_tokens, request.thinking_budget),
        }
        config |= {wire: request.extras[name] for name, wire in _SAMPLING.items() if name in request.extras}
        _add_thinking(config, request, profile, dropped)
        turns = fit_ids(request.turns, SPEC.name, _ID_RULE)
        body: Payload = {
            "contents": [said for turn in turns if (said := _content(turn, profile, request.model))["parts"]],
            "generationConfig": config,
        }
        if request.system:
            body["systemInstruction"] = {"parts": [{"text": request.system}]}
        if request.tools:
            tools = [_tool(tool.name, tool.description, tool.schema) for tool in request.tools]
            body["tools"] = [{"functionDeclarations": tools}]
            body |= {} if request.may_call_tools else {"toolConfig": {"functionCallingConfig": {"mode": "NONE"}}}
        _add_format(body, request, profile)
        if "cached_content" in request.extras:
            body["cachedContent"] = request.extras["cached_content"]
        return EncodedRequest({"model": request.model, "body": body}, tuple(dropped))

    def decode(self, raw: Mapping[str, Any], request: Request) -> Reply:
        if "error" in raw:
            raise _told_error(raw, request.model)
        candidates = raw.get("candidates") or ()
        if not candidates and not raw.get("promptFeedback"):
            message = "an answer without candidates"
            raise status_error(SPEC.name, request.model, STREAM_STATUS, code="no_candidates", message=message)
        candidate: Mapping[str, Any] = candidates[0] if candidates else {"finishReason": "SAFETY"}
        content = candidate.get("content") or {}
        parts = content.get("parts") or ()
        content, calls = _with_ids(content, request)
        text = "".join(part["text"] or "" for part in parts if "text" in part and not part.get("thought"))
        thinking = "".join(part["text"] or "" for part in parts if "text" in part and part.get("thought"))
        end = str(candidate.get("finishReason") or "")
        finish = finish_of(end, _GOOD)
        if calls and finish == "stop":
            finish = "tools"
        turn = Assistant(text, calls, native=content or None, provider=SPEC.name)
        usage, model = parse_usage(raw.get("usageMetadata")), raw.get("modelVersion") or request.model
        return Reply(text, turn, usage, finish, model, SPEC.name, thinking, ended_with=end)

    def gather(self) -> _Accumulator:
        return _Accumulator()

    def native_batch(self) -> GoogleBatch:
        from muse.providers._batch.google import GoogleBatch  # imports asyncio, which only batches need

        return GoogleBatch()

    def fault(self, exc: Exception, model: str) -> MuseError | None:
        genai = sys.modules.get(self.sdk)
        if genai is not None and isinstance(exc, genai.errors.APIError):
            return _body_error(exc.details, exc.code, model, getattr(exc.response, "headers", None))
        if genai is not None and isinstance(exc, genai.errors.UnknownApiResponseError):
            return transport_fault(exc.__cause__ or exc, SPEC.name, model)
        return transport_fault(exc, SPEC.name, model)


_SAMPLING = {"top_p": "topP", "seed": "seed", "stop": "stopSequences"}


def _connected(genai: Any, access: Credentials, options: Any) -> Any:
    """Return the SDK's client; each of its requests gets the query of the address, which the SDK cannot add itself."""
    sdk = genai.Client(api_key=access.key, http_options=options)
    own = sdk._api_client._http_options
    # The `repr` of the SDK's options shows the headers, which include the key.
    own.headers = {name: RedactedText(text) if text == access.key else text for name, text in own.headers.items()}
    _, query = without_query(access.base_url)
    if query:
        build = sdk._api_client._build_request

        def with_query(*args: Any, **options: Any) -> Any:
            request = build(*args, **options)
            request.url += ("&" if "?" in request.url else "?") + urlencode(query)
            return request

        sdk._api_client._build_request = with_query
    return sdk


def _arguments(client: _Line, payload: Payload, deadline: Deadline) -> dict[str, Any]:
    """Return a call's arguments: the body unchanged, and a placeholder for the contents that the method requires."""
    types = client.types
    options = types.HttpOptions(extra_body=payload["body"], timeout=max(1, int(deadline.left_s() * 1000)))
    off = types.AutomaticFunctionCallingConfig(disable=True)
    config = _quick(types.GenerateContentConfig)(
        http_options=options, automatic_function_calling=off, should_return_http_response=True
    )
    return {"model": payload["model"], "contents": "-", "config": config}


def _streamed(client: _Line, payload: Payload, deadline: Deadline) -> tuple[Any, Any]:
    """Return the SDK's request of a streamed call, and its options.

    The SDK's own method reads events by lines of text. It loses events that begin with a byte order mark, and takes ten
    times as long for each. muse uses only the SDK's addresses, authentication and errors.
    """
    model = payload["model"]
    if any(sign in model for sign in ("..", "?", "&", "#")):
        raise ValueError(f"found {model!r}, expected the name of a model")
    name = model if model.startswith(("models/", "tunedModels/")) else f"models/{model}"
    options = client.types.HttpOptions(timeout=max(1, int(deadline.left_s() * 1000)))
    path = f"{name}:streamGenerateContent?alt=sse"
    return client.sdk._api_client._build_request("post", path, payload["body"], options), options


@lru_cache
def _quick(config: type[Any]) -> type[Any]:
    """Return a subclass of the SDK's `config` whose `__contains__` returns False at once.

    The SDK evaluates `name in config` for each field before it reads the attribute. Pydantic compares the name with
    every pair of name and value, so its answer is always False, and it takes a fifth of the call.
    """
    return type(config.__name__, (config,), {"__contains__": lambda *_: False})


class _Accumulator:
    """An accumulator that joins chunks into one answer."""

    def __init__(self) -> None:
        self._head: dict[str, Any] = {}
        self._usage: dict[str, Any] = {}
        self._parts: list[dict[str, Any]] = []
        self._finish: str | None = None
        self._is_done = False

    def feed(self, event: Any) -> str:
        if event is DONE:
            self._is_done = True
            return ""
        if "error" in event:
            raise _told_error(event, "")
        self._usage = merge_counts(self._usage, event.get("usageMetadata"))
        self._head |= {key: event[key] for key in ("modelVersion", "promptFeedback") if event.get(key)}
        candidate: Mapping[str, Any] = next(iter(event.get("candidates") or ()), {})
        self._finish = candidate.get("finishReason") or self._finish
        parts = (candidate.get("content") or {}).get("parts") or ()
        return "".join(self._add(part) for part in parts)

    def _add(self, part: Mapping[str, Any]) -> str:
        """Take a part and return its visible text.

        A text part is joined to the previous one if both are of one kind and the previous one has no signature.
        """
        last = self._parts[-1] if self._parts else {}
        alike = "text" in part and "text" in last and bool(part.get("thought")) == bool(last.get("thought"))
        if alike and "thoughtSignature" not in last:
            last["text"] = (last["text"] or "") + (part["text"] or "")
            last |= {key: value for key, value in part.items() if key != "text"}
        else:
            self._parts.append(dict(part))
        return str(part.get("text") or "") if not part.get("thought") else ""

    def usage(self) -> Usage | None:
        return parse_usage(self._usage) if self._usage else None

    def raw(self) -> Mapping[str, Any] | None:
        """Return the answer if it is complete, else None.

        It is complete at its finish reason, when the prompt was blocked, or at `DONE` if it has any parts.
        """
        feedback = self._head.get("promptFeedback")
        whole = {**self._head, "usageMetadata": self._usage}
        if feedback and self._finish is None and not self._parts:
            return whole
        finish = self._finish or ("SAFETY" if feedback and feedback.get("blockReason") else None)
        if finish is None and not (self._is_done and self._parts):
            return None
        content = {"role": "model", "parts": self._parts}
        return {**whole, "candidates": [{"content": content, "finishReason": finish}]}


def _add_format(body: Payload, request: Request, profile: ModelProfile) -> None:
    """Request JSON by the API's own option, with the schema unchanged.

    A family that has no such option (Gemma) is asked in words.
    """
    if request.json_schema is None and not request.json_output:
        return
    if not profile.schema:
        words = ONLY_JSON if request.json_schema is None else schema_words(request.json_schema)
        body["contents"].append({"role": "user", "parts": [{"text": words}]})
        return
    body["generationConfig"]["responseMimeType"] = "application/json"
    if request.json_schema is not None:
        body["generationConfig"]["responseJsonSchema"] = request.json_schema


def _add_thinking(config: Payload, request: Request, profile: ModelProfile, dropped: list[str]) -> None:
    budget = request.thinking_budget
    if budget is None:
        return
    if profile.thinking == "none":
        dropped.extend(["thinking_budget"] if budget else [])
    elif profile.thinking == "budget":
        tokens = profile.budget(budget)
        config["thinkingConfig"] = {"thinkingBudget": tokens, "includeThoughts": tokens != 0}
    else:
        config["thinkingConfig"] = {"thinkingLevel": profile.effort(budget).upper(), "includeThoughts": budget != 0}


def _content(turn: Turn, profile: ModelProfile, model: str) -> dict[str, Any]:
    """Return a turn as content; another provider's assistant turn is replayed as its text and calls."""
    match turn:
        case User(parts):
            refuse_parts(parts, profile, model)
            return {"role": "user", "parts": [_part(part) for part in parts]}
        case Assistant(native=native, provider="google") if native:
            return {"role": "model", **native, "parts": [part for part in native.get("parts") or () if _is_said(part)]}
        case Assistant(text, calls):
            return {"role": "model", "parts": list(_assistant_parts(text, calls))}
        case ToolResults(results):
            return {"role": "user", "parts": [part for result in results for part in _result_parts(result)]}


def _is_said(part: Mapping[str, Any]) -> bool:
    """Return True if a part is not empty: an empty text counts only if it carries the signature of a thought."""
    return bool(set(part) - {"text", "thought"}) or bool(part.get("text"))


def _assistant_parts(text: str, calls: tuple[ToolCall, ...]) -> Iterator[dict[str, Any]]:
    if text:
        yield {"text": text}
    for call in calls:
        yield {"functionCall": {"name": call.name, "args": dict(call.args)} | _id_of(call.call_id)}


def _result_parts(result: ToolResult) -> Iterator[dict[str, Any]]:
    """Yield a tool result as a function response; images follow separately, since a response holds only JSON."""
    text = "\n".join(part for part in result.parts if isinstance(part, str))
    response = {"error": text} if result.failed else {"result": text}
    yield {"functionResponse": {"name": result.name, "response": response} | _id_of(result.call_id)}
    yield from (_part(part) for part in result.parts if not isinstance(part, str))


def _id_of(call_id: str) -> dict[str, str]:
    """Return the id entry of a call if the model gave the id; an empty dict for an id that muse made."""
    return {} if call_id.startswith(OWN_ID) else {"id": call_id}


def _part(part: Part) -> dict[str, Any]:
    match part:
        case Image() | File():
            data = base64.b64encode(part.data).decode("ascii")
            return {"inlineData": {"mimeType": part.media_type, "data": data}}
        case str():
            return {"text": part}


def _with_ids(content: Mapping[str, Any], request: Request) -> tuple[Mapping[str, Any], tuple[ToolCall, ...]]:
    """Return the content, and its calls with ids that are new in the conversation.

    A call without an id stays without one in the content: the model recognises it by name and position.
    """
    parts = content.get("parts") or ()
    told = [str(part["functionCall"].get("id") or "") for part in parts if "functionCall" in part]
    if not told:
        return content, ()
    ids = fresh_ids(request.turns, told)
    calls: list[ToolCall] = []
    kept: list[Any] = []
    for part in parts:
        if "functionCall" in part:
            call = part["functionCall"]
            call_id = ids[len(calls)]
            calls.append(ToolCall(call_id, call["name"], parse_args(call.get("args"))))
            bare = {key: value for key, value in call.items() if key != "id"}
            if not isinstance(call.get("args", {}), dict):
                bare["args"] = dict(calls[-1].args)
            kept.append({**part, "functionCall": bare | _id_of(call_id)})
        else:
            kept.append(part)
    return {**content, "parts": kept}, tuple(calls)


def _tool(name: str, description: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": name, "description": description or name, "parametersJsonSchema": schema}


def _told_error(raw: Mapping[str, Any], model: str) -> MuseError:
    """Return the error for an error body that came with a good status, as an answer or in a stream."""
    told = raw["error"].get("code") if isinstance(raw["error"], Mapping) else None
    return _body_error(raw, told if isinstance(told, int) else STREAM_STATUS, model)


def _body_error(body: Any, status: int, model: str, headers: Mapping[str, str] | None = None) -> MuseError:
    """Return the error for `{"error": {code, message, status, details}}`.

    The quota and the retry time are in its details.
    """
    told = body.get("error", body) if isinstance(body, Mapping) else body
    error = told if isinstance(told, Mapping) else {"message": str(told)}
    details = [detail for detail in error.get("details") or () if isinstance(detail, Mapping)]
    reason = next((detail["reason"] for detail in details if detail.get("reason")), None)
    quota_ids = [
        str(violation.get("quotaId", "")) for detail in details for violation in detail.get("violations") or ()
    ]
    delay = next((str(detail["retryDelay"]) for detail in details if detail.get("retryDelay")), None)
    return status_error(
        SPEC.name,
        model,
        status,
        code=reason or error.get("status") or error.get("code"),
        message=error.get("message"),
        headers={"retry-after": delay} if delay else headers,
        is_quota=any("PerDay" in quota_id for quota_id in quota_ids),
    )


generate, agenerate, run_agent = bind(GoogleProvider())
