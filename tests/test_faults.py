"""What goes wrong on the way: each fault has its class, ends in time, is tried once, logged once, and tells no key."""

from __future__ import annotations

import logging
import socket
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest

from muse.errors import DeadlineExceeded, InterruptedReply, MuseError, ProviderDown, ProviderTimeout
from tests.desk import WAYS, Desk
from tests.loopback.outcomes import TEXT
from tests.loopback.server import Answer, Close, CloseHalfway, Drip, Hang, HangHalfway, Raw, Step
from tests.provider_cases import CASES, WIRES, Case

STREAMS = ("stream", "astream")
PLAIN = ("sync", "async")
every_wire = pytest.mark.parametrize("case", WIRES, ids=str)
every_case = pytest.mark.parametrize("case", CASES, ids=str)
every_way = pytest.mark.parametrize("way", WAYS)

TIMEOUT_S = 1.0
MOST_LATE_S = 0.05 * TIMEOUT_S + 0.15
"""What the machine may take on top of 5 %: 16 calls end at once on two cores that others use too."""


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 4\r\n\r\n"
BROKEN: list[tuple[str, Step, set[str | None]]] = [
    ("closed", Close(), {"connection"}),
    ("no HTTP", Raw(b"SSH-2.0-OpenSSH_9.9\r\n"), {"connection"}),
    ("no object", Raw(HEAD + b"[1]\n"), {"unreadable", "no_stream"}),
    ("bad gateway", Answer({"error": {}}, status=502), {None, "502"}),
]


@pytest.mark.parametrize(("step", "codes"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
@every_way
@every_wire
def test_a_broken_answer_is_the_providers_failure(
    desk: Desk, case: Case, way: str, step: Step, codes: set[str | None]
) -> None:
    desk.use(case)
    desk.play(case, step)
    # A key of its own has a connection of its own: on a kept one a request that is lost is sent once more.
    error = desk.fail(way, timeout_s=60, api_key=f"key-{uuid4()}")
    (line,) = desk.journal.lines()
    assert len(desk.server.requests) == 1, "no SDK retries"
    assert isinstance(error, ProviderDown), repr(error)
    assert (error.provider, error.model, error.retryable) == (case.name, case.model, True)
    assert error.code in codes
    assert line["error"] == {"class": "ProviderDown", "status": error.status, "code": error.code}


@pytest.mark.parametrize("step", ["malformed", "empty_body", CloseHalfway()], ids=str)
@pytest.mark.parametrize("way", PLAIN)
@every_wire
def test_half_an_answer_is_no_answer(desk: Desk, case: Case, way: str, step: Step) -> None:
    desk.use(case)
    desk.play(case, step)
    error = desk.fail(way)
    assert isinstance(error, ProviderDown), repr(error)
    assert error.retryable
    assert len(desk.server.requests) == len(desk.journal.lines()) == 1


@every_way
@every_case
def test_a_refused_connection_is_the_providers_failure(desk: Desk, case: Case, way: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    desk.use(case, url=url)
    error = desk.fail(way, timeout_s=60)
    assert isinstance(error, ProviderDown), repr(error)
    assert (error.code, error.retryable) == ("connection", True)
    (line,) = desk.journal.lines()
    assert line["error"]["class"] == "ProviderDown"


@pytest.mark.parametrize("way", STREAMS)
@pytest.mark.parametrize("step", [CloseHalfway(), "cut", "short", "error", "malformed"], ids=str)
@every_wire
def test_a_stream_that_breaks_off_keeps_what_had_come(desk: Desk, case: Case, way: str, step: Step) -> None:
    desk.use(case)
    desk.play(case, f"stream_{step}" if isinstance(step, str) else step)
    error = desk.fail(way)
    assert isinstance(error, InterruptedReply), repr(error)
    assert error.text
    assert TEXT.startswith(error.text)
    assert (error.provider, error.model) == (case.name, case.model)
    assert len(desk.server.requests) == 1
    (line,) = desk.journal.lines()
    assert line["usage"]["total_tokens"] > 0
    assert line["error"]["class"] in {"ProviderDown", "InterruptedReply"}
    (attempt,) = error.attempts
    assert (attempt.provider, attempt.error) == (case.name, line["error"]["class"])


@pytest.mark.parametrize("way", STREAMS)
@every_wire
def test_a_stream_without_a_beginning_is_the_providers_failure(desk: Desk, case: Case, way: str) -> None:
    desk.use(case)
    desk.play(case, "stream_empty_body")
    error = desk.fail(way)
    assert isinstance(error, ProviderDown), repr(error)
    assert (error.provider, error.model, error.code) == (case.name, case.model, "no_stream")


def _overtime_s(desk: Desk, case: Case, way: str) -> float:
    """How much longer than its time a call took that could not be answered."""
    started_s = time.monotonic()
    error = desk.fail(way, context=f"app.{case.name}", timeout_s=TIMEOUT_S)
    took_s = time.monotonic() - started_s
    cause = error.__cause__ if isinstance(error, InterruptedReply) else error
    assert isinstance(cause, ProviderTimeout), repr(error)
    assert (cause.provider, cause.model, cause.retryable) == (case.name, case.model, True)
    return took_s - TIMEOUT_S


@pytest.mark.parametrize("step", [Hang(), HangHalfway(), Drip(TIMEOUT_S / 4)], ids=["never", "half", "drip"])
def test_a_call_ends_with_its_time_on_every_provider_in_every_way(desk: Desk, step: Step) -> None:
    desk.use_all(WIRES)
    calls = [(case, way) for case in WIRES for way in WAYS]
    for case, way in calls:
        desk.ask(way, context=f"app.{case.name}")
    desk.server.requests.clear()
    for case in WIRES:
        desk.play(case, *[step] * len(WAYS))
    with ThreadPoolExecutor(len(calls)) as pool:
        overtime_s = list(pool.map(lambda call: _overtime_s(desk, *call), calls))
    assert min(overtime_s) > -0.05, "none ends early"
    lines = desk.journal.lines()[len(calls) :]
    assert [line["error"]["class"] for line in lines] == ["ProviderTimeout"] * len(calls)
    assert len(desk.server.requests) == len(calls)
    for call in (call for call, late_s in zip(calls, overtime_s, strict=True) if late_s > MOST_LATE_S):
        desk.play(call[0], step)  # the machine may have been elsewhere in that moment: once more, alone
        assert _overtime_s(desk, *call) <= MOST_LATE_S
    numbers = [request.connection for request in desk.server.requests]
    assert desk.server.wait_until(lambda it: not any(map(it.is_open, numbers))), "the connections are given up"


@every_way
@every_wire
def test_a_time_that_is_over_before_it_began_sends_nothing(desk: Desk, case: Case, way: str) -> None:
    desk.use(case)
    error = desk.fail(way, timeout_s=1e-9)
    assert isinstance(error, DeadlineExceeded | ProviderTimeout), repr(error)
    assert not desk.server.requests
    (line,) = desk.journal.lines()
    assert line["error"]["class"] == type(error).__name__


@pytest.mark.parametrize("way", PLAIN)
def test_an_answer_streamed_underneath_keeps_its_time_too(desk: Desk, way: str) -> None:
    case = WIRES[1]
    desk.use(case)
    desk.play(case, Drip(0.1))
    error = desk.fail(way, timeout_s=0.35, max_output_tokens=64_000)
    assert isinstance(error, ProviderTimeout), repr(error)
    assert len(desk.journal.lines()) == 1


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan")])
def test_a_time_that_is_none_is_a_value_error(desk: Desk, timeout_s: float) -> None:
    desk.use(WIRES[0])
    with pytest.raises(ValueError, match=r"timeout_s: found .* expected a number of seconds above 0"):
        desk.ask("sync", timeout_s=timeout_s)


# Keys


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and all that stands behind it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize("step", ["text", "error_401", "error_500", Close(), CloseHalfway(), "malformed"], ids=str)
@every_wire
def test_no_key_in_texts_logs_or_tracebacks_whatever_happens(
    desk: Desk, case: Case, step: Step, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    desk.use(case)
    desk.play(case, *[step] * len(WAYS))
    texts: list[str] = []
    for way in WAYS:
        try:
            texts.append(repr(desk.ask(way)))
        except MuseError as error:
            texts += traceback.format_exception(error)
            texts += [text for each in _chain(error) for text in (str(each), repr(each))]
    texts += [record.getMessage() for record in caplog.records]
    texts.append(desk.journal.log_bytes().decode())
    assert not [text for text in texts if case.key in text]
