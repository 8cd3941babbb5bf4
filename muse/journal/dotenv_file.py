"""The journal's own `.env`: one entry saved or taken out, the rest left as it stands; it shows no value."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from dotenv import dotenv_values
from dotenv.parser import parse_stream

from muse.journal import paths
from muse.journal.secrets import find_key
from muse.journal.storage import atomic_files
from muse.types.errors import ConfigError, MissingKeyError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LONGEST = 4096


def dotenv_path() -> Path:
    """The journal's own `.env`."""
    return paths.journal_path() / ".env"


def set_value(name: str, value: str) -> None:
    """Write `name=value` into the journal's `.env` (mode 0600), in place of what it said there before.

    Raises:
        ConfigError: the name is none of a variable, the value is no key, or the file cannot be read or written.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError("key", f"{name!r}", "the name of a variable, such as OPENAI_API_KEY")
    try:
        key = find_key(name, value) if value else None  # without a value it looks in other places
    except MissingKeyError as exc:
        raise ConfigError(name, f"a value that {exc.found}", "a key without blanks, as its provider shows it") from exc
    if key is None or len(key) > _LONGEST:
        found = "no value" if key is None else f"a value of {len(key):,} characters"
        raise ConfigError(name, found, f"a key of 1 to {_LONGEST:,} characters")
    line = f"{name}={_quoted(key)}\n"
    if _entries(line).get(name) != key:
        raise ConfigError(name, "a value that no .env file can hold (such as '${')", "a key, or set it as a variable")
    _change(lambda pieces: [*(text for key_name, text in pieces if key_name != name), line])


def remove_value(name: str) -> bool:
    """Take an entry out of the journal's `.env`; whether there was one.

    Raises:
        ConfigError: the file cannot be read or written.
    """
    found: list[str] = []

    def without(pieces: Iterable[tuple[str | None, str]]) -> list[str]:
        rows = list(pieces)
        found.extend(text for key_name, text in rows if key_name == name)
        return [text for key_name, text in rows if key_name != name]

    _change(without)
    return bool(found)


def has_value(name: str) -> bool:
    """Whether the journal's own `.env` says a value for `name`.

    Raises:
        ConfigError: the file cannot be read.
    """
    return bool(_entries(_text()).get(name))


def _quoted(key: str) -> str:
    """A value as a `.env` file spells it; plain where nothing in it means anything there."""
    if re.fullmatch(r"[A-Za-z0-9_.:/+=@-]+", key):
        return key
    return "'" + key.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _change(change: Callable[[Iterable[tuple[str | None, str]]], list[str]]) -> None:
    """Write the file's pieces, each `(name or None, text)`, as `change` would have them; under a lock."""
    file = dotenv_path()
    try:
        atomic_files.make_folder(file.parent)
        with atomic_files.file_lock(file.with_name(".env.lock")):
            before = _text()
            texts = change(_pieces(before))
            after = "".join(text if text.endswith("\n") else text + "\n" for text in texts if text)
            if after != before:
                atomic_files.write_atomic(file, after)
    except OSError as exc:
        found = f"a file that cannot be written ({exc.strerror or type(exc).__name__})"
        raise ConfigError(str(file), found, "a place that you may write to") from exc


def _text() -> str:
    """The file as it stands; empty if there is none."""
    try:
        return dotenv_path().read_bytes().decode("utf-8")
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError as exc:
        raise ConfigError(
            str(dotenv_path()), f"a byte that is not UTF-8 at position {exc.start}", "UTF-8 text"
        ) from exc
    except OSError as exc:
        raise ConfigError(
            str(dotenv_path()), f"an unreadable file ({exc.strerror})", "a file that can be read"
        ) from exc


def _pieces(text: str) -> list[tuple[str | None, str]]:
    return [(binding.key, binding.original.string) for binding in parse_stream(io.StringIO(text))]


def _entries(text: str) -> dict[str, str | None]:
    return dict(dotenv_values(stream=io.StringIO(text)))
