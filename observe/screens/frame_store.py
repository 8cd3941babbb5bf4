"""The files in which a segment's frames are kept: screen.jsonl, a line each, and screen.json about them all."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from muse.journal import paths
from muse.journal.storage.atomic_files import write_atomic
from muse.journal.storage.path_containment import inside
from observe.segments.segments import Segment

log = logging.getLogger(__name__)

_NO_JSON = (msgspec.MsgspecError, UnicodeDecodeError)


class Line(Struct, frozen=True, omit_defaults=True):
    """A frame that changed, and what was read off it; or a file that cannot be read (no `key`, `error` says why).

    `at_s` counts from the start of the segment, `offset_s` from that of a recording. `extracted` is Markdown or, where
    the category's output is JSON, an object. `key` and `extract_key` are hashes of what the answers depend on.
    """

    file: str
    at_s: float | None
    category: str = ""
    why: str = ""
    description: str = ""
    offset_s: float | None = None
    share: float = 0.0
    selected: bool = False
    selected_why: str = ""
    output: str = ""
    extracted: Any = None
    provider: str = ""
    model: str = ""
    extract_provider: str = ""
    extract_model: str = ""
    key: str = ""
    extract_key: str = ""
    error: str = ""
    said: str = ""

    @property
    def is_asked(self) -> bool:
        """Whether it is a frame, and no unreadable file."""
        return bool(self.key)


class State(Struct, frozen=True, omit_defaults=True):
    """What a segment's lines were made of, and how: `inputs` are hashes by file, `prompts` one of what was asked.

    `failed` counts the lines that are asked again.
    """

    made_at: str = ""
    inputs: dict[str, str] = {}
    prompts: str = ""
    frames: int = 0
    unchanged: int = 0
    blank: int = 0
    selected: int = 0
    unreadable: int = 0
    failed: int = 0
    cost_usd: float | None = 0.0
    problems: tuple[str, ...] = ()


class Kept(Struct, frozen=True):
    """What an earlier run left."""

    state: State
    lines: tuple[Line, ...]


def paths_of(segment: Segment) -> tuple[Path, Path]:
    """Where the lines and the state are."""
    return segment.folder / "screen.jsonl", segment.folder / "screen.json"


def load(segment: Segment) -> Kept:
    """What is kept of a segment; nothing of a file that is not there, and a line that cannot be read is passed over."""
    lines_path, state_path = paths_of(segment)
    lines: list[Line] = []
    bad = 0
    for row in _content(lines_path).splitlines():
        try:
            lines.append(msgspec.json.decode(row, type=Line))
        except _NO_JSON:
            bad += bool(row.strip())
    try:
        state = msgspec.json.decode(_content(state_path) or b"{}", type=State)
    except _NO_JSON as exc:
        log.warning("%s: %s; the segment is looked at anew", state_path, exc)
        state = State()
    if bad:
        log.warning("%s: lines that cannot be read: %d; their frames are asked for again", lines_path, bad)
        state = State()
    return Kept(state, tuple(lines))


def save(segment: Segment, state: State, lines: tuple[Line, ...]) -> None:
    """Write both, each whole or not at all; the state last, so that it never speaks of lines that are not there."""
    lines_path, state_path = paths_of(segment)
    write_atomic(lines_path, "".join(f"{_text(line)}\n" for line in lines))
    write_atomic(state_path, msgspec.json.format(_text(state), indent=2) + "\n")


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _content(path: Path) -> bytes:
    if not any(inside([path], paths.journal_path())):
        return b""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
