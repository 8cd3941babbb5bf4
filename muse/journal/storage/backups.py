"""A page that somebody wrote or changed, moved out of the way of a new one; it knows no content."""

from __future__ import annotations

import os
import re
from pathlib import Path

_ASIDE = re.compile(r".+_before_\d+")


def backup(path: Path) -> Path:
    """Rename a page to `<name>_before_<n>`, the first that is free, beside where it was; where it is then."""
    number = 1
    while (aside := path.with_stem(f"{path.stem}_before_{number}")).exists():
        number += 1
    os.rename(path, aside)
    return aside


def is_backup(name: str) -> bool:
    """Whether a page of this name (without its ending) was set aside.

    >>> is_backup("summary_before_2"), is_backup("summary")
    (True, False)
    """
    return _ASIDE.fullmatch(name) is not None
