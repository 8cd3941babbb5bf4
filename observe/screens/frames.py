"""The frames of a segment that changed, in order of time, ready to be sent; it knows no model and writes nothing."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec import Struct
from PIL import Image as Pictures

from muse.errors import ContentsError
from muse.types.messages import Image
from observe.screens.images import CHANGED_SHARE, changed_share, clock_of, encoded, is_blank, opened, sketch
from observe.screens.video import LOSSY, STILLS, VIDEOS, frames_of
from observe.segments.segments import Segment, require_inside

MOST_FRAMES = 300
WANTED = ("*.png", *(f"*{suffix}" for suffix in sorted((STILLS | VIDEOS) - {".png"})))
_NUMBER = re.compile(r"(\d+)")


def _ignore(_done: int, _of: int) -> None:
    """Hear of a file and do nothing."""


class Frame(Struct, frozen=True):
    """A frame to be described.

    `at_s` counts from the start of the segment (None: the file does not say), `offset_s` from that of the recording it
    is from (None: a still picture). `share` is how much changed since the frame before, `mark` a hash of its pixels.
    """

    file: str
    at_s: float | None
    offset_s: float | None
    share: float
    picture: Image
    mark: str


class Trouble(Struct, frozen=True):
    """A file that cannot be read, or not to its end."""

    file: str
    error: str


class Looked(Struct, frozen=True):
    """What a look at a segment gave: the frames that changed, how many were like the one before or blank."""

    frames: tuple[Frame, ...]
    unchanged: int
    blank: int
    troubles: tuple[Trouble, ...]


class _TooManyError(ContentsError):
    """A segment has more frames than are looked at."""


class _Look:
    """One pass over a segment; it remembers the last frame that counted."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.unchanged = self.blank = 0
        self.troubles: list[Trouble] = []
        self._last: Pictures.Image | None = None

    def add(self, path: Path, start_s: float | None, offset_s: float | None, image: Pictures.Image) -> None:
        """Take a frame in if it shows something new."""
        if is_blank(image):
            self.blank += 1
            return
        now = sketch(image)
        share = changed_share(self._last, now) if self._last is not None else 1.0
        if share < CHANGED_SHARE:
            self.unchanged += 1
            return
        if len(self.frames) >= MOST_FRAMES:
            raise _TooManyError(
                f"{path.name}: found more than {MOST_FRAMES} frames that changed, expected no more in one segment"
            )
        self._last = now
        mark = hashlib.sha256(b"%d %d " % image.size + image.tobytes()).hexdigest()[:32]
        at_s = None if start_s is None else round(start_s + (offset_s or 0.0), 3)
        picture = encoded(image, lossy=path.suffix.lower() in LOSSY)
        place_s = None if offset_s is None else round(offset_s, 3)
        self.frames.append(Frame(path.name, at_s, place_s, round(share, 4), picture, mark))


def picture_files(segment: Segment) -> list[Path]:
    """The pictures and recordings of a segment in order of time: of their names where all say it, else by number."""
    suffixes = STILLS | VIDEOS
    found = [
        path
        for path in segment.folder.iterdir()
        if path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file()
    ]
    clocks = {path: clock_of(path) for path in found}
    if any(clock is None for clock in clocks.values()):
        return sorted(found, key=_natural)
    return sorted(found, key=lambda path: (clocks[path] or 0, _natural(path)))


def inputs_of(segment: Segment) -> dict[str, str]:
    """The SHA-256 of each picture file by its name, by which a later run knows that nothing has changed."""
    return {path.name: _hash(path) for path in picture_files(segment)}


def changed_frames(segment: Segment, on_file: Callable[[int, int], None] = _ignore) -> Looked:
    """Look through a segment's pictures; a file that cannot be read is a trouble, the others are looked at.

    `on_file` hears of each file: how many are done, of how many.
    """
    look = _Look()
    paths = picture_files(segment)
    for number, path in enumerate(paths):
        on_file(number, len(paths))
        try:
            require_inside(path, segment)
            start_s = _start(path, segment)
            for offset_s, image in frames_of(path):
                look.add(path, start_s, offset_s, image)
        except _TooManyError as exc:
            rest = f"{len(paths) - number - 1} further files are not looked at. Move them into a segment of their own"
            look.troubles.append(Trouble(path.name, f"{exc}: {rest}"))
            break
        except ContentsError as exc:
            look.troubles.append(Trouble(path.name, str(exc)))
    return Looked(tuple(look.frames), look.unchanged, look.blank, tuple(look.troubles))


def _start(path: Path, segment: Segment) -> float | None:
    """When a file begins, in seconds from the start of the segment; None if it does not say, or says another time."""
    clock = clock_of(path)
    if clock is None and path.suffix.lower() in STILLS:
        with opened(path) as image:
            clock = clock_of(path, image)
    if clock is None:
        return None
    since_s = (clock - segment.start_s) % 86_400
    return float(since_s) if since_s <= segment.length_s else None


def _natural(path: Path) -> list[tuple[int, str]]:
    """Numbers in a name by their value: screen_10 comes after screen_9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in _parts(path.name)]


def _parts(name: str) -> Iterator[str]:
    return (part for part in _NUMBER.split(name) if part)


def _hash(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as exc:
        return f"unreadable: {exc.strerror}"
