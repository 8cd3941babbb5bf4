"""The interface that a provider file implements: wire form, clients, and the methods that send a request.

Entry points: `Provider`, `Credentials`, `EncodedRequest`, `base_url`.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import SplitResult, parse_qsl, urlsplit, urlunsplit

from msgspec import Struct
from msgspec.structs import replace

from muse.journal import config_loader, secrets
from muse.journal.trust.consent import TrustError
from muse.policies.deadline import Deadline
from muse.providers._backend.fitting import ToolRules, fit_request
from muse.routing.router import PROVIDER_ENV
from muse.streaming.stream_base import StreamAccumulator
from muse.types.errors import ConfigError, MuseError
from muse.types.messages import Reply, Request
from muse.types.provider_spec import ProviderSpec
from muse.types.redaction import shown_address

if TYPE_CHECKING:
    from muse.providers._backend.batch_service import BatchService

Payload = dict[str, Any]
Answer = bytes | Mapping[str, Any]


class Credentials(Struct, frozen=True):
    """The key and address that a client uses; `repr` does not show the key.

    Attributes:
        key: The API key.
        base_url: The address; None for the SDK's own.
        max_bytes: The size limit of an answer in bytes, both as received and after decompression.
    """

    key: str | None = None
    base_url: str | None = None
    max_bytes: int = 64_000_000

    def __repr__(self) -> str:
        address = shown_address(self.base_url) if self.base_url else None
        return f"Access({'with' if self.key else 'without'} a key, base_url={address!r})"


class EncodedRequest(Struct, frozen=True):
    """A wire payload.

    Attributes:
        payload: The payload.
        dropped: The options of the request that the model does not accept.
    """

    payload: Payload
    dropped: tuple[str, ...] = ()


class Provider(ABC):
    """The wire form of one provider.

    A request is fitted to `tool_rules` and `takes_blanks` before it is encoded.

    Attributes:
        spec: The provider's declaration of itself.
        sdk: The SDK module; if it is missing, the spec's extra is not installed.
        tool_rules: What the provider accepts of tools; None for no limits.
        takes_blanks: True if the provider accepts texts that are only white space.
    """

    spec: ProviderSpec
    sdk: ClassVar[str] = ""
    tool_rules: ClassVar[ToolRules | None] = None
    takes_blanks: ClassVar[bool] = True

    @abstractmethod
    def encode(self, request: Request) -> EncodedRequest:
        """Return the request in the provider's wire form, without side effects."""

    def encode_fitted(self, request: Request) -> EncodedRequest:
        """Fit the request (no empty texts, only tools the provider accepts), then encode it."""
        fit, dropped = fit_request(request, self.tool_rules, blanks=self.takes_blanks)
        encoded = self.encode(fit)
        return replace(encoded, dropped=encoded.dropped + dropped) if dropped else encoded

    @abstractmethod
    def decode(self, raw: Mapping[str, Any], request: Request) -> Reply:
        """Return the provider's answer as a reply, without side effects.

        Raises:
            ProviderError: The answer has a good status but is an error.
        """

    @abstractmethod
    def gather(self) -> StreamAccumulator:
        """Return a new accumulator for this provider's stream events."""

    @abstractmethod
    def client(self, access: Credentials) -> Any:
        """Return a new sync client; this imports the SDK."""

    @abstractmethod
    def aclient(self, access: Credentials) -> Any:
        """Return a new async client for the running event loop."""

    @abstractmethod
    async def aclose(self, client: Any) -> None:
        """Close an async client."""

    @abstractmethod
    def send(self, client: Any, payload: Payload, deadline: Deadline) -> Answer:
        """Send the request; return the body of the answer, or the decoded answer if the client has no body."""

    @abstractmethod
    async def asend(self, client: Any, payload: Payload, deadline: Deadline) -> Answer:
        """Do the same as `send`, asynchronously."""

    @abstractmethod
    def stream(self, client: Any, payload: Payload, deadline: Deadline) -> Iterator[Any]:
        """Yield the events of a streamed answer; closing the iterator cancels the request."""

    @abstractmethod
    def astream(self, client: Any, payload: Payload, deadline: Deadline) -> AsyncIterator[Any]:
        """Do the same as `stream`, asynchronously."""

    @abstractmethod
    def fault(self, exc: Exception, model: str) -> MuseError | None:
        """Return muse's error for an exception of the SDK or transport; None if it comes from neither."""

    def warm(self, client: Any) -> None:  # noqa: B027 - most providers have nothing to do
        """Do slow one-time work before the first call of `client`, such as starting an engine."""

    def must_stream(self, payload: Payload) -> bool:
        """Return True if the answer may take longer than a connection without streaming stays open."""
        return False

    def native_batch(self) -> BatchService | None:
        """Return the provider's own batch service, which charges `spec.batch_price`; None if it has none."""
        return None

    def access(self, api_key: str | None = None) -> Credentials:
        """Return the key and address for a call, read at call time.

        Raises:
            MissingKeyError: The provider needs a key and there is none.
        """
        spec = self.spec
        find = secrets.require_key if spec.key_required else secrets.find_key
        most = config_loader.load().config.policies.answers.max_bytes(spec.name)
        address = base_url(spec)
        secrets.refuse_withheld(PROVIDER_ENV, spec.model_env, spec.base_url_env, "" if api_key else spec.env_key)
        return Credentials(find(spec.env_key, api_key), address, most)


def base_url(spec: ProviderSpec) -> str | None:
    """Return the address to use: the `<NAME>_BASE_URL` variable, else the spec's address, else None for the SDK's own.

    An empty value counts as unset. The result has no surrounding white space, trailing slashes, fragment, or path of
    the endpoint itself (`/chat/completions`). It keeps a query.

    Raises:
        TrustError: A project's file names the address and the user has not consented.
        ConfigError: It is not an HTTP address, or it holds a user name, which would be sent in place of the key and
            would get into logs.
    """
    if spec.withheld is not None:
        raise TrustError(spec.withheld)
    by_env = (secrets.look_up_address(spec.base_url_env) or "").strip() if spec.base_url_env else ""
    given = by_env or (spec.base_url or "").strip()
    if not given:
        return None
    address, problem = _checked(given, spec.endpoint_paths)
    if problem:
        where = spec.base_url_env if by_env else f"providers.compatible[{spec.name!r}].base_url"
        raise ConfigError(where, problem, "an address such as https://host.example/v1, without a user name")
    return address


def without_query(address: str | None) -> tuple[str | None, dict[str, str]]:
    """Return an address without its query, and the query's names and values."""
    if address is None or "?" not in address:
        return address, {}
    parts = urlsplit(address)
    return urlunsplit(parts._replace(query="")), dict(parse_qsl(parts.query, keep_blank_values=True))


@lru_cache(maxsize=256)
def _checked(address: str, endpoint_paths: tuple[str, ...]) -> tuple[str, str]:
    """Return `(address to use, "")`, or `("", problem)`; the problem text does not quote the address."""
    try:
        parts = urlsplit(address)
        problem = _wrong_with(address, parts)
    except ValueError:
        problem = "an address that cannot be read"
    if problem:
        return "", problem
    path = parts.path.rstrip("/")
    for ending in endpoint_paths:
        if path.endswith(ending):
            path = path.removesuffix(ending).rstrip("/")
            break
    return urlunsplit((parts.scheme, parts.netloc, path, parts.query, "")), ""


def _wrong_with(address: str, parts: SplitResult) -> str:
    """Return the problem with an address; an empty string if there is none.

    Raises:
        ValueError: The port is not a number up to 65535, or the host is not a valid name.
    """
    if any(char.isspace() or not char.isprintable() or char == "\\" for char in address):
        return "an address with a blank, backslash or control character in it"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return "an address without http:// or https:// and a host"
    if parts.username is not None or parts.password is not None:
        return "an address with a user name or password in it"
    if parts.port == 0:
        return "port 0"
    host = parts.hostname.removesuffix(".")
    if not host.isascii():
        host = host.encode("idna").decode("ascii")
    is_name = ":" in host or (_HOST.fullmatch(host) and all(0 < len(label) < 64 for label in host.split(".")))
    return "" if is_name else "an address whose host is no name"


_HOST = re.compile(r"[A-Za-z0-9._-]+")
