"""How values with secrets in them show themselves in tracebacks, logs and debuggers: without the secrets."""

from __future__ import annotations

from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from msgspec import Struct

HIDDEN = "(hidden)"


class Discreet(Struct, frozen=True):
    """A struct whose `repr` hides the fields in `_hidden`, and what may be secret in the addresses in `_addresses`."""

    _hidden: ClassVar[frozenset[str]] = frozenset()
    _addresses: ClassVar[frozenset[str]] = frozenset()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={self._shown(name)}' for name in self.__struct_fields__)})"

    def _shown(self, name: str) -> str:
        value = getattr(self, name)
        if value and name in self._hidden:
            return HIDDEN
        return repr(shown_address(value) if value and name in self._addresses else value)


class UnshownText(str):
    """Text that `repr` does not show."""

    __slots__ = ()

    def __repr__(self) -> str:
        return HIDDEN


def shown_address(address: Any) -> str:
    """Return an address with user, password and the values of its query hidden.

    >>> shown_address("https://user:word@host.example/v1?key=secret")
    'https://host.example/v1?key=(hidden)'
    """
    try:
        parts = urlsplit(str(address))
        query = "&".join(f"{name}={HIDDEN}" for name, _ in parse_qsl(parts.query, keep_blank_values=True))
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, query, ""))
    except ValueError:
        return "(an address that cannot be read)"
