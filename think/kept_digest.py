"""What is kept of a day's insight, for people and for the next run; it asks nothing."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

import msgspec
from msgspec import Struct

from muse import journal
from muse.journal import write_atomic
from think.digest import Digest

log = logging.getLogger(__name__)


class Kept(Struct, omit_defaults=True):
    """The state of a day's insight; `answers` are those of models by question, `page` is the SHA-256 of the page."""

    day: str
    made_at: str = ""
    made_by: str = ""
    page: str = ""
    digest: Digest | None = None
    answers: dict[str, str] = msgspec.field(default_factory=dict)


class Shelf:
    """The two files of one day."""

    def __init__(self, day: str) -> None:
        self.day = day
        folder = journal.folder() / day / "insights"
        self.page_path = folder / "daily.md"
        self.state_path = folder / "daily.json"

    def load(self) -> Kept:
        """What an earlier run left; nothing, with a warning, if its file cannot be used."""
        try:
            return msgspec.json.decode(self.state_path.read_bytes(), type=Kept)
        except FileNotFoundError:
            pass
        except msgspec.MsgspecError as exc:
            log.warning("%s: %s; it is made anew", self.state_path, exc)
        return Kept(self.day)

    def save(self, kept: Kept) -> None:
        """Write the state, whole or not at all."""
        self.state_path.parent.mkdir(exist_ok=True)
        write_atomic(self.state_path, msgspec.json.format(msgspec.json.encode(kept), indent=2).decode() + "\n")

    def has_page(self, kept: Kept) -> bool:
        """Whether the page on disk is the one that `kept` is about."""
        return bool(kept.page) and self._page_hash() == kept.page

    def put_page(self, kept: Kept, page: str) -> Path | None:
        """Write the page and note it in `kept`; where a page that we did not make is set aside, if there was one."""
        aside = None if self.has_page(kept) or not self.page_path.exists() else self._set_aside()
        write_atomic(self.page_path, page)
        kept.page = _hash(page.encode())
        return aside

    def _page_hash(self) -> str:
        try:
            return _hash(self.page_path.read_bytes())
        except FileNotFoundError:
            return ""

    def _set_aside(self) -> Path:
        """Move the page out of the way: somebody wrote or changed it, and it is theirs."""
        number = 1
        while (aside := self.page_path.with_name(f"daily_before_{number}.md")).exists():
            number += 1
        os.rename(self.page_path, aside)
        return aside


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
