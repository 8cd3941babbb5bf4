"""Clients over loops, threads and forks: all ways mix, connections are used again and none is left behind."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from muse import models
from muse.providers import backend_of
from tests import journal_folder
from tests.desk import CONTEXT, QUESTION, Desk
from tests.loopback.outcomes import TEXT
from tests.provider_cases import FAMILY, WIRES, Case

every_wire = pytest.mark.parametrize("case", WIRES, ids=str)
every_sdk = pytest.mark.parametrize("case", FAMILY, ids=str)
IN_TURN = 1_000


def _alternate(count: int) -> set[str]:
    """Ask `count` times, by turns without and with a loop of its own."""
    said = set()
    for _ in range(count // 2):
        said.add(models.generate(QUESTION, CONTEXT))
        said.add(asyncio.run(models.agenerate(QUESTION, CONTEXT)))
    return said


@every_wire
def test_sync_and_async_calls_alternate_a_thousand_times(desk: Desk, case: Case) -> None:
    desk.use(case)
    assert _alternate(IN_TURN // len(WIRES)) == {TEXT}
    gc.collect()  # what was not closed would warn now
    assert len(desk.journal.lines()) == len(desk.server.requests) == IN_TURN // len(WIRES)


@every_wire
def test_threads_alternate_too(desk: Desk, case: Case) -> None:
    desk.use(case)
    with ThreadPoolExecutor(8) as pool:
        assert set().union(*pool.map(_alternate, [16] * 8)) == {TEXT}
    gc.collect()
    assert len(desk.journal.lines()) == 8 * 16


@every_wire
def test_a_loop_that_ends_closes_its_connections(desk: Desk, case: Case) -> None:
    desk.use(case)

    async def several() -> list[int]:
        await asyncio.gather(*(models.agenerate(QUESTION, CONTEXT) for _ in range(4)))
        return [request.connection for request in desk.server.requests]

    numbers = asyncio.run(several())
    assert desk.server.wait_until(lambda it: not any(map(it.is_open, numbers)))


@every_wire
def test_sync_calls_share_one_connection(desk: Desk, case: Case) -> None:
    desk.use(case)
    for _ in range(10):
        models.generate(QUESTION, CONTEXT)
        with models.stream(QUESTION, CONTEXT) as stream:
            assert stream.reply.text == TEXT
    assert desk.server.connections <= 1


@every_wire
async def test_calls_of_one_loop_use_connections_again(desk: Desk, case: Case) -> None:
    desk.use(case)
    for _ in range(5):
        await asyncio.gather(*(models.agenerate(QUESTION, CONTEXT) for _ in range(8)))
        async with await models.astream(QUESTION, CONTEXT) as stream:
            assert (await stream.reply()).text == TEXT
    assert len({request.connection for request in desk.server.requests}) <= 9


@every_wire
async def test_many_calls_in_flight_are_not_queued(desk: Desk, case: Case) -> None:
    desk.use(case)
    desk.server.latency_s = 600.0  # no call is answered, so none can wait for another's connection
    calls = asyncio.gather(*(models.agenerate(QUESTION, CONTEXT) for _ in range(120)))
    assert await asyncio.to_thread(desk.server.wait_until, lambda server: len(server.requests) == 120)
    calls.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calls


def test_another_key_and_another_address_are_another_client(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    case = WIRES[0]
    desk.use(case)
    models.generate(QUESTION, CONTEXT)
    models.generate(QUESTION, CONTEXT, api_key="sk-of-this-call-only")
    monkeypatch.setenv(case.key_env, "sk-a-key-saved-a-moment-ago")
    models.generate(QUESTION, CONTEXT)
    keys = [request.headers["authorization"] for request in desk.server.requests]
    assert keys == [f"Bearer {key}" for key in (case.key, "sk-of-this-call-only", "sk-a-key-saved-a-moment-ago")]
    assert len({request.connection for request in desk.server.requests}) == 3


_FORKED = """
import asyncio, json, os, sys
from muse import models

def ask(how_often):
    for _ in range(how_often):
        assert models.generate("When?", "x.parent") == asyncio.run(models.agenerate("When?", "x.parent"))

ask(3)
child = os.fork()
ask(3)
if child == 0:
    os._exit(0)
_, status = os.waitpid(child, 0)
ask(3)
print(json.dumps(os.waitstatus_to_exitcode(status)))
"""


@every_sdk
def test_parent_and_forked_child_both_go_on(desk: Desk, case: Case) -> None:
    desk.use(case)
    assert json.loads(journal_folder.run(_FORKED, **journal_folder.UNMEASURED)) == 0
    assert len(desk.journal.lines()) == len(desk.server.requests) == (3 + 3 + 3 + 3) * 2
    numbers = {request.connection for request in desk.server.requests}
    assert desk.server.wait_until(lambda it: not any(map(it.is_open, numbers))), "both gave up theirs"
    assert len(numbers) == 2 + 4 * 3, "a sync one each, and one for each loop"


_AT_EXIT = """
import asyncio
from muse import models

async def leave_early():
    stream = await models.astream("When?", "x.left")
    await anext(stream)

models.generate("When?", "x.kept")
stream = models.stream("When?", "x.left")
next(stream)
asyncio.run(leave_early())
"""


@every_sdk
def test_a_process_that_leaves_streams_open_ends_without_a_word(desk: Desk, case: Case) -> None:
    desk.use(case)
    with journal_folder.start(_AT_EXIT) as process:
        assert process.communicate(timeout=180) == ("", "")
    assert process.returncode == 0
    contexts = sorted(line["context"] for line in desk.journal.lines())
    assert contexts == ["x.kept", "x.left", "x.left"], "what was spent is logged all the same"


async def test_calls_that_wait_until_a_provider_is_loaded_hold_one_thread_of_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backend, may_end, loads = backend_of("openai"), threading.Event(), list[str | None]()

    def load(api_key: str | None = None) -> None:
        loads.append(api_key)
        assert may_end.wait(5), "no other thread was left to end this"

    monkeypatch.setattr(backend, "_is_loaded", False, raising=False)
    monkeypatch.setattr(backend, "load", load)
    waiting = [asyncio.create_task(backend.aload()) for _ in range(100)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.to_thread(may_end.set)
    ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(ended[0], asyncio.CancelledError)
    assert ended[1:] == [None] * 99, "one that is given up ends no other"
    assert loads == [None]
