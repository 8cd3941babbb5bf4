"""The page and the state of one insight of a day, in its folder; it knows no content and asks nothing."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Generic, TypeVar

import msgspec
from msgspec import Struct

from muse.journal import paths
from muse.journal.storage.atomic_files import make_folder, write_atomic
from think.output.protected_file import PageFile

log = logging.getLogger(__name__)


class Kept(Struct, kw_only=True):
    """What the state of every insight has: `answers` of models by question, `page` as the SHA-256 of the page."""

    day: str
    made_at: str = ""
    made_by: str = ""
    page: str = ""
    answers: dict[str, str] = msgspec.field(default_factory=dict)


K = TypeVar("K", bound=Kept)


class Shelf(Generic[K]):
    """Where an insight of a day stands: `<name>.md`, and `<name>.json` with its state; `fresh` is the one of none."""

    def __init__(self, day: str, name: str, fresh: K) -> None:
        folder = paths.journal_path() / day / "insights"
        self.day = day
        self.name = name
        self.page_path = folder / f"{name}.md"
        self.state_path = folder / f"{name}.json"
        self._fresh = fresh

    def load(self) -> K:
        """What an earlier run left; nothing, with a warning, if its file cannot be used."""
        try:
            return msgspec.json.decode(self.state_path.read_bytes(), type=type(self._fresh))
        except FileNotFoundError:
            pass
        except msgspec.MsgspecError as exc:
            log.warning("%s: %s; it is made anew", self.state_path, exc)
        return self._fresh

    def save(self, kept: K) -> None:
        """Write the state, whole or not at all."""
        write_json(self.state_path, kept)

    def keep_answers(self, kept: K, answers: Mapping[str, str]) -> None:
        """Write the answers that came so far, so that a run that is broken off loses none."""
        kept.answers = dict(answers)
        self.save(kept)

    def has_page(self, kept: K) -> bool:
        """Whether the page on disk is the one that `kept` is about."""
        return PageFile(self.page_path).is_same(kept.page)

    def put_page(self, kept: K, page: str) -> Path | None:
        """Write the page and note it in `kept`; where a page that we did not make is set aside, if there was one.

        Another process may have made the page since `kept` was loaded: then the state on the disk knows it.
        """
        make_folder(self.page_path.parent)
        kept.page, aside = PageFile(self.page_path).put(page, {kept.page, self.load().page})
        return aside


def write_json(path: Path, value: Struct) -> None:
    """Write a value where people may read it, whole or not at all."""
    make_folder(path.parent)
    write_atomic(path, msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")
