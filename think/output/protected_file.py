"""A page that is written by a program and may be changed by a person, who never loses theirs; it knows no content."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path

from muse.journal.storage.atomic_files import write_atomic
from muse.journal.storage.backups import backup


class PageFile:
    """The page at `path`; who wrote it last is told by its SHA-256."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def is_same(self, known: str) -> bool:
        """Whether the page on disk is the one of that hash."""
        return bool(known) and self._hash() == known

    def put(self, page: str, known: Collection[str]) -> tuple[str, Path | None]:
        """Write the page; `(its hash, where the page that was there is now)`, None if its hash is `known` or the same.

        The same, for a run that was killed may have written it and not noted that.
        """
        own = _hash_of(page.encode())
        is_ours = not self.path.exists() or self._hash() in {own, *known}
        aside = None if is_ours else backup(self.path)
        write_atomic(self.path, page)
        return own, aside

    def _hash(self) -> str:
        try:
            return _hash_of(self.path.read_bytes())
        except FileNotFoundError:
            return ""


def _hash_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
