"""Secrets: where a key is found, and how it is kept out of every text; it knows no provider."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import sys
import threading
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

from muse.journal import config_loader, paths
from muse.journal.config import Config
from muse.journal.trust import consent
from muse.types.errors import ConfigError, MissingKeyError
from muse.types.redaction import names_secret
from muse.types.trust_claim import Claim

log = logging.getLogger(__name__)

_Stamp = tuple[int, int, int]
_files: dict[str, tuple[_Stamp, Mapping[str, str]]] = {}
_used: set[str] = set()
_said: set[str] = set()
_withheld: dict[str, Claim] = {}
_lock = threading.Lock()
if sys.platform != "win32":  # as in muse.journal.config_loader: no child inherits a held lock
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
MASK = "[key]"
_SHORTEST_SECRET = 6
_LONGEST_WORD = 10
_USERINFO = r"(?i)^[a-z][a-z0-9+.-]*://[^/@\s:]*:([^/@\s]+)@"


def find_key(env_key: str, given: str | None = None) -> str | None:
    """The key: `given`, else the environment, else the nearest `.env`, else the journal's `.env`; None if nowhere.

    Read at call time, so that a key saved a moment ago counts. Blanks and newlines around it are cut off.

    Raises:
        MissingKeyError: the value has a blank, newline or control character in the middle (its place is said, not its
        text).
    """
    if given is not None and not isinstance(given, str):
        raise MissingKeyError(env_key or "api_key", problem=f"is {type(given).__name__}, not text")
    value = given or (look_up(env_key) if env_key else None)
    if value is None or not value.strip():
        return None
    key = value.strip()
    if not key.isascii() or any(char <= " " or char == "\x7f" for char in key):
        raise MissingKeyError(env_key or "api_key", problem="holds a blank, newline or other character no key has")
    _used.add(key)
    return key


def require_key(env_key: str, given: str | None = None) -> str:
    """The key, as `find_key` finds it.

    Raises:
        MissingKeyError: there is none.
    """
    key = find_key(env_key, given)
    if key is None:
        raise MissingKeyError(env_key)
    return key


def look_up(name: str) -> str | None:
    """A setting from the environment, else the nearest `.env` upwards, else the journal's `.env`; None if empty.

    A value of blanks counts as empty.
    """
    return _found(name)[0]


def look_up_address(name: str) -> str | None:
    """Look up an address, as `look_up` does: one from a project's `.env` needs the user's consent.

    Raises:
        TrustError: it stands in a `.env` of a project and nobody has consented to it, or it was withheld.
    """
    refuse_withheld(name)
    value, path = _found(name)
    if value and path and _is_project(path):
        consent.require([address_claim(path, name, value)])
    return value


def _found(name: str) -> tuple[str | None, str]:
    """A setting and the `.env` file it comes from, which is empty for the environment."""
    value = os.environ.get(name)
    if value and not value.isspace():
        return value, ""
    for path in _dotenv_files():
        value = _read_dotenv(path).get(name)
        if value and not value.isspace():
            return value, path
    return None, ""


def address_claim(path: str, name: str, value: str) -> Claim:
    """Return the claim of an address in a project's `.env`."""
    does = f"sends keys and texts to the address {name}={value}"
    return Claim(os.path.dirname(path), f"{os.path.basename(path)}: {name}", does, consent.digest_of([name, value]))


def project_addresses(names: Iterable[str]) -> tuple[Claim, ...]:
    """Return the claims of the addresses among `names` that `.env` files of projects give."""
    found = ((name, *_found(name)) for name in names)
    return tuple(
        address_claim(path, name, value) for name, value, path in found if value and path and _is_project(path)
    )


def _is_project(path: str) -> bool:
    """Whether a `.env` file is a project's: it stands neither in `$JOURNAL_PATH` nor in the user's data folder."""
    return os.path.dirname(path) != paths.journal_name() or paths.is_project(paths.config_path())


def key_source(name: str) -> str | None:
    """Where `look_up` finds a setting: "the environment", or the path of a `.env` file; None if nowhere."""
    if os.environ.get(name):
        return "the environment"
    return next((path for path in _dotenv_files() if _read_dotenv(path).get(name)), None)


def fill_from(config: Config) -> None:
    """Fill the environment as `fill_environment`; variables without the user's consent are refused when they are used.

    What is withheld is not set; a call that depends on it is refused by `refuse_withheld`, and one warning names it.
    """
    fill_environment(config.env)
    _withheld.clear()
    _withheld.update({name: claim for name, claim in config.withheld_env.items() if not os.environ.get(name)})
    for claim in _withheld.values():
        _log_once(f"{consent.TrustError(claim)}")


def refuse_withheld(*names: str) -> None:
    """Refuse a call that depends on a variable which journal.json's `env` sets without the user's consent.

    Raises:
        TrustError: one of `names` is such a variable, and the user's environment does not set it.
    """
    for name in names if _withheld else ():
        claim = _withheld.get(name)
        if claim is not None and not os.environ.get(name):
            raise consent.TrustError(claim)


def fill_environment(config_env: Mapping[str, str]) -> None:
    """Put the `env` entries of journal.json into the environment, where a variable is unset or empty.

    An entry that no environment can hold is passed over with a warning that says its name, not its value.
    """
    for name, value in config_env.items():
        if not name or "=" in name or "\0" in name or "\0" in value:
            log.warning("env[%r]: found a name or value no variable can have, expected one without '=' and NUL", name)
        elif value and not os.environ.get(name):
            os.environ[name] = value


def _dotenv_files() -> list[str]:
    """The nearest `.env` from the working folder upwards, then the journal's own."""
    files: list[str] = []
    place, below = paths.working_folder(), ""
    while place != below and not files:
        candidate = os.path.join(place, ".env")
        if os.path.isfile(candidate):
            files.append(candidate)
        place, below = os.path.dirname(place), place
    own = os.path.join(paths.journal_name(), ".env")
    if own not in files and os.path.isfile(own):
        files.append(own)
    return files


def _read_dotenv(path: str) -> Mapping[str, str]:
    """A `.env` file's entries, parsed once per change."""
    from dotenv import dotenv_values  # 7 ms, and only who has a .env file pays it

    try:
        info = os.stat(path)
        stamp = (info.st_ino, info.st_mtime_ns, info.st_size)
        known = _files.get(path)
        if known is not None and known[0] == stamp:
            return known[1]
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError as exc:
        _log_once(f"{path} cannot be read ({exc.strerror}); keys in it do not count")
        return {}
    with _lock:
        entries = {name: value for name, value in dotenv_values(stream=io.StringIO(text)).items() if value}
        _files[path] = (stamp, entries)
        return entries


def _log_once(words: str) -> None:
    if words not in _said:
        _said.add(words)
        log.warning("%s", words)


def redact_exception(exc: BaseException) -> None:
    """Take every key out of what an exception and its causes say, where others quoted one; tracebacks show these."""
    seen: set[int] = set()
    link: BaseException | None = exc
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        link.args = tuple(redact(arg) if isinstance(arg, str) else arg for arg in link.args)
        link = link.__cause__ or link.__context__


def remember(secrets: Iterable[str]) -> None:
    """Have `redact` replace these too: secrets that stand elsewhere, such as in the entry of an MCP server."""
    _used.update(secret for secret in secrets if secret)


def redact(text: str) -> str:
    """`text` with every known key replaced; for what others say: errors, logs, and results of tools.

    Known are keys that were used in this process, those that `remember` was told, and those that stand in the
    environment, in `.env` files and in `env` of journal.json under a name that says so.
    """
    for key in sorted(_known(), key=len, reverse=True):  # a key may begin like a longer one
        if key in text:
            text = text.replace(key, MASK)
    return text


def _known() -> set[str]:
    """Return all known keys, each as it stands and as JSON and addresses write it."""
    found = {key for key in _used if len(key) >= _SHORTEST_SECRET}
    named: list[Mapping[str, str]] = [os.environ]
    try:
        named += [_read_dotenv(path) for path in _dotenv_files()]
        named.append(config_loader.load().config.env)
    except (ConfigError, OSError) as exc:
        log.debug("keys of the journal cannot be read: %s", exc)
    for entries in named:
        found.update(secret for name, value in entries.items() for secret in _secrets_of(name, value))
    odd = {key for key in found if not key.isalnum()}
    return found | {json.dumps(key)[1:-1] for key in odd} | {_in_address(key) for key in odd}


def _in_address(key: str) -> str:
    """Return a key as it stands in the query of an address."""
    return "".join(char if char.isalnum() or char in "_.-~" else f"%{ord(char):02X}" for char in key)


@lru_cache(2_000)
def _secrets_of(name: str, value: str) -> tuple[str, ...]:
    """Return what is secret in a variable: its value, or the password of an address in it."""
    value = value.strip()
    password = re.search(_USERINFO, value)
    if password is not None and len(password[1]) >= _SHORTEST_SECRET:
        return (password[1],)
    is_secret = len(value) >= _SHORTEST_SECRET and names_secret(name) and not _is_plain(value)
    return (value,) if is_secret else ()


def _is_plain(value: str) -> bool:
    """Whether a value is no secret whatever its name says: a number, a path, a word such as `enabled`."""
    is_word = value.isalpha() and value.islower() and len(value) < _LONGEST_WORD
    return is_word or value.replace(".", "").isdigit() or (value.startswith("/") and value.count("/") > 1)
