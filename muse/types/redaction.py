"""Recognize secrets by name or form, and show values and addresses without them: `RedactedStruct`, `shown_address`."""

from __future__ import annotations

import re
from typing import ClassVar
from urllib.parse import unquote, urlsplit, urlunsplit

from msgspec import Struct

HIDDEN = "(hidden)"
_SHORTEST_TOKEN = 20
_SENSITIVE_NAME = (  # compiled at the first use, as those below
    r"(?i)(?:^|_|\b)(?:KEYS?|APIKEY|TOKENS?|SECRETS?|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|AUTH|AUTHORIZATION|COOKIE|PAT)"
    r"(?:_ID)?_?\d*$|(?:API|SECRET|ACCESS|AUTH|PRIVATE|BEARER)_?(?:KEY|TOKEN)|PASSWORD|APIKEY"
)
_NO_SECRETS = frozenset({"SEGMENT_KEY", "MAX_TOKENS"})
_KNOWN_FORM = r"(?:sk|pk|rk|ghp|gho|ghs|glpat|xox[abp]|hf|github_pat|AKIA|AIza)[-_A-Za-z0-9]{12,}$"
_ONE_WORD = r"[A-Za-z0-9_\-+=.~]+"


class RedactedStruct(Struct, frozen=True):
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


class RedactedText(str):
    """Text that `repr` does not show."""

    __slots__ = ()

    def __repr__(self) -> str:
        return HIDDEN


def names_secret(name: str) -> bool:
    """Whether a variable, header, flag or argument of this name holds a secret: `OPENAI_API_KEY`, `password`."""
    return re.search(_SENSITIVE_NAME, name) is not None and name.upper() not in _NO_SECRETS


def looks_secret(text: str) -> bool:
    """Whether a text looks like a token by itself: one long word of letters and digits in no readable order."""
    if re.match(_KNOWN_FORM, text):
        return True
    is_word = len(text) >= _SHORTEST_TOKEN and re.fullmatch(_ONE_WORD, text) is not None
    return is_word and bool(re.search(r"\d", text)) and bool(re.search("[A-Za-z]", text))


def shown_address(address: object) -> str:
    """Return an address without user, password, query and fragment, and with tokens in its path left out.

    >>> shown_address("https://user:word@host.example/v1?key=secret")
    'https://host.example/v1?…'
    """
    try:
        parts = urlsplit(str(address))
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return _UNREADABLE
    if not host and "@" in parts.path:  # without `//` a user and password stand in the path
        return _UNREADABLE
    netloc = (f"[{host}]" if ":" in host else host) + (f":{port}" if port else "")
    path = "/".join("…" if looks_secret(unquote(segment)) else segment for segment in parts.path.split("/"))
    return urlunsplit((parts.scheme, netloc, path, "…" if parts.query else "", ""))


_UNREADABLE = "an address that cannot be read"
