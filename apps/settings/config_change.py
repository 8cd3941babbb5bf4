"""A change of journal.json before it is saved: what is wrong with it, who would be served otherwise, and its saving."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from apps.settings import history, limit_fields
from apps.settings.config_state import Standing, Trouble, known_names, section, troubles_of
from apps.settings.entry_form import Delta, applied, in_words
from apps.settings.redaction import whole
from apps.settings.route_table import Move, Plans, moves
from muse.errors import ConfigError
from muse.journal import config_loader
from muse.journal.config import parse_config, parse_json
from muse.journal.config_loader import ConflictError, FileVersion, Snapshot
from muse.journal.lenient_parser import Problem
from muse.routing.unreachable_rules import config_path_of

Change = Callable[[dict[str, Any]], None]
DEFAULT = "providers.default"


class Proposal(Struct, frozen=True):
    """What a change would come to: the problems it would bring in, the contexts it would move."""

    troubles: tuple[Trouble, ...]
    moves: tuple[Move, ...]
    before: Plans
    after: Plans


def rule_change(pattern: str | None, delta: Delta, *, must_be_new: bool = False) -> Change:
    """The change of one entry, with its limit and budget: of a pattern, or of the default if `pattern` is None.

    An entry that says nothing any more is taken out.
    """

    def change(data: dict[str, Any]) -> None:
        providers = object_at(data, "providers", "providers")
        if must_be_new and pattern is not None and pattern in object_at(providers, "contexts", "providers.contexts"):
            raise ConfigError(
                config_path_of(pattern), "a rule that is there already", "a new pattern, or edit that rule"
            )
        said, rows = limit_fields.split(delta)
        for kind, part in rows.items():
            limit_fields.change(providers, pattern, kind, part)
        if said:
            _change_entry(providers, pattern, said)

    return change


def _change_entry(providers: dict[str, Any], pattern: str | None, delta: Delta) -> None:
    if pattern is None:
        providers["default"] = applied(object_at(providers, "default", DEFAULT), delta)
        return
    rules = object_at(providers, "contexts", "providers.contexts")
    rules[pattern] = applied(object_at(rules, pattern, config_path_of(pattern)), delta)
    if not rules[pattern]:
        del rules[pattern]


def removal(pattern: str) -> Change:
    """The change that takes the entry of a pattern out."""

    def change(data: dict[str, Any]) -> None:
        rules = object_at(object_at(data, "providers", "providers"), "contexts", "providers.contexts")
        if pattern not in rules:
            raise ConfigError(
                config_path_of(pattern), "no such rule", "one that stands in journal.json; reload the page"
            )
        del rules[pattern]

    return change


def object_at(data: dict[str, Any], key: str, path: str) -> dict[str, Any]:
    """An object in `data`, made if it is missing.

    Raises:
        ConfigError: something else stands there.
    """
    found = data.setdefault(key, {})
    if not isinstance(found, dict):
        raise ConfigError(path, type(found).__name__, "an object {...}; mend it in the raw JSON")
    return found


def propose(now: Standing, change: Change) -> Proposal:
    """What a change of the entries would come to.

    Raises:
        ConfigError: it cannot be applied at all, or journal.json cannot be read.
    """
    require_readable(now)
    data = copy.deepcopy(dict(now.data))
    change(data)
    return _proposal(now, data, "")


def propose_text(now: Standing, text: str) -> Proposal:
    """What another text of journal.json would come to; secrets that it does not show are taken from the file.

    Raises:
        ConfigError: it is no JSON object.
    """
    data, duplicates = parse_json(whole(text, now.text), "journal.json")
    return _proposal(now, data, text, duplicates)


def _proposal(now: Standing, data: Mapping[str, Any], text: str, duplicates: tuple[Problem, ...] = ()) -> Proposal:
    """The proposal of some data; its problems have lines where a person typed it as `text`."""
    names = known_names()
    old = set(parse_config(now.data, names)[1])
    config, problems = parse_config(data, names)
    fresh = tuple(problem for problem in problems if problem not in old)
    before = Plans(now.snapshot)
    after = Plans(Snapshot(now.path, now.stamp, config, problems, data))
    return Proposal(troubles_of(text, duplicates + fresh), tuple(moves(before, after)), before, after)


def require_readable(now: Standing) -> None:
    """See that journal.json can be read, as a change of one entry needs it.

    Raises:
        ConfigError: it cannot; the text says where.
    """
    if now.failure is not None:
        where = f" (line {now.failure.line})" if now.failure.line else ""
        allowed = f"{now.failure.allowed}; mend it in the raw JSON first"
        raise ConfigError(now.failure.path, f"{now.failure.found}{where}", allowed)


def save(change: Change, what: str, *, expected: FileVersion | None) -> Snapshot:
    """Save a change of the entries, and keep what stood there before.

    Raises:
        ConflictError: the file moved since `expected`.
        ConfigError: the change brings a problem in; nothing was written.
    """
    names = known_names()
    return history.keeping(what, lambda keep: config_loader.update(change, expected=expected, known=names, keep=keep))


def save_text(now: Standing, text: str, *, expected: FileVersion) -> Snapshot:
    """Save a whole text of journal.json, as it is.

    Raises:
        ConflictError: the file moved since `expected`.
        ConfigError: it is not usable; nothing was written.
    """
    if expected != now.stamp:
        raise ConflictError(f"{now.path}: changed on disk since it was read; read it again, then repeat the change")
    full = whole(text, now.text)
    names = known_or_none()
    return history.keeping(
        "The raw JSON", lambda keep: config_loader.rewrite(full, expected=expected, known=names, keep=keep)
    )


def known_or_none() -> tuple[str, ...] | None:
    """The names of all providers; None while journal.json cannot be read."""
    try:
        return known_names()
    except ConfigError:
        return None


def entry_of(now: Standing, pattern: str | None) -> Mapping[str, Any]:
    """The entry of a pattern, or the default's, as it stands, with its limit and budget; empty where there is none."""
    found = section(now.data, "default") if pattern is None else now.entries.get(pattern)
    return {**(found if isinstance(found, Mapping) else {}), **limit_fields.flat(now.data.get("providers"), pattern)}


def in_short(pattern: str | None, delta: Delta) -> str:
    """A change of one entry as the list of saves names it."""
    return f"{'The default' if pattern is None else pattern}: {in_words(delta)}"
