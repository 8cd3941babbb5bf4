"""What commands keep beside a transcript: written whole, found again, failed replies shown; it asks nothing."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from muse.errors import InvalidReply
from muse.journal.storage.atomic_files import write_atomic
from observe.segments.results import SegmentDone

log = logging.getLogger(__name__)

_MOST_REPLY = 20_000


def now() -> str:
    """This moment, local, to the second."""
    return datetime.now().isoformat(sep=" ", timespec="seconds")


def load_json(path: Path) -> dict[str, Any]:
    """The object in a file; an empty one if there is no file, or with a warning none that can be read."""
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as exc:
        log.warning("%s: no JSON (%s); it is made anew", path, exc)
        return {}
    return found if isinstance(found, dict) else {}


def save_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write an object for people and programs, whole or not at all."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def failed_path(path: Path) -> Path:
    """Where a reply is shown that could not be used: `summary.md` -> `summary.failed.json`."""
    return path.with_name(f"{path.stem}.failed.json")


def keep_failed(path: Path, context: str, problem: InvalidReply) -> Path:
    """Keep a reply that fits no schema beside the result it should have become; the next run asks again."""
    shown = failed_path(path)
    save_json(
        shown,
        {
            "failed_at": now(),
            "context": context,
            "provider": problem.provider,
            "model": problem.model,
            "error": str(problem),
            "reply": problem.text[:_MOST_REPLY],
        },
    )
    return shown


def not_usable(segment: str, path: Path, context: str, problem: InvalidReply) -> SegmentDone:
    """Keep a reply that fits no schema; what came of the segment, then."""
    shown = keep_failed(path, context, problem)
    text = f"InvalidReply: {problem} (the reply is in {shown.name}; run it again to ask again)"
    return SegmentDone(segment, "failed", "no reply that fits", f"{segment}/{shown.name}", problems=(text,))


def drop_failed(path: Path) -> None:
    """Remove what an earlier failure left, since the result is there now."""
    failed_path(path).unlink(missing_ok=True)
