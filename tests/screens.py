"""Draws screens for tests, and lays a segment of a day out; it knows no test."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

DAY = "20261103"
SEGMENT = "140000_600"
SIZE = (640, 400)


def screen(number: int, *, clock: str = "14:00", size: tuple[int, int] = SIZE) -> Image.Image:
    """A screen with a clock in its upper corner and a window that is another one for each number."""
    image = Image.new("RGB", size, "#f4f4f4")
    draw = ImageDraw.Draw(image)
    draw.text((size[0] - 60, 4), clock, fill="#202020")
    left = 20 + 37 * (number % 9)
    draw.rectangle((left, 60, left + 220, 120 + 30 * (number % 7)), fill=f"#{(number * 53) % 200 + 20:02x}4060")
    draw.rectangle((40, 330, 60 + 50 * (number % 10), 350), fill="#203040")
    return image


def segment(journal: Path, *, day: str = DAY, name: str = SEGMENT) -> Path:
    """The folder of a segment, made if it is missing."""
    folder = journal / day / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def put_screens(folder: Path, numbers: Sequence[int]) -> None:
    """Save a screenshot for each number."""
    for place, number in enumerate(numbers, start=1):
        screen(number).save(folder / f"screen_{place}.png")


def put_transcript(folder: Path, *said: tuple[float, str, str]) -> None:
    """Write transcript.jsonl."""
    rows = (json.dumps({"start_s": at, "speaker": who, "text": text}) for at, who, text in said)
    (folder / "transcript.jsonl").write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")


def lines(folder: Path) -> list[dict[str, Any]]:
    """The lines of a segment's screen.jsonl."""
    return [json.loads(row) for row in (folder / "screen.jsonl").read_bytes().splitlines()]
