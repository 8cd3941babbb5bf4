"""The entry points of installed packages, found although one package's list of them cannot be read."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

log = logging.getLogger(__name__)


def find_entry_points(group: str) -> list[EntryPoint]:
    """Return the entry points of a group; a package whose list of them cannot be read costs itself alone."""
    from importlib import metadata  # 15 ms, and only who looks for packages pays it

    try:
        return list(metadata.entry_points(group=group))
    except Exception as exc:  # noqa: BLE001 - one malformed line anywhere fails the whole look-up
        log.warning("a package's list of entry points cannot be read (%s); it is passed over", exc)
    found: list[EntryPoint] = []
    for package in metadata.distributions():
        with suppress(Exception):  # said above
            found += package.entry_points.select(group=group)
    return found
