"""What is kept of the built-in topic of a day, for people and for the next run; it asks nothing."""

from __future__ import annotations

from think.daily_summary.build import BUILT_IN, Digest
from think.output.store import Kept, Shelf


class KeptDigest(Kept, omit_defaults=True, kw_only=True):
    """The state of a day's digest."""

    digest: Digest | None = None


def digest_shelf(day: str) -> Shelf[KeptDigest]:
    """Where it stands."""
    return Shelf(day, BUILT_IN, KeptDigest(day=day))
