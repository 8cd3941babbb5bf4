"""A page that somebody wrote or changed, moved out of the way of a new one; it knows no content."""

from __future__ import annotations

import os
import re
from pathlib import Path

_ASIDE = re.compile(r".+_before_\d+")


def set_aside(path: Path) -> Path:
    """Rename a page to `<name>_before_<n>`, the first that is free, beside where it was; where it is then."""
    number = 1
    while (aside := path.with_stem(f"{path.stem}_before_{number}")).exists():
        number += 1
    os.rename(path, aside)
    return aside


def is_aside(name: str) -> bool:
    """Whether a page of this name (without its ending) was set aside.

    >>> is_aside("summary_before_2"), is_aside("summary")
    (True, False)
    """
    return _ASIDE.fullmatch(name) is not None
