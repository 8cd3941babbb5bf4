"""Tells when files appear in a folder; it knows nothing of what they are.

By watchdog: its threads sleep in the kernel until a file is created, renamed or closed, and the lines that running
agents add to their logs do not wake them. (watchfiles looks 20 times a second, and wakes for each added line.)
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from watchdog.events import (
    DirDeletedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer

from muse.journal.storage.atomic_files import make_folder
from muse.types.errors import MuseError

_HEARD = [FileCreatedEvent, FileMovedEvent, FileClosedEvent, DirDeletedEvent]
# What watchdog says, as an error, when a file appears while its watch is being taken down; nothing is wrong then.
_TAKEN_DOWN = "called when the thread is inactive"
logging.getLogger("watchdog.observers.inotify").addFilter(lambda record: _TAKEN_DOWN not in record.getMessage())


class _Names(FileSystemEventHandler):
    """Passes on the names under which files appeared."""

    def __init__(self, on_name: Callable[[str], None]) -> None:
        self._on_name = on_name

    def on_any_event(self, event: FileSystemEvent) -> None:
        """A file was created, renamed or closed after writing, or the folder was deleted."""
        path = event.dest_path if isinstance(event, FileMovedEvent) else event.src_path
        self._on_name(Path(str(path)).name)


@contextmanager
def watching(folder: Path, on_name: Callable[[str], None]) -> Iterator[None]:
    """Call `on_name` (in a thread of the watch) with the name of each file that appears in `folder`.

    With the folder's own name it is told that the folder is gone; then nothing more is heard.

    Raises:
        MuseError: the system gives out no more watches.
    """
    make_folder(folder)
    observer = Observer()
    observer.schedule(_Names(on_name), str(folder), event_filter=_HEARD)
    try:
        observer.start()
    except OSError as exc:
        raise MuseError(
            f"{folder}: cannot be watched ({exc}); on Linux raise fs.inotify.max_user_watches and max_user_instances"
        ) from exc
    try:
        yield
    finally:
        observer.stop()
        observer.join()
