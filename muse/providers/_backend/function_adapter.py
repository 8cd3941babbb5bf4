"""An adapter from a provider module's `generate`, `agenerate` and `run_agent` to a `Backend`.

Entry point: `FunctionBackend`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from muse.policies.deadline import Deadline
from muse.policies.resend_guard import ResendGuard
from muse.providers._backend.attempt import CallMetadata
from muse.streaming.streams import AsyncReplyStream, ReplyStream
from muse.types.call_ids import UNDER_WAY, Attempted, new_call_id
from muse.types.errors import EmptyReply, ProviderError
from muse.types.messages import Assistant, File, Image, Part, Reply, Request, User
from muse.types.provider_spec import ProviderSpec
from muse.types.surrogates import join_surrogates
from muse.types.usage import Usage, estimate_usage


class FunctionBackend:
    """A backend that wraps the text of a module's `generate` and `agenerate` in replies.

    Such a module logs its tokens itself, so the usage in the reply is an estimate. A stream has one piece.
    """

    def __init__(self, module: ModuleType, name: str) -> None:
        self._module = module
        spec = getattr(module, "SPEC", None)
        self.spec = (
            spec
            if isinstance(spec, ProviderSpec)
            else ProviderSpec(name, name, f"{name.upper()}_API_KEY", {}, (f"{name.lower()}-",), key_required=False)
        )

    def load(self, api_key: str | None = None) -> None:
        """Do nothing: such a module imports what it needs itself."""

    async def aload(self, api_key: str | None = None) -> None:
        """Do nothing, like `load`."""

    def reply(self, request: Request, origin: CallMetadata, api_key: str | None = None) -> Reply:
        """Call the module's `generate` and return its text as a reply."""
        with _under_way(origin, self.spec.name, request.model) as attempt:
            text = self._module.generate(**_arguments(request, origin, api_key))
        return self._reply(request, text, origin, attempt)

    async def areply(self, request: Request, origin: CallMetadata, api_key: str | None = None) -> Reply:
        """Call the module's `agenerate` and return its text as a reply."""
        with _under_way(origin, self.spec.name, request.model) as attempt:
            text = await self._module.agenerate(**_arguments(request, origin, api_key))
        return self._reply(request, text, origin, attempt)

    def stream(self, request: Request, origin: CallMetadata, api_key: str | None = None) -> ReplyStream:
        """Return the whole reply as a stream of one piece."""

        def events() -> Iterator[Reply]:
            yield self.reply(request, origin, api_key)

        result_writer = _SingleChunkStream()
        return ReplyStream(events(), result_writer, result_writer, Deadline.after(request.timeout_s))

    async def astream(self, request: Request, origin: CallMetadata, api_key: str | None = None) -> AsyncReplyStream:
        """Do the same as `stream`, asynchronously."""

        async def events() -> AsyncIterator[Reply]:
            yield await self.areply(request, origin, api_key)

        result_writer = _SingleChunkStream()
        return AsyncReplyStream(events(), result_writer, result_writer, Deadline.after(request.timeout_s))

    def _reply(self, request: Request, text: object, origin: CallMetadata, attempt: Attempted) -> Reply:
        if not isinstance(text, str):
            said = f"its function gave {type(text).__name__}, expected text"
            raise ProviderError(said, provider=self.spec.name, model=request.model)
        text = join_surrogates(text)
        if not text.strip():
            said = f"{self.spec.name} {request.model}: the model finished without any text"
            raise EmptyReply(said, text=text, provider=self.spec.name, model=request.model)
        usage = estimate_usage(request.text_chars, len(text))
        name, turn = self.spec.name, Assistant(text, provider=self.spec.name)
        return Reply(text, turn, usage, "stop", request.model, name, route=origin.route, call_id=attempt.call_id)


@contextmanager
def _under_way(origin: CallMetadata, provider: str, model: str) -> Iterator[Attempted]:
    """Attach the current attempt to the usage-log entries that the module writes meanwhile.

    Raises:
        ProviderError: The module raised `SystemExit`; the call fails instead of the process.
    """
    attempt = origin.attempt or Attempted(new_call_id())
    token = UNDER_WAY.set(attempt)
    try:
        yield attempt
    except SystemExit as exc:
        raise ProviderError(f"its code ended with SystemExit {exc.code}", provider=provider, model=model) from exc
    finally:
        UNDER_WAY.reset(token)


class _SingleChunkStream:
    """The accumulator and recorder of a one-piece stream; the module itself has already logged the call."""

    def __init__(self) -> None:
        self._reply: Reply | None = None

    def feed(self, event: Any) -> str:
        self._reply = event
        return str(event.text)

    def usage(self) -> Usage | None:
        return self._reply.usage if self._reply else None

    def raw(self) -> Mapping[str, Any] | None:
        return {"reply": self._reply} if self._reply else None

    def begin(self) -> ResendGuard:
        return ResendGuard()

    def answered(self, raw: Mapping[str, Any]) -> Reply:
        reply: Reply = raw["reply"]
        return reply

    def failed(self, exc: BaseException, *, usage: Usage | None = None, text: str = "") -> BaseException:
        return exc

    def closed(self, usage: Usage | None, text: str) -> None:
        return None


def _parts(request: Request) -> Iterator[Part]:
    for turn in request.turns:
        if isinstance(turn, User):
            yield from turn.parts
        elif isinstance(turn, Assistant):
            yield turn.text


def _arguments(request: Request, origin: CallMetadata, api_key: str | None) -> dict[str, Any]:
    """Return the request as keyword arguments of `generate`; images and files are passed unchanged."""
    parts = list(_parts(request))
    whole: Any = parts[0] if len(parts) == 1 and isinstance(parts[0], str) else [_bare(part) for part in parts]
    further = dict(request.extras) | ({"api_key": api_key} if api_key else {})
    if request.json_schema is not None:
        further["json_schema"] = request.json_schema
    return {
        "contents": whole,
        "model": request.model,
        "temperature": request.temperature,
        "max_output_tokens": request.max_output_tokens,
        "system_instruction": request.system,
        "json_output": request.json_output,
        "thinking_budget": request.thinking_budget,
        "timeout_s": request.timeout_s,
        "context": origin.context,
        **further,
    }


def _bare(part: Part) -> Any:
    return part.data if isinstance(part, (Image, File)) else part
