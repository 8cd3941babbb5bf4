"""The overnight lane over the loopback batch services, as tests use it; it knows no test."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pytest

from muse.batching.provider_batches.service import PollSchedule
from muse.batching.provider_batches.submitter import Item, ProviderBatchSubmitter
from muse.errors import MuseError
from muse.providers._backend.attempt import CallMetadata
from muse.types.content import build_request
from muse.types.messages import Reply, Route
from muse.types.provider_spec import Tier
from tests.journal_folder import JournalFolder
from tests.loopback.batches import BatchLoopback
from tests.provider_cases import FAMILY, Case

QUICK = PollSchedule(first_s=0.01, growth=1.5, most_s=0.05, settle_s=0.1, cancel_wait_s=5.0)
CONTEXT = "app.tides.turn"
Outcomes = dict[str, Reply | MuseError]


def items_for(case: Case, count: int, *, first: int = 0) -> list[Item]:
    """Requests `0`, `1`, ... for a provider."""
    route = Route(CONTEXT, case.name, case.model, Tier.FLASH, "a test")
    numbers = range(first, first + count)
    asked = ((f"{case.name}-{number}", build_request(f"Question {number}?", case.model, {})) for number in numbers)
    return [Item(key, request, CallMetadata(CONTEXT, route, "20261120")) for key, request in asked]


class Night:
    """A journal, a batch server, and the overnight lane between them."""

    def __init__(self, server: BatchLoopback, journal: JournalFolder) -> None:
        self.server = server
        self.journal = journal
        self.path = journal.path / "batch.sqlite"

    def lane(self, *, rhythm: PollSchedule = QUICK, upload_bytes: int = 1_000_000) -> ProviderBatchSubmitter:
        """A lane on this journal's file."""
        return ProviderBatchSubmitter(self.path, rhythm=rhythm, upload_bytes=upload_bytes)

    async def run(
        self, items: Iterable[Item], lane: ProviderBatchSubmitter | None = None, **options: float
    ) -> Outcomes:
        """What comes of `items`; a key that comes twice fails the test."""
        used = lane or self.lane()
        outcomes: Outcomes = {}
        async for answer in used.run(items, **options):
            assert answer.key not in outcomes
            outcomes[answer.key] = answer.outcome
        used.close()
        return outcomes


def texts(outcomes: Outcomes, keys: Sequence[str]) -> list[str]:
    """The texts of replies; anything else fails the test."""
    replies = [outcomes[key] for key in keys]
    assert all(isinstance(reply, Reply) for reply in replies), replies
    return [reply.text for reply in replies if isinstance(reply, Reply)]


@pytest.fixture
def provider_lane(journal: JournalFolder, monkeypatch: pytest.MonkeyPatch) -> Iterator[Night]:
    """A night with the three providers reachable on a server of its own."""
    with BatchLoopback() as server:
        for case in FAMILY:
            for name, value in case.environment(server.url).items():
                monkeypatch.setenv(name, value)
        yield Night(server, journal)
