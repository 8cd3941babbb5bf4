"""Find the secrets in an MCP server's entry."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import unquote, urlsplit

from muse.types.redaction import looks_secret, names_secret

_FLAG = re.compile(r"--?([A-Za-z][\w-]*)(?:=(.*))?", re.DOTALL)
_LEAST = 4
_LEAST_QUERY = 12
_DIGIT = re.compile(r"\d").search


def secrets_in(
    url: str | None,
    args: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[str, ...]:
    """Return what must not be shown of a server's entry.

    Of an address: its password (without one, its user), its query, and what looks like a token in its path or
    fragment. Of headers, arguments and variables: those whose name says so, that look like a token, or that hold such
    an address.
    """
    found = [*_in_address(url or "")]
    for name, value in (headers or {}).items():
        found += _in_value(name, value)
        found += (word for word in value.split()[1:] if names_secret(name.replace("-", "_")))  # `Bearer token`
    for name, value in (env or {}).items():
        found += _in_value(name, value)
    before = ""
    for arg in args:
        flag = _FLAG.fullmatch(arg)
        found += _in_value(flag[1], flag[2]) if flag and flag[2] is not None else _in_value(before, arg)
        before = flag[1] if flag and flag[2] is None else ""
    return tuple(dict.fromkeys(one for one in found if len(one) >= _LEAST))


def _in_value(name: str, value: str) -> Iterator[str]:
    if "://" in value:
        yield from _in_address(value)
    elif value and (names_secret(name.replace("-", "_")) or looks_secret(value)):
        yield value


def _in_address(url: str) -> Iterator[str]:
    try:
        parts = urlsplit(url)
        named = (parts.username, parts.password)
    except ValueError:
        yield url
        return
    user, password = named
    hidden = [password or user or "", user if user and looks_secret(user) else ""]
    hidden += [parts.query] if len(parts.query) >= _LEAST_QUERY else []
    hidden += [value for pair in re.split("[&;]", parts.query) for value in _in_pair(pair)]
    hidden += [one for one in (*parts.path.split("/"), parts.fragment) if looks_secret(unquote(one))]
    yield from (form for one in hidden if one for form in (one, unquote(one)))


def _in_pair(pair: str) -> Iterator[str]:
    name, _, value = pair.partition("=")
    bare = unquote(value)
    if (
        names_secret(unquote(name).replace("-", "_"))
        or looks_secret(bare)
        or (len(bare) >= _LEAST_QUERY and _DIGIT(bare))
    ):
        yield value
