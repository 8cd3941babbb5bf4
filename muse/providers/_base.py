"""The only import that a provider file needs: what it implements (`Provider`, `ProviderSpec`) and `bind`.

A provider file holds its `SPEC`, a `Provider` and the line `generate, agenerate, run_agent = bind(MyProvider())`.
A file in `muse/providers/` is registered by being there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from muse.providers._backend.backend import ProviderBackend
from muse.providers._backend.provider import Credentials, EncodedRequest, Payload, Provider
from muse.providers._replies.errors import connection_error, status_error, timeout_error
from muse.types.deprecation import renamed_attributes
from muse.types.provider_spec import Capabilities, ModelProfile, ProviderSpec

__all__ = [
    "Credentials",
    "Capabilities",
    "EncodedRequest",
    "Payload",
    "ModelProfile",
    "Provider",
    "ProviderSpec",
    "bind",
    "connection_error",
    "status_error",
    "timeout_error",
]


def bind(provider: Provider) -> tuple[Callable[..., str], Callable[..., Awaitable[str]], Callable[..., Awaitable[str]]]:
    """Return `(generate, agenerate, run_agent)` of a provider, for its module to export.

    They are methods of one `ProviderBackend`, so that muse can find the whole provider of a module.
    """
    backend = ProviderBackend(provider)
    return backend.generate, backend.agenerate, backend.run_agent


# Names of 0.1.
__getattr__ = renamed_attributes(
    __name__, {"Access": "Credentials", "Encoded": "EncodedRequest", "Profile": "ModelProfile", "Spec": "ProviderSpec"}
)
