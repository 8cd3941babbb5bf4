"""Write files whole or not at all, follow no link while doing so, and lock them between processes."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

_TRIES = 8
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
# Linux only: a file without a name, which is gone with the process that writes it.
_UNNAMED = getattr(os, "O_TMPFILE", 0)
# What opening one says where the kernel (EISDIR, EINVAL) or the file system (EOPNOTSUPP) knows no such files.
_NO_UNNAMED = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL)


def home_folder() -> str:
    """Return the user's home folder; the root where none is known: never a place relative to the working folder."""
    home = os.path.expanduser("~")
    return home if os.path.isabs(home) else os.path.abspath(os.sep)


def write_atomic(path: Path, text: str) -> None:
    """Write a file of mode 0600 whole or not at all: a temporary file beside it, synced, then renamed over it.

    The temporary name cannot be guessed and is created anew, so that a link laid in its place is not followed. Where
    the system can, the file gets that name only when it is complete, so that a killed writer leaves nothing behind.
    Where `path` itself is a link, the link is replaced; the file it names stays as it is.

    Raises:
        OSError: the folder is missing or cannot be written.
    """
    content = text.encode("utf-8")
    handle = _open_unnamed(path.parent)
    temporary = None
    if handle is None:
        handle, temporary = _create_beside(path)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            if temporary is None:
                temporary = _name_beside(path, file.fileno())
        os.replace(temporary, path)
    except OSError:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        raise


def _open_unnamed(folder: Path) -> int | None:
    """Open a file of mode 0600 without a name in `folder`; None where the system or its file system has none."""
    if not _UNNAMED or not os.path.isdir("/proc/self/fd"):
        return None
    try:
        return os.open(folder, os.O_WRONLY | _UNNAMED | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        if exc.errno in _NO_UNNAMED:
            return None
        raise


def _name_beside(target: Path, handle: int) -> Path:
    """Give the unnamed file of `handle` a random name beside `target`; its path."""
    for _ in range(_TRIES):
        temporary = _random_name(target)
        with contextlib.suppress(FileExistsError):
            # With a folder's handle os.link calls linkat(2), which follows the link in /proc to the file itself.
            os.link(f"/proc/self/fd/{handle}", temporary, src_dir_fd=handle, follow_symlinks=True)
            return temporary
    raise FileExistsError(f"{target.parent}: no free name for a temporary file in {_TRIES} tries")


def _random_name(target: Path) -> Path:
    return target.with_name(f".{target.name}.{os.urandom(8).hex()}.tmp")


def _create_beside(target: Path) -> tuple[int, Path]:
    """Create a file of mode 0600 beside `target` under a random name; its handle and its path."""
    for _ in range(_TRIES):
        temporary = _random_name(target)
        with contextlib.suppress(FileExistsError):
            return os.open(temporary, _NEW, 0o600), temporary
    raise FileExistsError(f"{target.parent}: no free name for a temporary file in {_TRIES} tries")


def make_folder(path: str | os.PathLike[str]) -> None:
    """Make a folder and what is missing above it, all with mode 0700; one that is there stays as it is.

    Raises:
        OSError: it cannot be made, or there is a file of its name.
    """
    place = Path(path)
    if place.is_dir():
        return
    if place.parent != place:
        make_folder(place.parent)
    place.mkdir(mode=0o700, exist_ok=True)


@contextlib.contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock between processes; the system frees it when its holder dies. A link is not followed.

    Raises:
        OSError: the file cannot be opened, or is a link.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
    try:
        _lock_file(handle)
        yield
    finally:
        os.close(handle)


try:
    import fcntl
except ImportError:  # Windows
    import msvcrt

    def _lock_file(handle: int) -> None:
        msvcrt.locking(handle, msvcrt.LK_LOCK, 1)  # type: ignore[attr-defined]
else:

    def _lock_file(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX)
