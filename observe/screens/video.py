"""Screen recordings as single frames, one at a time: animated WebP, GIF and PNG, and video; it knows no journal."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image as Pictures

from muse.errors import ContentsError
from observe.screens.images import opened, require_size, small

STILLS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
VIDEOS = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi"})
LOSSY = frozenset({".jpg", ".jpeg"}) | VIDEOS
EVERY_S = 2.0
"""Time between two frames that are looked at; what stands on a screen for less is nobody's reading."""
MOST_DECODED = 6_000
LONGEST_S = 4 * 3600
_SHORTEST_S = 0.02


def frames_of(path: Path) -> Iterator[tuple[float | None, Pictures.Image]]:
    """The frames of a picture or recording, made small: `(seconds from its start, frame)`, None for a still picture.

    The pages of a TIFF are stills, too. At most one frame is held. What can be read of a broken recording comes before
    the error.

    Raises:
        ContentsError: it cannot be read, or not to its end; the text names the file and says what to do.
    """
    return _video(path) if path.suffix.lower() in VIDEOS else _pictures(path)


def _pictures(path: Path) -> Iterator[tuple[float | None, Pictures.Image]]:
    with opened(path) as image:
        if not _is_animated(image):
            yield None, small(image)
            return
        at_s, due_s, number = 0.0, 0.0, 0
        is_paged = image.format == "TIFF"
        while True:
            frame = small(image) if is_paged or at_s >= due_s else None
            lasts_s = float(image.info.get("duration") or 0) / 1000
            if frame is not None:
                yield None if is_paged else at_s, frame
                due_s = at_s + EVERY_S
            at_s = round(at_s + max(lasts_s, _SHORTEST_S), 3)
            number += 1
            _require_bound(path, number, at_s)
            if not _turn_to(image, number):
                return
            image.load()


def _is_animated(image: Pictures.Image) -> bool:
    if not _turn_to(image, 1):
        return False
    image.seek(0)
    return True


def _turn_to(image: Pictures.Image, number: int) -> bool:
    """Go on to a frame or page, counted from 0; whether it has one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Pillow's words about metadata that is cut off
        try:
            image.seek(number)
        except EOFError:
            return False
    return True


def _require_bound(path: Path, decoded: int, at_s: float) -> None:
    if decoded > MOST_DECODED or at_s > LONGEST_S:
        found = f"more than {MOST_DECODED:,} frames or {LONGEST_S // 3600} hours"
        raise ContentsError(f"{path.name}: found {found}, expected less: the rest is not looked at. Cut it into pieces")


def _video(path: Path) -> Iterator[tuple[float | None, Pictures.Image]]:
    with _decoder(path) as (container, stream):
        stream.thread_type = "AUTO"
        due_s = 0.0
        for frame in container.decode(stream):
            at_s = float(frame.time or 0.0)
            if at_s > LONGEST_S:
                _require_bound(path, 0, at_s)
            if at_s >= due_s:
                require_size(path.name, frame.width, frame.height)
                yield at_s, small(frame.to_image())
                due_s = at_s + EVERY_S


@contextmanager
def _decoder(path: Path) -> Iterator[tuple[Any, Any]]:
    """A video's container and its first picture stream.

    Raises:
        ContentsError: PyAV is not installed, or the file cannot be read.
    """
    try:
        import av
    except ImportError as exc:
        raise ContentsError(
            f"{path.name}: found no PyAV, expected it for video: pip install 'muse-router[video]'"
        ) from exc
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ContentsError(f"{path.name}: found no picture in it, expected a video")
            yield container, container.streams.video[0]
    except av.FFmpegError as exc:
        said = exc.strerror or type(exc).__name__
        raise ContentsError(f"{path.name}: found no whole video ({said}), expected one that can be played") from exc
