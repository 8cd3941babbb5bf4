"""What a provider file supplies: wire form, clients, the one impure line; nothing of what surrounds a call."""

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
    """With which key, and to which address (None: the SDK's own), a client talks; the key stays out of `repr`.

    `max_bytes` is the most that an answer may have, as it is read and once it is decompressed.
    """

    key: str | None = None
    base_url: str | None = None
    max_bytes: int = 64_000_000

    def __repr__(self) -> str:
        address = shown_address(self.base_url) if self.base_url else None
        return f"Access({'with' if self.key else 'without'} a key, base_url={address!r})"


class EncodedRequest(Struct, frozen=True):
    """A wire payload, and the options of the request that the model does not take."""

    payload: Payload
    dropped: tuple[str, ...] = ()


class Provider(ABC):
    """One wire form; `sdk` is the module whose absence means that the spec's extra is not installed.

    A request is fitted to `tool_rules`, and to whether texts of white space are taken (`takes_blanks`), before it is
    encoded.
    """

    spec: ProviderSpec
    sdk: ClassVar[str] = ""
    tool_rules: ClassVar[ToolRules | None] = None
    takes_blanks: ClassVar[bool] = True

    @abstractmethod
    def encode(self, request: Request) -> EncodedRequest:
        """The request in the provider's form; pure."""

    def encode_fitted(self, request: Request) -> EncodedRequest:
        """As `encode`, of the request without empty texts and with tools that the provider takes."""
        fit, dropped = fit_request(request, self.tool_rules, blanks=self.takes_blanks)
        encoded = self.encode(fit)
        return replace(encoded, dropped=encoded.dropped + dropped) if dropped else encoded

    @abstractmethod
    def decode(self, raw: Mapping[str, Any], request: Request) -> Reply:
        """The provider's answer as a reply; pure.

        Raises:
            ProviderError: the answer is an error in a good answer's clothes.
        """

    @abstractmethod
    def gather(self) -> StreamAccumulator:
        """A fresh collector of this provider's stream events."""

    @abstractmethod
    def client(self, access: Credentials) -> Any:
        """A new sync client; the SDK is imported here."""

    @abstractmethod
    def aclient(self, access: Credentials) -> Any:
        """A new async client for the running loop."""

    @abstractmethod
    async def aclose(self, client: Any) -> None:
        """Close an async client."""

    @abstractmethod
    def send(self, client: Any, payload: Payload, deadline: Deadline) -> Answer:
        """The one impure line: the body of the answer, or the answer itself where no body is at hand."""

    @abstractmethod
    async def asend(self, client: Any, payload: Payload, deadline: Deadline) -> Answer:
        """As `send`, awaited."""

    @abstractmethod
    def stream(self, client: Any, payload: Payload, deadline: Deadline) -> Iterator[Any]:
        """The events of a streamed answer; closing the iterator cancels the request."""

    @abstractmethod
    def astream(self, client: Any, payload: Payload, deadline: Deadline) -> AsyncIterator[Any]:
        """As `stream`, awaited."""

    @abstractmethod
    def fault(self, exc: Exception, model: str) -> MuseError | None:
        """What an exception of the SDK or transport means; None if it is neither's."""

    def warm(self, client: Any) -> None:  # noqa: B027 - most providers have nothing to do
        """Do what is to be done once before the first call of `client` and takes long, such as starting an engine."""

    def must_stream(self, payload: Payload) -> bool:
        """Whether an answer to this payload may take longer than an unstreamed connection lasts."""
        return False

    def native_batch(self) -> BatchService | None:
        """The provider's own batch service, which works overnight at `spec.batch_price`; None if it has none."""
        return None

    def access(self, api_key: str | None = None) -> Credentials:
        """Key and address for a call, read at call time.

        Raises:
            MissingKeyError: the provider needs a key and there is none.
        """
        spec = self.spec
        find = secrets.require_key if spec.key_required else secrets.find_key
        most = config_loader.load().config.policies.answers.max_bytes(spec.name)
        address = base_url(spec)
        secrets.refuse_withheld(PROVIDER_ENV, spec.model_env, spec.base_url_env, "" if api_key else spec.env_key)
        return Credentials(find(spec.env_key, api_key), address, most)


def base_url(spec: ProviderSpec) -> str | None:
    """Return the address in force: the `<NAME>_BASE_URL` variable, else the spec's; None is the SDK's own.

    An empty value counts as unset. Blanks around it, slashes at its end, a fragment and the path of the endpoint itself
    (`/chat/completions`) are cut off; a query stays.

    Raises:
        TrustError: a project's file names it, without the user's consent.
        ConfigError: it is no http address, or holds a user name: that would go out in place of the key, and into logs.
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
    """Return `(the address as it is used, "")`, or `("", what is wrong)` in words that do not quote it."""
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
    """Return what is wrong with an address; empty if nothing is.

    Raises:
        ValueError: its port is no number up to 65535, or its host is no name.
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
