"""A JSON document taken apart by tables of keys, what is not usable in it noted; it knows no table."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from msgspec import Struct

_T = TypeVar("_T")
UNKNOWN_KEY = "an unknown key"


class Problem(Struct, frozen=True):
    """Something in journal.json that is not usable: where it stands, what was found, what is allowed."""

    path: str
    found: str
    allowed: str

    def __str__(self) -> str:
        return f"{self.path}: found {self.found}, expected {self.allowed}"


class LenientParser:
    """One pass over one document; collects problems as it goes, and what is left of an entry without them."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def entries(self, raw: object, path: str, value: Callable[[object, str], _T]) -> Mapping[str, _T]:
        """An object whose keys are free, each of its values read by `value(raw, path)`."""
        return {key: value(entry, f"{path}[{key!r}]") for key, entry in self.members(raw, path).items()}

    def fields(self, raw: object, path: str, table: Mapping[str, type]) -> dict[str, Any]:
        """The entries of an object that are in `table` and of its type; each other one is a problem."""
        fields: dict[str, Any] = {}
        for key, value in self.members(raw, path).items():
            place = f"{path}.{key}" if path else key
            kind = table.get(key)
            if kind is None:
                self.problem(place, UNKNOWN_KEY, f"one of {', '.join(sorted(table))}")
            elif key == "tier" or self.is_kind(value, kind, place):
                fields[key] = value
        return fields

    def rows(self, raw: object, path: str, value: Callable[[object, str], _T | None]) -> tuple[_T, ...]:
        """A list, each of its items read by `value(raw, path)`; those that become None are left out."""
        if not isinstance(raw, list):
            self.problem(path, describe_value(raw), KIND_NAMES[list])
            return ()
        read = (value(item, f"{path}[{place}]") for place, item in enumerate(raw))
        return tuple(item for item in read if item is not None)

    def is_kind(self, value: object, kind: type, path: str) -> bool:
        """Whether a value is of a JSON type; a problem if not."""
        if kind is str:
            return self.is_text(value, path)
        if isinstance(value, kind) and isinstance(value, bool) == (kind is bool):
            return True
        if kind is int and isinstance(value, float) and value.is_integer():  # to JSON, 4096.0 is a whole number
            return True
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            return True
        self.problem(path, describe_value(value) if path != "env" else type(value).__name__, KIND_NAMES[kind])
        return False

    def is_text(self, value: object, path: str, *, empty: bool = False, secret: bool = False) -> bool:
        """Whether a value is text that says something (or is `empty`); a problem if not, without a `secret` one."""
        if isinstance(value, str) and (empty or value.strip()):
            return True
        self.problem(path, type(value).__name__ if secret else describe_value(value), KIND_NAMES[str])
        return False

    def members(self, raw: object, path: str | None) -> Mapping[str, Any]:
        """An object; an empty one, and a problem unless `path` is None, for anything else."""
        if isinstance(raw, Mapping):
            return raw
        if path is not None:
            self.problem(path, describe_value(raw), KIND_NAMES[dict])
        return {}

    def problem(self, path: str, found: str, allowed: str) -> None:
        """Note what is not usable."""
        self.problems.append(Problem(path, found, allowed))


KIND_NAMES: Mapping[type, str] = {
    str: "text that is not empty",
    dict: "an object {...}",
    list: "a list [...]",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
}


def describe_value(value: object) -> str:
    """A value as an error shows it: as JSON-like text, cut short."""
    text = json.dumps(value, ensure_ascii=False, default=repr) if not isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def closest_name(word: str, words: Collection[str]) -> str | None:
    """Return the word of `words` that `word` looks like a misspelling of; None if it is like none."""
    from difflib import get_close_matches  # 3 ms, and only who misspells something pays it

    lower = {each.lower(): each for each in words}
    near = get_close_matches(word.lower(), lower, n=1, cutoff=0.7)
    return lower[near[0]] if near else None
