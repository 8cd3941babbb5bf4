"""Loading of provider code: the only place that imports it and turns its failures into errors.

A provider whose code cannot be used becomes a `RefusedBackend`. It is still listed, and each call to it raises its
error. Entry points: `load`, `refused`, `backend_around`.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Coroutine, Mapping
from types import ModuleType
from typing import Any, NoReturn, TypeVar

import msgspec
from msgspec import Struct

from muse.journal import secrets
from muse.providers._backend.attempt import CallMetadata
from muse.providers._backend.backend import Backend, ProviderBackend
from muse.providers._backend.function_adapter import FunctionBackend
from muse.streaming.streams import AsyncReplyStream, ReplyStream
from muse.types.errors import ConfigError, PluginError
from muse.types.messages import Reply, Request
from muse.types.provider_names import PREFIXES, SHIPPED
from muse.types.provider_spec import ProviderSpec

log = logging.getLogger(__name__)

_T = TypeVar("_T")
FUNCTIONS = ("generate", "agenerate", "run_agent")
_LONGEST = 300


class ProviderSource(Struct, frozen=True):
    """The origin of a provider's code, for error messages; `place` is a file or the target of an entry point."""

    name: str
    package: str
    version: str
    place: str
    remedy: str

    def error(self, reason: str) -> PluginError:
        """Return the error for a provider from this source."""
        return PluginError(self.name, self.package, self.version, reason, self.remedy)


class LoadedProvider(Struct, frozen=True):
    """A provider's module and backend; `error` is the reason why it cannot be used, None if it can."""

    module: ModuleType
    backend: Backend
    error: ConfigError | None = None


def load(source: ProviderSource, import_it: Callable[[], Any]) -> LoadedProvider:
    """Import a provider and return it; return a refused one if it fails, lacks a function or declares another name."""
    try:
        module = import_it()
        backend = backend_around(module, source.name)
        problem = _problem_of(module, backend, source.name)
    except KeyboardInterrupt:
        raise
    except BaseException as exc:  # third-party code may raise anything, including SystemExit
        error = source.error(f"{source.place}: {_in_words(exc)}")
        error.__cause__ = exc
        log.debug("loading %s", source, exc_info=True)
        return refused(source.name, error)
    if problem:
        return refused(source.name, source.error(f"{source.place}: {problem}"))
    return LoadedProvider(module, backend)


def backend_around(module: Any, name: str) -> Backend:
    """Return the backend that `bind` made for a module, else a new one around the module's plain functions."""
    owner = getattr(getattr(module, "generate", None), "__self__", None)
    return owner if isinstance(owner, ProviderBackend) else FunctionBackend(module, name)


def refused(name: str, error: ConfigError, spec: ProviderSpec | None = None) -> LoadedProvider:
    """Return a provider whose calls all raise `error`; `spec` is its declaration, if that is known."""
    prefixes = PREFIXES.get(name, (f"{name.lower()}-",))
    known = spec or ProviderSpec(name, name, "", {}, prefixes=prefixes, key_required=False)
    backend = RefusedBackend(known.having(broken=True), error)
    module = ModuleType(f"muse.providers.{name}", f"{error}")
    members: Mapping[str, Any] = {
        "SPEC": backend.spec,
        "__all__": list(FUNCTIONS),
        "generate": backend.refuse,
        "agenerate": backend.arefuse,
        "run_agent": backend.arefuse,
    }
    vars(module).update(members)
    return LoadedProvider(module, backend, error)


class RefusedBackend:
    """A backend of a provider that cannot be used, with the reason."""

    def __init__(self, spec: ProviderSpec, error: ConfigError) -> None:
        self.spec = spec
        self.error = error

    def refuse(self, *_: Any, **__: Any) -> NoReturn:
        """Raise the reason, as a separate copy for each call.

        Raises:
            ConfigError: Always; a `PluginError` if the provider's code cannot be used.
        """
        raise copy.copy(self.error) from self.error.__cause__

    async def arefuse(self, *_: Any, **__: Any) -> NoReturn:
        """Do the same as `refuse`, asynchronously."""
        self.refuse()

    def load(self, api_key: str | None = None) -> None:
        """Do nothing: there is nothing to load, and the call raises the reason."""

    async def aload(self, api_key: str | None = None) -> None:
        """Do nothing, like `load`."""

    def reply(self, request: Request, origin: CallMetadata, api_key: str | None = None) -> Reply:
        """Raise the reason."""
        self.refuse(request, origin, api_key)

    def areply(self, request: Request, origin: CallMetadata, api_key: str | None = None) -> Coroutine[Any, Any, Reply]:
        """Raise the reason when awaited."""
        return self.arefuse(request, origin, api_key)

    def stream(self, request: Request, origin: CallMetadata, api_key: str | None = None) -> ReplyStream:
        """Raise the reason."""
        self.refuse(request, origin, api_key)

    def astream(
        self, request: Request, origin: CallMetadata, api_key: str | None = None
    ) -> Coroutine[Any, Any, AsyncReplyStream]:
        """Raise the reason when awaited."""
        return self.arefuse(request, origin, api_key)


def _problem_of(module: Any, backend: Backend, name: str) -> str:
    """Return what a loaded provider lacks; an empty string if nothing."""
    missing = [function for function in FUNCTIONS if not callable(getattr(module, function, None))]
    if missing:
        return f"it has no function {' and no function '.join(missing)}"
    spec = backend.spec
    if spec.name != name:
        return f"its SPEC is named {spec.name!r}, expected {name!r}"
    if name not in SHIPPED:  # the check takes 15 ms the first time, and mypy has checked the shipped providers
        msgspec.json.decode(msgspec.json.encode(spec), type=ProviderSpec)  # checks the types of the fields
    return ""


def _in_words(exc: BaseException) -> str:
    """Return an exception of third-party code as one short line; its own `__str__` may fail too."""
    kind = type(exc).__name__
    try:
        said = " ".join(str(exc).split())
    except Exception:  # noqa: BLE001 - the exception's own `__str__` may raise anything
        said = ""
    if isinstance(exc, SystemExit):
        kind, said = "it ends the process when it is imported", f"SystemExit {said}".strip()
    return secrets.redact(f"{kind}: {said}" if said else kind)[:_LONGEST]
