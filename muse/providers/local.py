"""The embedded model, which needs no key: requests in llama.cpp's form; the engine itself is in `_local`.

A model whose chat template supports tools calls them itself. For other models `_local.tool_planner` does, in small
reliable steps. The bundled model is a demonstration and an offline substitute, not an assistant
(docs/providers/local.md has the measured rates). It replaces another provider only if journal.json says so.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from muse.journal import config_loader, secrets
from muse.policies.deadline import Deadline
from muse.providers._base import (
    Capabilities,
    Credentials,
    EncodedRequest,
    ModelProfile,
    Payload,
    Provider,
    ProviderSpec,
    bind,
)
from muse.providers._chat import ChatAccumulator, add_tools_and_format, chat_messages, decode_completion
from muse.providers._local.errors import EngineDied, EngineMissing, EngineRefused, WeightsMissing
from muse.providers._local.tool_planner.task import Task, task_of, uses_tools
from muse.providers._local.weights import SMOLLM2, find_weights
from muse.routing.router import PROVIDER_ENV
from muse.types.errors import MuseError, ProviderDown, RequestError, UnavailableError
from muse.types.messages import Assistant, Reply, Request, User

if TYPE_CHECKING:
    from muse.providers._local.engine import Engine
    from muse.providers._local.tool_planner.planner import PlannerSession

__all__ = ["generate", "agenerate", "run_agent"]

MODEL_ENV = "MUSE_LOCAL_MODEL"
_MODEL = SMOLLM2.name.lower()
_START_S = 120.0
_SAMPLING = ("top_p", "stop", "seed", "grammar")

SPEC = ProviderSpec(
    name="local",
    label="Local (embedded model)",
    env_key="",
    tiers={1: _MODEL, 2: _MODEL, 3: _MODEL},
    prefixes=("smollm2",),
    capabilities=Capabilities(structured_output=True, max_context_tokens=4_096),
    profiles=(ModelProfile("*", images=False, files=False),),
    options=frozenset({*_SAMPLING, "complete"}),
    key_required=False,
    extra="local",
    free=True,
    is_local=True,
)


class LocalAccess(Credentials, frozen=True):
    """The model file, and how many tokens of prompt and answer together it holds."""

    context_tokens: int = 4_096


class LocalProvider(Provider):
    """llama.cpp in a child process of this one; answers at temperature 0 repeat exactly."""

    spec = SPEC
    sdk = "xllamacpp"

    def access(self, api_key: str | None = None) -> LocalAccess:
        """Return the model file to use: `MUSE_LOCAL_MODEL`, else `providers.local.model_path`, else the bundled one.

        Raises:
            UnavailableError: There is no model file; the text says how to get one.
        """
        secrets.refuse_withheld(PROVIDER_ENV, MODEL_ENV)
        said = config_loader.load().config.local
        named = secrets.look_up(MODEL_ENV) or said.model_path
        try:
            weights = find_weights(named)
        except WeightsMissing as exc:
            raise _setup_error(exc) from exc
        return LocalAccess(base_url=str(weights.path), context_tokens=said.context_tokens)

    def client(self, access: Credentials) -> Engine:
        from muse.providers._local.engine import Engine  # takes 4 ms, which only calls to the embedded model need

        tokens = access.context_tokens if isinstance(access, LocalAccess) else SPEC.capabilities.max_context_tokens
        return Engine.shared(Path(access.base_url or ""), n_ctx=tokens)

    def aclient(self, access: Credentials) -> Engine:
        return self.client(access)

    async def aclose(self, client: Engine) -> None:
        """Do nothing: the whole process shares the engine."""

    def warm(self, client: Engine) -> None:
        """Start the engine, since loading the weights may take longer than the time limit of a call."""
        client.ready(timeout_s=_START_S)

    def encode(self, request: Request) -> EncodedRequest:
        profile = SPEC.profile(request.model)
        dropped = ("thinking_budget",) if request.thinking_budget else ()
        body: Payload = {"max_tokens": request.max_output_tokens, "temperature": request.temperature}
        body |= {name: request.extras[name] for name in _SAMPLING if name in request.extras}
        body["messages"] = chat_messages(request, profile, SPEC.name)
        add_tools_and_format(body, request)
        if uses_tools(request):
            task = task_of(request, body.get("response_format"))
            return EncodedRequest({"op": "chat", "body": body, "task": task}, dropped)
        if not request.extras.get("complete"):
            return EncodedRequest({"op": "chat", "body": body}, dropped)
        del body["messages"]
        return EncodedRequest({"op": "complete", "body": body | {"prompt": _plain_text(request)}}, dropped)

    def decode(self, raw: Mapping[str, Any], request: Request) -> Reply:
        served = str(raw.get("model") or request.model).lower()
        return decode_completion(_as_chat(raw) | {"model": served}, request, SPEC.name)

    def send(self, client: Engine, payload: Payload, deadline: Deadline) -> Mapping[str, Any]:
        if not self._is_planned(client, payload, deadline):
            return client.request(payload["op"], payload["body"], timeout_s=deadline.left_s())
        walk = _walk(payload["task"])
        while walk.asked is not None:
            op, body = walk.asked
            walk.hear(client.request(op, body, timeout_s=deadline.left_s()))
        return walk.completion

    async def asend(self, client: Engine, payload: Payload, deadline: Deadline) -> Mapping[str, Any]:
        if not await self._ais_planned(client, payload, deadline):
            return await client.arequest(payload["op"], payload["body"], timeout_s=deadline.left_s())
        walk = _walk(payload["task"])
        while walk.asked is not None:
            op, body = walk.asked
            walk.hear(await client.arequest(op, body, timeout_s=deadline.left_s()))
        return walk.completion

    def stream(self, client: Engine, payload: Payload, deadline: Deadline) -> Iterator[Any]:
        if self._is_planned(client, payload, deadline):
            yield _as_chunk(self.send(client, payload, deadline))
            return
        for chunk in client.stream(payload["op"], payload["body"], timeout_s=deadline.left_s()):
            yield _as_chat(chunk)

    async def astream(self, client: Engine, payload: Payload, deadline: Deadline) -> AsyncIterator[Any]:
        if await self._ais_planned(client, payload, deadline):
            yield _as_chunk(await self.asend(client, payload, deadline))
            return
        async for chunk in client.astream(payload["op"], payload["body"], timeout_s=deadline.left_s()):
            yield _as_chat(chunk)

    def _is_planned(self, client: Engine, payload: Payload, deadline: Deadline) -> bool:
        """Return True if the request uses tools and the model's chat template does not support them."""
        return "task" in payload and not client.ready(timeout_s=deadline.left_s())["supports_tools"]

    async def _ais_planned(self, client: Engine, payload: Payload, deadline: Deadline) -> bool:
        """Do the same as `_is_planned`, asynchronously."""
        return "task" in payload and not (await client.aready(timeout_s=deadline.left_s()))["supports_tools"]

    def gather(self) -> ChatAccumulator:
        return ChatAccumulator(SPEC.name)

    def fault(self, exc: Exception, model: str) -> MuseError | None:
        match exc:
            case EngineMissing() | WeightsMissing():
                return _setup_error(exc)
            case EngineRefused(status=status, code=code, message=message):
                return RequestError(message, provider=SPEC.name, model=model, status=status, code=code)
            case EngineDied():
                return ProviderDown(str(exc), provider=SPEC.name, model=model, code="engine_died", retryable=True)
            case _:
                return None


def _walk(task: Task) -> PlannerSession:
    """Return a plan for a task, with today's date."""
    from muse.providers._local.tool_planner.planner import PlannerSession, plan

    return PlannerSession(plan(task, date.today()))


def _setup_error(exc: EngineMissing | WeightsMissing) -> UnavailableError:
    error = UnavailableError("provider 'local'", "no engine or model file", "both")
    error.args = (str(exc),)
    return error


def _plain_text(request: Request) -> str:
    """Return the system prompt and all texts, in order, as one text to continue."""
    pieces: list[str] = [request.system] if request.system else []
    for turn in request.turns:
        match turn:
            case User(parts):
                pieces += [part for part in parts if isinstance(part, str)]
            case Assistant(text):
                pieces.append(text)
            case _:
                pass
    return "\n\n".join(pieces)


def _as_chat(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return a plain completion, whole or a chunk of it, in the shape of a chat completion."""
    choices = [
        {**choice, "message": {"content": choice["text"]}, "delta": {"content": choice["text"]}}
        if "text" in choice
        else choice
        for choice in raw.get("choices") or ()
    ]
    return {**raw, "choices": choices}


def _as_chunk(completion: Mapping[str, Any]) -> dict[str, Any]:
    """Return a whole completion as the only chunk of a stream."""
    choices = [{**choice, "delta": choice["message"]} for choice in completion["choices"]]
    return {**completion, "object": "chat.completion.chunk", "choices": choices}


generate, agenerate, run_agent = bind(LocalProvider())
