"""Results on their way to the ledger: kept together, handed on when they are safe; it makes no call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from muse.batching.pace import Pace
from muse.batching.packing import pack
from muse.batching.request import BatchRequest
from muse.batching.store import Store
from muse.errors import ConfigError, ContentsError, InvalidReply, MuseError

Key = Callable[[BatchRequest], Any] | str


class Keeper:
    """Between a batch and its store; what comes within one turn of the loop goes into one transaction.

    A result that is not committed holds its place among the calls under way (`pace`), so that a process that is killed
    loses no more than these.

    `key` names a request: a function, or an attribute of it; by default all that shapes the answer does. `deliver` gets
    results that are committed, and the error if they could not be (they are handed on all the same: they were paid
    for).
    """

    def __init__(
        self,
        store: Store,
        key: Key | None,
        pace: Pace,
        deliver: Callable[[list[BatchRequest], MuseError | None], None],
        *,
        retry_failed: bool,
    ) -> None:
        self.store = store
        self.kept: list[BatchRequest] = []
        self._key = key
        self._pace = pace
        self._deliver = deliver
        self._retry_failed = retry_failed
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.Handle | None = None

    def claim(self, request: BatchRequest) -> int | None:
        """The place of a request that is to be asked; None if it has its result already.

        Raises:
            ConfigError: the ledger cannot be written, or the request has no such key.
        """
        if request.place is not None:
            place, request.place = request.place, None  # an update is another item
            return place
        try:
            body, shape = pack(request)
        except ContentsError as exc:
            request.refused(exc, deferrable=False)
            request.spent((), 0.0)
            return None
        kept = self.store.claim(self._named(request, shape), body, request.note, retry_failed=self._retry_failed)
        self._arm()
        if kept.is_finished:
            kept.restore(request)
            return None
        return kept.number

    def keep(self, number: int, request: BatchRequest) -> None:
        """Keep a result, and hand it on once it is committed."""
        response: object = request.response
        if response is not None and not isinstance(response, str):
            found = type(response).__name__
            request.response = None
            request.refused(InvalidReply(f"found {found}, expected text: a ledger keeps no other"), deferrable=False)
        self.kept.append(request)
        self._pace.held += 1
        try:
            self.store.finish(number, request)
        except ConfigError as exc:
            self._hand_on(exc)
        else:
            self._arm()

    def forget(self, number: int) -> None:
        """Have a request left out of the ledger that was updated before it had a result."""
        try:
            self.store.forget(number)
        except ConfigError as exc:
            self._hand_on(exc)
        else:
            self._arm()

    def flush(self) -> None:
        """Commit now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        try:
            self.store.commit()
        except ConfigError as exc:
            self._hand_on(exc)
        else:
            self._hand_on(None)

    def release(self) -> None:
        """Commit, and let other runs have the ledger."""
        self.flush()
        self.store.release()

    def _arm(self) -> None:
        loop = asyncio.get_running_loop()
        if self._timer is not None and self._loop is loop:
            return
        self._loop = loop
        self._timer = loop.call_soon(self.flush)  # before the answers that will have come by then

    def _hand_on(self, problem: MuseError | None) -> None:
        kept, self.kept = self.kept, []
        self._pace.held = 0
        if kept or problem is not None:
            self._deliver(kept, problem)

    def _named(self, request: BatchRequest, shape: str) -> str:
        if self._key is None:
            return shape
        if isinstance(self._key, str):
            if self._key not in vars(request):
                raise ConfigError(
                    "key", f"{self._key!r}, which {request!r} does not have", "an attribute of every request"
                )
            return str(vars(request)[self._key])
        return str(self._key(request))
