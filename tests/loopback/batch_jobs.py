"""A batch job on the loopback server: its requests, how it ends, what comes of each; it does not know any wire form."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from tests.loopback.events import Json

Ending = Literal["done", "failed", "expired"]
Fault = Literal["error_500", "error_429", "error_400", "lost", "unanswered"]
"""What a step may meet: an error; `lost` closes before acting, `unanswered` acts and closes without an answer."""


@dataclass(frozen=True)
class Script:
    """How one job goes.

    Attributes:
        polls: how many looks find it running before it is over.
        ending: how it ends if nobody cancels it.
        fates: by place, the scenario that answers a request, or `expired`, `cancelled`, `missing`, `broken`.
        submit_faults: what the first tries at making it meet.
        poll_faults: what the first looks meet.
        fetch_faults: what the first downloads of its results meet.
        mends: whether a broken line is whole from the second download on.
        done_at_cancel: how many requests are done when it is cancelled.
        refused_line: the line (from 1) that a failed job is refused for.
    """

    polls: int = 1
    ending: Ending = "done"
    fates: Mapping[int, str] = field(default_factory=dict)
    submit_faults: tuple[Fault, ...] = ()
    poll_faults: tuple[Fault, ...] = ()
    fetch_faults: tuple[Fault, ...] = ()
    falls_back: bool = False
    done_at_cancel: int = 0
    refused_line: int | None = None


@dataclass
class Job:
    """One job as it stands."""

    name: str
    mark: str
    requests: list[tuple[str, Json]]
    script: Script
    model: str = ""
    input_file: str = ""
    created_ts: float = field(default_factory=time.time)
    looks: int = 0
    fetches: int = 0
    is_cancelled: bool = False

    @property
    def is_over(self) -> bool:
        """Whether nothing more happens to it."""
        return self.looks > self.script.polls or self.is_cancelled

    @property
    def ending(self) -> str:
        """How it ended; cancelled counts before its script."""
        return "cancelled" if self.is_cancelled else self.script.ending

    def fate(self, place: int) -> str:
        """What came of the request at `place`."""
        if self.is_cancelled and place >= self.script.done_at_cancel:
            return "cancelled"
        return self.script.fates.get(place, "text")
