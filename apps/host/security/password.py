"""The password of the pages and who may try it how often; it knows no page.

Only the hash is kept (argon2id), in `<journal>/config/password`, mode 0600; the key that signs cookies stands
beside it.
"""

from __future__ import annotations

import logging
import os
import secrets
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from msgspec import Struct

from muse.errors import ConfigError
from muse.journal import paths
from muse.journal.storage import atomic_files

log = logging.getLogger(__name__)

FEWEST_CHARS, MOST_CHARS = 12, 1000
SESSION_S = 14 * 24 * 3600

_HASHER = PasswordHasher()
_ONE_AT_A_TIME = threading.Lock()  # a check takes 64 MB and tens of milliseconds on purpose
_FREE_TRIES, _FREE_TRIES_OF_ALL = 4, 30
_LONGEST_WAIT_S, _LONGEST_WAIT_OF_ALL_S = 900.0, 60.0
_FORGOTTEN_AFTER_S = 3600.0
_KEPT_ADDRESSES = 1000
_KEPT_SIGN_INS = 100


def password_path() -> Path:
    """Where the hash is kept."""
    return paths.journal_path() / "config" / "password"


def set_password(password: str) -> Path:
    """Keep the hash of a new password; where it is kept.

    Raises:
        ConfigError: the password is too short, too long or no text, or the file cannot be written.
    """
    if not FEWEST_CHARS <= len(password) <= MOST_CHARS:
        raise ConfigError(
            "password", f"{len(password)} characters", f"{FEWEST_CHARS} or more characters, such as four words"
        )
    path = password_path()
    try:
        atomic_files.make_folder(path.parent)
        atomic_files.write_atomic(path, _HASHER.hash(password) + "\n")
    except UnicodeEncodeError as exc:
        raise ConfigError("password", "bytes that are no text", "text, sent as UTF-8") from exc
    except OSError as exc:
        raise ConfigError(str(path), f"a file that cannot be written ({exc.strerror})", "a place to write to") from exc
    return path


def kept_hash() -> str:
    """The hash that is kept now; empty if no password is set.

    Raises:
        ConfigError: the file cannot be read, or may be a stranger's.
    """
    path = password_path()
    try:
        if not _is_own(path):
            found = "a file that may have come with the project: others may read it"
            raise ConfigError(str(path), found, "one of mode 0600, made by muse serve --set-password")
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(str(path), f"an unreadable file ({exc})", "the hash of a password") from exc


def _is_own(path: Path) -> bool:
    """Whether a secret is the user's own: one in a project's journal, which may have been cloned, has mode 0600.

    Raises:
        OSError: the file is not to be had.
    """
    if os.name != "posix" or not paths.is_project(paths.config_path()):
        return True
    info = path.lstat()
    return stat.S_ISREG(info.st_mode) and not stat.S_IMODE(info.st_mode) & 0o077 and info.st_uid == os.geteuid()


def is_right(password: str) -> bool:
    """Whether this is the password; False too while none is set. Takes its time, and one check at a time."""
    kept = kept_hash()
    if not kept or len(password) > MOST_CHARS:
        return False
    with _ONE_AT_A_TIME:
        try:
            return _HASHER.verify(kept, password)
        except VerificationError:
            return False
        except InvalidHashError as exc:
            raise ConfigError(str(password_path()), "no argon2 hash", "one made by muse serve --set-password") from exc


def session_key() -> str:
    """The key that signs cookies, made at first use; one for this process alone where it cannot be kept."""
    path = paths.journal_path() / "config" / "session.key"
    try:
        atomic_files.make_folder(path.parent)
        with atomic_files.file_lock(path.with_name("session.key.lock")):
            kept = path.read_text(encoding="utf-8").strip() if path.exists() and _is_own(path) else ""
            if len(kept) < 32:
                kept = secrets.token_urlsafe(48)
                atomic_files.write_atomic(path, kept + "\n")
            return kept
    except (OSError, UnicodeDecodeError) as exc:
        log.warning("%s: %s; open pages must be loaded again after a restart", path, exc)
        return secrets.token_urlsafe(48)


class _Failures(Struct):
    """How often somebody failed in a row, when last, and until when the next try must wait."""

    count: int = 0
    last_s: float = 0.0
    until_s: float = 0.0


class Tries:
    """Failed tries, by address and of all together: each further one doubles the time until the next.

    It is kept in memory: a restart forgets it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._all = _Failures()
        self._by_address: OrderedDict[str, _Failures] = OrderedDict()
        self._lock = threading.Lock()

    def begin(self, address: str) -> float:
        """Begin a try: 0, or for how long this address must wait; "" is nobody's own, and only the tally of all counts.

        A try counts as failed until it has passed, so that many at once are no way around the wait.
        """
        with self._lock:
            wait_s = self._wait_s(address)
            if wait_s <= 0:
                if address:
                    self._note(self._of(address), _FREE_TRIES, _LONGEST_WAIT_S)
                self._note(self._all, _FREE_TRIES_OF_ALL, _LONGEST_WAIT_OF_ALL_S)
            return wait_s

    def _of(self, address: str) -> _Failures:
        """The failures of an address; those of the one that tried longest ago are forgotten for it."""
        found = self._by_address.setdefault(address, _Failures())
        self._by_address.move_to_end(address)
        if len(self._by_address) > _KEPT_ADDRESSES:
            self._by_address.popitem(last=False)
        return found

    def _wait_s(self, address: str) -> float:
        until_s = max(self._all.until_s, self._by_address.get(address, _Failures()).until_s)
        return max(0.0, until_s - self._clock())

    def _note(self, failures: _Failures, free: int, longest_s: float) -> None:
        now = self._clock()
        if now - failures.last_s > _FORGOTTEN_AFTER_S:
            failures.count = 0
        failures.count += 1
        failures.last_s = now
        if failures.count > free:
            failures.until_s = now + min(2.0 ** min(failures.count - free, 20), longest_s)

    def passed(self, address: str) -> None:
        """Forget the failures of an address that has signed in, and that this try counted for all."""
        with self._lock:
            self._by_address.pop(address, None)
            self._all.count = max(0, self._all.count - 1)


class SignIns:
    """Who is signed in: random names with an end, in memory, so that signing out ends a session for good."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until_s: OrderedDict[str, tuple[float, str]] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, kept: str) -> str:
        """The name of a new session; it ends when the password's hash is no longer `kept`."""
        name = secrets.token_urlsafe(32)
        with self._lock:
            self._until_s[name] = (self._clock() + SESSION_S, kept)
            if len(self._until_s) > _KEPT_SIGN_INS:
                self._until_s.popitem(last=False)
        return name

    def holds(self, name: object, kept: str) -> bool:
        """Whether a session is open under the password whose hash is `kept`."""
        with self._lock:
            until_s, made_under = self._until_s.get(name, (0.0, "")) if isinstance(name, str) else (0.0, "")
        return bool(kept) and made_under == kept and self._clock() < until_s

    def end(self, name: object) -> None:
        """End a session."""
        with self._lock:
            if isinstance(name, str):
                self._until_s.pop(name, None)
