"""Writes results to the batch store and delivers them once they are committed. Entry point: `ResultWriter`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from muse.batching.concurrency import ConcurrencyLimit
from muse.batching.request import BatchRequest, Place
from muse.batching.store.serialization import pack, pack_unsendable
from muse.batching.store.store import Store, StoredItem
from muse.types.errors import ConfigError, ContentsError, InvalidReply, MuseError

Key = Callable[[BatchRequest], Any] | str


class ResultWriter:
    """The link between a batch and its store; results of one turn of the event loop share one transaction.

    A result that is not committed keeps its slot among the calls under way (`ConcurrencyLimit.held`), so that a killed
    process loses no more results than that.

    Args:
        store: The batch store.
        key: Names a request: a function, or the name of an attribute. By default, the name is a hash of everything that
            shapes the answer.
        concurrency: The limit whose slots uncommitted results keep.
        deliver: Receives committed results. If a commit fails, it receives the results, which were paid for, and the
            error.
        retry_failed: Open items again that failed in an earlier run.
    """

    def __init__(
        self,
        store: Store,
        key: Key | None,
        concurrency: ConcurrencyLimit,
        deliver: Callable[[list[BatchRequest], MuseError | None], None],
        *,
        retry_failed: bool,
    ) -> None:
        self.store = store
        self.kept: list[BatchRequest] = []
        self._key = key
        self._concurrency = concurrency
        self._deliver = deliver
        self._retry_failed = retry_failed
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.Handle | None = None

    def claim(self, request: BatchRequest, *, is_unseen: bool = False) -> int | None:
        """Return the item number of a request to send; None if it has its result already or cannot be sent.

        A request that was added before gets its item again.

        Args:
            request: The request.
            is_unseen: True if a result from the store was not delivered. It stays valid if the request is unchanged.

        Raises:
            ConfigError: The store cannot be written, or the request has no such key.
        """
        problem: ContentsError | None = None
        try:
            body, shape = pack(request)
        except ContentsError as exc:
            problem = exc
            body, shape = pack_unsendable(request)
        kept = self._item_of(request, shape, body, is_unseen=is_unseen)
        self._arm()
        if kept.is_finished and not (problem is not None and kept.state == "failed"):
            kept.restore(request)
            return None
        if problem is None:
            return kept.number
        request.refused(problem, deferrable=False)
        request.spent((), 0.0)
        self.store.finish(kept.number, request)
        return None

    def keep(self, number: int, request: BatchRequest) -> None:
        """Save a result, and deliver it once it is committed."""
        response: object = request.response
        if response is not None and not isinstance(response, str):
            found = type(response).__name__
            request.response = None
            request.refused(InvalidReply(f"found {found}, expected text: a ledger keeps no other"), deferrable=False)
        self.kept.append(request)
        self._concurrency.held += 1
        try:
            self.store.finish(number, request)
        except ConfigError as exc:
            self._hand_on(exc)
        else:
            self._arm()

    def withdraw(self, request: BatchRequest) -> bool:
        """Discard a result that is not delivered yet; return True if there was one."""
        if request.state == "waiting":
            return False
        count = len(self.kept)
        self.kept = [other for other in self.kept if other is not request]
        return len(self.kept) < count

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
        """Commit, and unlock the store for other runs."""
        self.flush()
        self.store.release()

    def close(self) -> None:
        """Commit, and close the store."""
        self.flush()
        self.store.close()

    def _item_of(self, request: BatchRequest, shape: str, body: bytes, *, is_unseen: bool) -> StoredItem:
        """Return the store's item for a request from now on."""
        key, kept = None, None
        had = request.place if request.place is not None and request.place.mark == self.store.mark else None
        if had is None or had.key is not None:  # an item read from the store keeps its key
            key = self._named(request, shape)
        if had is not None and had.key == key:
            kept = self.store.claim_again(had.number, body, request.note, is_unseen=is_unseen)
        if kept is None:
            kept = self.store.claim(key or shape, body, request.note, retry_failed=self._retry_failed)
            if had is not None:  # the old item is obsolete; deleted last, so that its number is not reused
                self.store.forget(had.number)
        request.place = Place(self.store.mark, kept.number, key)
        return kept

    def _arm(self) -> None:
        loop = asyncio.get_running_loop()
        if self._timer is not None and self._loop is loop:
            return
        self._loop = loop
        self._timer = loop.call_soon(self.flush)  # runs before answers that arrive in the meantime

    def _hand_on(self, problem: MuseError | None) -> None:
        kept, self.kept = self.kept, []
        self._concurrency.held = 0
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
        try:
            return str(self._key(request))
        except StopIteration as exc:  # a generator that iterates here would take it for the end
            raise ConfigError("key", "a function that raised StopIteration", "one that gives a name") from exc
