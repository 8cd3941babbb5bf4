"""What there is to read of a segment: its transcript and what was seen on the screen; it knows no model."""

from __future__ import annotations

import hashlib
from pathlib import Path

from msgspec import Struct

from observe.screens import frame_store
from observe.segments.segments import Segment, require_inside
from observe.transcripts.parser import TRANSCRIPTS, Utterance, read_transcript, said_line

SCREEN = "screen.jsonl"
SCREEN_SPEAKER = "On the screen"


class Source(Struct, frozen=True):
    """What was said and seen: `files` are where it stands; `passed_over` lines of them could not be read."""

    files: tuple[str, ...]
    utterances: tuple[Utterance, ...]
    passed_over: int = 0

    @property
    def problems(self) -> tuple[str, ...]:
        """What could not be read, as a text."""
        if not self.passed_over:
            return ()
        return (f"{self.files[0]}: lines that cannot be read and are left out: {self.passed_over}",)

    @property
    def mark(self) -> str:
        """A hash of what was said and seen."""
        told = "\n".join(f"{one.start_s} {said_line(one)}" for one in self.utterances)
        return hashlib.sha256(told.encode()).hexdigest()[:24]

    @property
    def speakers(self) -> tuple[str, ...]:
        """Who spoke, in the order in which they began."""
        named = (one.speaker for one in self.utterances if one.speaker not in {"", SCREEN_SPEAKER})
        return tuple(dict.fromkeys(named))


def transcript_of(segment: Segment) -> Path | None:
    """The transcript of a segment: the first of `TRANSCRIPTS` that is there."""
    return next((path for name in TRANSCRIPTS if (path := segment.folder / name).is_file()), None)


def read_source(segment: Segment, *, with_screen: bool) -> Source | None:
    """What there is to read of a segment; None if there are no words in it.

    Raises:
        ContentsError: its transcript is none, or a link that leads out of the journal.
        OSError: a file cannot be read.
    """
    path = transcript_of(segment)
    if path is not None:
        require_inside(path, segment)
    said = _read(path, may_be_silent=True) if path is not None else Source((), ())
    seen = _seen(segment) if with_screen else ()
    files = (*said.files, SCREEN) if seen else said.files
    if not files:
        return None
    together = (*said.utterances, *seen)
    if all(one.start_s is not None for one in together):
        together = tuple(sorted(together, key=lambda one: one.start_s or 0.0))
    return Source(files, together, said.passed_over)


def read_file(path: Path) -> Source:
    """What stands in a file.

    Raises:
        ContentsError: it has no words.
        OSError: it cannot be read.
    """
    return _read(path, may_be_silent=False)


def _read(path: Path, *, may_be_silent: bool) -> Source:
    found = read_transcript(path, may_be_silent=may_be_silent)
    return Source((path.name,), found.utterances, found.passed_over) if found.utterances else Source((), ())


def _seen(segment: Segment) -> tuple[Utterance, ...]:
    lines = frame_store.load(segment).lines if (segment.folder / SCREEN).is_file() else ()
    return tuple(
        Utterance(line.at_s, SCREEN_SPEAKER, " ".join(line.description.split())) for line in lines if line.description
    )
