"""How requests of a batch are shared out to workers that come, go and fail, over workers of this process: no Ray."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from muse.batch import Batch
from muse.batching.notifier import Notifier
from muse.batching.ray import engine
from muse.batching.ray.cluster import WorkerBroken, WorkerLost
from muse.batching.ray.quota_shares import REST_S
from muse.batching.ray.worker import Answer, Numbered
from muse.batching.ray.worker_config import WorkerConfig
from muse.batching.store.serialization import unpack
from tests.batch_calls import ask, drained, turns
from tests.journal_folder import JournalFolder


class Node:
    """Stands for a worker: keeps what it is asked until `answer`, and remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[WorkerConfig] = []
        self.asked: dict[int, str] = {}
        self.forgotten: list[int] = []
        self.given = 0
        self.problem: Exception | None = None
        self._answers: list[tuple[int, Answer]] = []
        self._notifier = Notifier()

    async def begin(self, worker_config: WorkerConfig, _given: object) -> None:
        """As `Worker.begin`."""
        self.told.append(worker_config)
        if self.problem is not None:
            raise self.problem

    async def settle(self, worker_config: WorkerConfig) -> None:
        """As `Worker.settle`."""
        self.told.append(worker_config)

    async def ask(self, requests: Sequence[Numbered]) -> None:
        """As `Worker.ask`."""
        for number, body in requests:
            self.asked[number] = unpack(body).contents[0].parts[0]

    async def forget(self, numbers: Sequence[int]) -> None:
        """As `Worker.forget`."""
        self.forgotten += numbers

    async def take(self, arrived: int) -> tuple[list[tuple[int, Answer]], list[bytes]]:
        """As `Worker.take`."""
        while not (self._answers or self.problem):
            await self._notifier.wait()
        if self.problem is not None:
            raise self.problem
        assert arrived == self.given
        answers, self._answers = self._answers, []
        self.given += len(answers)
        return answers, [b'{"context": "app.tides"}'] * len(answers)

    async def end(self, _arrived: int) -> list[bytes]:
        """As `Worker.end`."""
        return []

    def answer(self) -> None:
        """Answer all that was asked."""
        self._answers += [(number, Answer(text.upper(), (), None, 0.1)) for number, text in self.asked.items()]
        self.asked.clear()
        self._notifier.ring()

    def die(self) -> None:
        """Be lost, with whatever was asked."""
        self.problem = WorkerLost("the node is gone")
        self._notifier.ring()


class Nodes:
    """Stands for a cluster of so many processors, one on each node."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.hired: list[Node] = []
        self.dismissed: list[Node] = []
        self.problem: Exception | None = None
        self._tasks: list[asyncio.Task[Any]] = []

    def size(self) -> tuple[int, int]:
        """As `Cluster.size`."""
        return self.count, self.count

    def hire(self, _kind: type) -> Node:
        """As `Cluster.hire`."""
        node = Node()
        node.problem = self.problem
        self.hired.append(node)
        return node

    def ask(self, method: Callable[..., Awaitable[Any]], *arguments: Any) -> Awaitable[Any]:
        """As `Cluster.ask`."""
        return method(*arguments)

    def send(self, method: Callable[..., Any], *arguments: Any) -> None:
        """As `Cluster.send`."""
        self._tasks.append(asyncio.get_running_loop().create_task(method(*arguments)))

    def last_words(self, method: Callable[..., Any], *arguments: Any) -> None:
        """As `Cluster.last_words`, for workers that have nothing to say."""

    def dismiss(self, node: Node) -> None:
        """As `Cluster.dismiss`."""
        self.dismissed.append(node)


@pytest.fixture(name="nodes")
def _nodes(monkeypatch: pytest.MonkeyPatch, journal: JournalFolder) -> Nodes:
    nodes = Nodes(2)
    monkeypatch.setattr(engine, "Cluster", lambda: nodes)
    monkeypatch.setattr(engine, "_LOOK_AGAIN_S", 0.001)
    return nodes


async def until(reached: Callable[[], bool]) -> None:
    """Let the loop turn until it is so."""
    async with asyncio.timeout(180):
        while not reached():
            await turns(1)


async def test_workers_get_equal_shares_and_lines_come_in_once(nodes: Nodes, journal: JournalFolder) -> None:
    batch = Batch(max_concurrent=6, engine="ray")
    ask(batch, *"abcdef")
    drain = asyncio.ensure_future(drained(batch))
    await until(lambda: [len(node.asked) for node in nodes.hired] == [3, 3])
    for node in nodes.hired:
        node.answer()
    assert sorted(str(request.response) for request in await drain) == list("ABCDEF")
    assert len(journal.lines()) == 6
    assert nodes.dismissed == nodes.hired


async def test_what_a_lost_worker_had_goes_to_others_and_counts_once(nodes: Nodes) -> None:
    batch = Batch(max_concurrent=4, engine="ray")
    ask(batch, *"abcd")
    drain = asyncio.ensure_future(drained(batch))
    await until(lambda: [len(node.asked) for node in nodes.hired] == [2, 2])
    lost, other = nodes.hired
    lost.die()
    await until(lambda: len(nodes.hired) == 3 and len(other.asked) + len(nodes.hired[2].asked) == 4)
    lost.answer()  # too late
    other.answer()
    nodes.hired[2].answer()
    assert sorted(str(request.response) for request in await drain) == list("ABCD")


async def test_a_request_whose_worker_is_lost_each_time_fails(nodes: Nodes) -> None:
    nodes.count = 1
    batch = Batch(max_concurrent=1, engine="ray")
    [request] = ask(batch, "a")
    drain = asyncio.ensure_future(drained(batch))
    for number in range(4):
        await until(lambda: len(nodes.hired) == number + 1 and bool(nodes.hired[-1].asked))  # noqa: B023
        nodes.hired[-1].die()
    await drain
    assert request.error == "its worker was lost 4 times; the last time: the node is gone"
    assert isinstance(request.exception, WorkerLost)


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (WorkerBroken("muse-router on a node: found version 1"), "muse-router on a node: found version 1"),
        (WorkerLost("no memory"), "5 workers in a row could not begin; the last one: no memory"),
    ],
)
async def test_workers_that_cannot_begin_are_an_error_of_each_request(
    nodes: Nodes, problem: Exception, said: str
) -> None:
    nodes.count, nodes.problem = 1, problem
    batch = Batch(max_concurrent=2, engine="ray")
    requests = ask(batch, *"ab")
    await drained(batch)
    assert [request.error for request in requests] == [said, said]


async def test_cancelled_requests_are_cancelled_where_they_are(nodes: Nodes) -> None:
    batch = Batch(max_concurrent=2, engine="ray")
    ask(batch, *"ab")
    await until(lambda: [len(node.asked) for node in nodes.hired] == [1, 1])
    batch._engine.rest = lambda: None  # type: ignore[union-attr,method-assign]
    await batch.cancel()
    await turns(5)
    assert sorted(number for node in nodes.hired for number in node.forgotten) == [0, 1]


async def test_all_make_room_before_one_more_worker_may_use_a_limit(
    nodes: Nodes, journal: JournalFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.route(limits=[{"requests_per_minute": 60}])
    batch = Batch(max_concurrent=6, engine="ray")
    ask(batch, *"abcdef")
    await until(lambda: [len(node.asked) for node in nodes.hired] == [3, 3])
    rests: list[float] = []

    async def rest(seconds: float) -> None:
        rests.append(seconds)
        await pause(0)

    pause = asyncio.sleep
    with monkeypatch.context() as patched:
        patched.setattr(engine.asyncio, "sleep", rest)
        nodes.count = 3
        await until(lambda: len(nodes.hired) == 3 and bool(nodes.hired[2].told))
        assert [node.told[-1].providers["limits"] for node in nodes.hired] == [[{"requests_per_minute": 20}]] * 3
        await until(lambda: max(rests) > 1)
    assert max(rests) == pytest.approx(REST_S, abs=1)
    await batch.cancel()
