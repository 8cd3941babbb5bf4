"""An engine that has a batch's calls made by workers on a Ray cluster. Entry point: `RayEngine`.

The batch passes one request after the other and awaits its answer, as it does for its own calls. The engine sends the
requests of one turn of the event loop to the workers in chunks. If a worker is lost, its unanswered requests go to
others. An answer counts only while it is awaited, so each request has one. Lines of the usage log come with the answers
and are appended here.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from msgspec import Struct, field

from muse.batching.concurrency import ConcurrencyLimit
from muse.batching.ray.cluster import Cluster, WorkerBroken, WorkerLost
from muse.batching.ray.driver import DriverState
from muse.batching.ray.worker import Answer, Worker
from muse.batching.ray.worker_config import WorkerConfig
from muse.batching.request import BatchRequest
from muse.batching.store.serialization import pack
from muse.types.messages import Reply

log = logging.getLogger(__name__)

_LOOK_AGAIN_S = 1.0
_BEGIN_S = 10.0
# This many concurrent calls keep a process busy. Each node has at least one worker.
_CALLS_A_WORKER = 50
_MOST_LOSSES = 3
_MOST_FAILED_STARTS = 5


class _Item(Struct, eq=False):
    """A request under way, and how often it was lost with a worker."""

    number: int
    body: bytes
    answer: asyncio.Future[Answer]
    losses: int = 0


class _WorkerSlot(Struct, eq=False):
    """A worker, its requests, its dropped requests, its last configuration, and the number of log `lines` it sent."""

    name: str
    worker: Any
    hired_s: float
    items: dict[int, _Item] = field(default_factory=dict)
    dropped: list[int] = field(default_factory=list)
    worker_config: WorkerConfig | None = None
    lines: int = 0
    has_begun: bool = False
    is_ready: bool = False
    task: asyncio.Task[None] | None = None


class RayEngine:
    """An engine with as many workers as the concurrency limit has calls for, while there are requests.

    `rest` ends them.

    Raises:
        ConfigError: Ray is not installed, or there is no cluster.
    """

    def __init__(self, concurrency: ConcurrencyLimit) -> None:
        self._concurrency = concurrency
        self._cluster = Cluster()
        self._home = DriverState()
        self._numbers = itertools.count()
        self._names = itertools.count()
        self._waiting: deque[_Item] = deque()
        self._posts: list[_WorkerSlot] = []
        self._failed_starts = 0
        self._watch: asyncio.Task[None] | None = None
        self._turn: asyncio.Handle | None = None

    async def ask(self, request: BatchRequest, replies: list[Reply]) -> str:
        """Return the text of one answer and append the replies received for it to `replies`.

        Raises:
            Exception: Any error that the call raised.
        """
        item = _Item(next(self._numbers), pack(request)[0], asyncio.get_running_loop().create_future())
        self._waiting.append(item)
        self._wake()
        try:
            found = await item.answer
        except asyncio.CancelledError:
            self._drop(item)
            raise
        replies.extend(found.replies)
        if found.error is not None:
            raise found.error
        return found.text

    def rest(self) -> None:
        """End all workers."""
        posts, self._posts = self._posts, []
        if self._watch is not None:
            self._watch.cancel()
        if self._turn is not None:
            self._turn.cancel()
        self._watch = self._turn = None
        for post in posts:
            if post.task is not None:
                post.task.cancel()
            lines = self._cluster.last_words(post.worker.end, post.lines) if post.has_begun else None
            self._home.bring_in(lines or ())
            self._let_go(post)

    def _wake(self) -> None:
        """Schedule a send in the next turn of the event loop, and see that workers are started."""
        loop = asyncio.get_running_loop()
        if self._turn is None:
            self._turn = loop.call_soon(self._send)
        if self._watch is None or self._watch.done():
            self._watch = loop.create_task(self._staff())
            self._watch.add_done_callback(self._ended)

    def _send(self) -> None:
        """Send each worker its requests in one message; the least loaded worker gets the next request."""
        self._turn = None
        ready = [post for post in self._posts if post.is_ready]
        chunks: dict[str, list[tuple[int, bytes]]] = {post.name: [] for post in ready}
        most = self._share()
        while self._waiting and ready:
            post = min(ready, key=_load)
            if len(post.items) >= most:
                break
            item = self._waiting.popleft()
            post.items[item.number] = item
            chunks[post.name].append((item.number, item.body))
        for post in ready:
            if chunks[post.name]:
                self._cluster.send(post.worker.ask, chunks[post.name])
            if post.dropped:
                self._cluster.send(post.worker.forget, post.dropped)
                post.dropped = []

    def _share(self) -> int:
        """Return how many calls a worker may have: an equal share."""
        late_s = time.monotonic() - _BEGIN_S
        # A worker that is starting counts too, for `_BEGIN_S` seconds: it is about to take its share.
        working = sum(post.is_ready or (not post.has_begun and post.hired_s > late_s) for post in self._posts)
        return -(-self._concurrency.limit // max(working, 1))

    def _drop(self, item: _Item) -> None:
        """Stop waiting for the answer to a request."""
        if item in self._waiting:
            self._waiting.remove(item)
        for post in self._posts:
            if post.items.pop(item.number, None) is not None:
                post.dropped.append(item.number)
                self._wake()

    async def _staff(self) -> None:
        """Start workers and send them changed configuration, as long as there is work."""
        while self._waiting or any(post.items for post in self._posts):
            await self._hire()
            await self._tell(self._home.worker_config())
            self._wake()
            await asyncio.sleep(_LOOK_AGAIN_S)

    async def _hire(self) -> None:
        """Start missing workers."""
        nodes, processors = self._cluster.size()
        limit = self._concurrency.limit
        wanted = self._home.most_workers(min(limit, processors, max(nodes, -(-limit // _CALLS_A_WORKER))))
        missing = wanted - len(self._posts)
        if not self._home.parts.count:
            self._home.begin(wanted)
        parts = self._home.parts
        # Where limits are divided, every worker gives up a part of its share before another one starts.
        if wanted > parts.count:
            more = wanted - parts.count
            await self._tell(self._home.worker_config(wanted))
            parts.add(more)
        elif wanted < parts.count or missing <= 0:
            parts.drop_unused()
        for _ in range(missing):
            name = f"worker {next(self._names)}"
            rest_s = parts.take(name)
            if rest_s is None:
                return
            post = _WorkerSlot(name, self._cluster.hire(Worker), time.monotonic())
            self._posts.append(post)
            post.task = asyncio.get_running_loop().create_task(self._keep(post, rest_s))
            post.task.add_done_callback(self._ended)

    async def _tell(self, worker_config: WorkerConfig) -> None:
        """Send the workers the configuration, if it has changed."""
        behind = [post for post in self._posts if post.has_begun and post.worker_config != worker_config]
        for post in behind:
            post.worker_config = worker_config
        told = [self._cluster.ask(post.worker.settle, worker_config) for post in behind]
        for outcome in await asyncio.gather(*told, return_exceptions=True):
            if isinstance(outcome, WorkerBroken):  # `_keep` notices a lost worker
                raise outcome

    async def _keep(self, post: _WorkerSlot, rest_s: float) -> None:
        """Start a worker and take its answers, until it is lost or ended."""
        try:
            await self._begin(post, rest_s)
            while True:
                answers, lines = await self._cluster.ask(post.worker.take, post.lines)
                post.lines += len(lines)
                self._home.bring_in(lines)
                self._settle(post, answers)
        except WorkerLost as exc:
            self._lost(post, exc)
        except Exception as exc:
            self._lost(post, exc)
            raise

    async def _begin(self, post: _WorkerSlot, rest_s: float) -> None:
        """Send a worker its configuration, and wait until it may use its share of the limits."""
        post.worker_config = self._home.worker_config()
        await self._cluster.ask(post.worker.begin, post.worker_config, self._home.variables())
        post.has_begun = True
        self._failed_starts = 0
        await asyncio.sleep(rest_s)
        post.is_ready = True
        self._wake()

    def _settle(self, post: _WorkerSlot, answers: Sequence[tuple[int, Answer]]) -> None:
        """Set the results of requests that are still awaited."""
        for number, found in answers:
            item = post.items.pop(number, None)
            if item is not None and not item.answer.done():
                item.answer.set_result(found)

    def _lost(self, post: _WorkerSlot, problem: Exception) -> None:
        """Requeue the unanswered requests of a lost worker."""
        if post not in self._posts:
            return
        self._posts.remove(post)
        log.warning("%s is lost with %d calls under way (%s)", post.name, len(post.items), problem)
        self._let_go(post)
        if not post.is_ready:
            self._failed_starts += 1
        for item in reversed(post.items.values()):
            item.losses += 1
            if item.losses > _MOST_LOSSES:
                said = f"its worker was lost {item.losses} times; the last time: {problem}"
                self._refuse(item, WorkerLost(said))
            else:
                self._waiting.appendleft(item)
        if self._failed_starts >= _MOST_FAILED_STARTS:
            self._fail(WorkerLost(f"{self._failed_starts} workers in a row could not begin; the last one: {problem}"))
        elif self._waiting:
            self._wake()

    def _let_go(self, post: _WorkerSlot) -> None:
        self._cluster.dismiss(post.worker)
        self._home.parts.give_up(post.name)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Handle the end of an internal task; if it failed, no waiting request would be sent, so all of them fail."""
        problem = None if task.cancelled() else task.exception()
        if isinstance(problem, Exception):
            self._fail(problem)

    def _fail(self, problem: Exception) -> None:
        """Fail all requests that have no worker."""
        self._failed_starts = 0
        waiting = list(self._waiting)
        self._waiting.clear()
        for item in waiting:
            self._refuse(item, problem)

    def _refuse(self, item: _Item, problem: Exception) -> None:
        if not item.answer.done():
            item.answer.set_result(Answer("", (), problem, 0.0))


def _load(post: _WorkerSlot) -> int:
    return len(post.items)
