"""Streams: text as it comes, the whole afterwards, what is kept of a broken one, and what closing early does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from muse import models, testing
from muse.errors import BlockedReply, InterruptedReply, MuseError, ProviderDown, TruncatedReply
from muse.types.messages import Reply
from tests.desk import CONTEXT, QUESTION, Desk, seen
from tests.loopback.outcomes import OUTCOMES, SERVED, TEXT
from tests.loopback.server import CloseHalfway, Drip, HangHalfway
from tests.provider_cases import WIRES, Case

every_wire = pytest.mark.parametrize("case", WIRES, ids=str)
SLOWLY = Drip(0.02)
FOR_EVER = HangHalfway("stream")


@every_wire
def test_the_pieces_are_the_text(desk: Desk, case: Case) -> None:
    desk.use(case)
    with models.stream(QUESTION, CONTEXT) as stream:
        pieces = list(stream)
        assert stream.is_over
    assert len(pieces) > 1
    assert "".join(pieces) == TEXT == stream.text == stream.reply.text
    assert list(stream) == []


@every_wire
async def test_the_pieces_of_an_async_stream_are_the_text(desk: Desk, case: Case) -> None:
    desk.use(case)
    async with await models.astream(QUESTION, CONTEXT) as stream:
        pieces = [piece async for piece in stream]
        assert stream.is_over
    assert len(pieces) > 1
    assert "".join(pieces) == TEXT == stream.text == (await stream.reply()).text


@every_wire
def test_pieces_come_while_the_answer_is_still_being_written(desk: Desk, case: Case) -> None:
    desk.use(case)
    desk.play(case, FOR_EVER)
    with models.stream(QUESTION, CONTEXT) as stream:
        assert TEXT.startswith(next(stream))
        assert not stream.is_over


@every_wire
def test_thinking_is_no_text_but_is_in_the_reply(desk: Desk, case: Case) -> None:
    desk.use(case)
    desk.play(case, "stream_thinking", "stream_tools")
    with models.stream(QUESTION, CONTEXT) as stream:
        assert "".join(stream) == OUTCOMES["thinking"].text
    assert seen(stream.reply).outcome == OUTCOMES["thinking"]
    assert stream.reply.model == SERVED[case.wire]
    with models.stream(QUESTION, CONTEXT) as stream:
        assert list(stream) == []
    assert seen(stream.reply).outcome == OUTCOMES["tools"]


@every_wire
def test_reply_reads_what_was_not_iterated(desk: Desk, case: Case) -> None:
    desk.use(case)
    stream = models.stream(QUESTION, CONTEXT)
    next(stream)
    assert stream.reply.text == TEXT
    assert stream.reply is stream.reply
    assert len(desk.journal.lines()) == 1


@every_wire
def test_the_request_goes_out_when_the_first_piece_is_asked_for(desk: Desk, case: Case) -> None:
    desk.use(case)
    stream = models.stream(QUESTION, CONTEXT)
    assert not desk.server.requests
    next(stream)
    assert len(desk.server.requests) == 1
    stream.close()


# Closing early


@every_wire
def test_closing_early_cancels_the_request_and_logs_what_was_spent(desk: Desk, case: Case) -> None:
    desk.use(case)
    desk.play(case, FOR_EVER)
    with models.stream(QUESTION, CONTEXT) as stream:
        first = next(stream)
        number = desk.server.requests[0].connection
        assert desk.server.is_open(number)
    assert desk.server.wait_until(lambda it: not it.is_open(number))
    _expect_closed(desk, case)
    assert stream.text == first
    with pytest.raises(InterruptedReply, match="closed before its end") as caught:
        _ = stream.reply
    assert caught.value.text == first
    stream.close()
    assert len(desk.journal.lines()) == 1


@every_wire
async def test_closing_an_async_stream_early_does_the_same(desk: Desk, case: Case) -> None:
    desk.use(case)
    desk.play(case, FOR_EVER)
    async with await models.astream(QUESTION, CONTEXT) as stream:
        first = await anext(stream)
        number = desk.server.requests[0].connection
        assert desk.server.is_open(number)
    assert await asyncio.to_thread(desk.server.wait_until, lambda it: not it.is_open(number))
    _expect_closed(desk, case)
    with pytest.raises(InterruptedReply, match="closed before its end") as caught:
        await stream.reply()
    assert caught.value.text == first


def _expect_closed(desk: Desk, case: Case) -> None:
    (line,) = desk.journal.lines()
    assert (line["finish"], line.get("error"), line["model"]) == ("closed", None, case.model)
    reported = case.wire in {"anthropic", "google"}  # they count the input at the beginning of a stream
    assert line["usage"]["input_tokens"] == (OUTCOMES["text"].input_tokens if reported else -(-len(QUESTION) // 4))
    assert 1 <= line["usage"]["output_tokens"] <= OUTCOMES["text"].output_tokens
    assert line.get("estimated") is (None if case.wire == "anthropic" else True)


@every_wire
async def test_cancelling_the_task_closes_the_connection_and_is_logged(desk: Desk, case: Case) -> None:
    desk.use(case)
    desk.play(case, FOR_EVER, FOR_EVER)
    for ask in (_read_stream, _ask_whole):
        task = asyncio.create_task(ask())
        count = len(desk.journal.lines())
        assert await asyncio.to_thread(desk.server.wait_until, lambda it, n=count: len(it.requests) == n + 1)
        number = desk.server.requests[-1].connection
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(desk.server.wait_until, lambda it, n=number: not it.is_open(n))
        assert desk.last_line()["error"]["class"] == "CancelledError"
    assert len(desk.journal.lines()) == 2


async def _read_stream() -> None:
    async with await models.astream(QUESTION, CONTEXT) as stream:
        async for _ in stream:
            pass


async def _ask_whole() -> None:
    await models.areply(QUESTION, CONTEXT)


def test_a_stream_that_is_dropped_is_logged_like_a_closed_one(desk: Desk) -> None:
    desk.use(WIRES[0])
    desk.play(WIRES[0], FOR_EVER)
    for _ in models.stream(QUESTION, CONTEXT):
        break
    (line,) = desk.journal.lines()
    assert line["finish"] == "closed"
    assert line["usage"]["total_tokens"] > 0
    number = desk.server.requests[0].connection
    assert desk.server.wait_until(lambda it: not it.is_open(number))


def test_a_stream_that_never_began_cost_nothing(desk: Desk) -> None:
    desk.use(WIRES[0])
    models.stream(QUESTION, CONTEXT).close()
    (line,) = desk.journal.lines()
    assert (line["finish"], line["usage"]["total_tokens"], line["cost_usd"]) == ("closed", 0, 0.0)
    assert not desk.server.requests


# Breaking off


@every_wire
def test_what_had_come_before_the_break_is_kept(desk: Desk, case: Case) -> None:
    desk.use(case)
    desk.play(case, CloseHalfway("stream"))
    pieces: list[str] = []
    with models.stream(QUESTION, CONTEXT) as stream:
        with pytest.raises(InterruptedReply) as caught:
            pieces.extend(stream)
        assert stream.is_over
    assert caught.value.text == stream.text
    assert TEXT.startswith(stream.text)
    assert stream.text
    assert isinstance(caught.value.__cause__, ProviderDown)
    with pytest.raises(InterruptedReply) as again:
        _ = stream.reply
    assert again.value is caught.value
    (line,) = desk.journal.lines()
    assert line["error"]["class"] == "ProviderDown"


@every_wire
def test_a_stream_cut_off_by_the_limit_says_so_at_its_end(desk: Desk, case: Case) -> None:
    desk.use(case)
    desk.play(case, "truncated", "blocked")
    with models.stream(QUESTION, CONTEXT) as stream, pytest.raises(TruncatedReply) as caught:
        _ = stream.reply
    assert caught.value.text == stream.text == OUTCOMES["truncated"].text
    with models.stream(QUESTION, CONTEXT) as stream, pytest.raises(BlockedReply):
        list(stream)


# Callbacks


class _Heard:
    """What the callbacks were told, in order."""

    def __init__(self) -> None:
        self.tokens: list[str] = []
        self.done: list[Reply] = []
        self.errors: list[BaseException] = []

    @property
    def callbacks(self) -> dict[str, Any]:
        return {"on_token": self.tokens.append, "on_done": self.done.append, "on_error": self.errors.append}


@every_wire
async def test_drive_tells_tokens_then_done_once(desk: Desk, case: Case) -> None:
    desk.use(case)
    heard, aheard = _Heard(), _Heard()
    reply = await asyncio.to_thread(lambda: models.stream(QUESTION, CONTEXT).consume(**heard.callbacks))
    areply = await (await models.astream(QUESTION, CONTEXT)).consume(**aheard.callbacks)
    assert "".join(heard.tokens) == TEXT
    assert heard.tokens == aheard.tokens
    assert (heard.done, aheard.done) == ([reply], [areply])
    assert heard.errors == aheard.errors == []


@every_wire
async def test_drive_tells_the_error_once_and_raises_it(desk: Desk, case: Case) -> None:
    desk.use(case)
    desk.play(case, "stream_error", "stream_error", "error_500", "error_500")
    for _ in range(2):
        heard, aheard = _Heard(), _Heard()
        with pytest.raises(MuseError) as caught:
            models.stream(QUESTION, CONTEXT).consume(**heard.callbacks)
        with pytest.raises(MuseError) as acaught:
            await (await models.astream(QUESTION, CONTEXT)).consume(**aheard.callbacks)
        assert heard.errors == [caught.value]
        assert aheard.errors == [acaught.value]
        assert heard.tokens == aheard.tokens
        assert heard.done == aheard.done == []
    assert len(desk.journal.lines()) == 4


def test_an_error_of_a_callback_cancels_the_stream(desk: Desk) -> None:
    case = WIRES[0]
    desk.use(case)
    desk.play(case, FOR_EVER)

    def refuse(piece: str) -> None:
        raise KeyError(piece)

    heard = _Heard()
    with pytest.raises(KeyError):
        models.stream(QUESTION, CONTEXT).consume(**heard.callbacks | {"on_token": refuse})
    assert [type(error) for error in heard.errors] == [KeyError]
    number = desk.server.requests[0].connection
    assert desk.server.wait_until(lambda it: not it.is_open(number))
    assert desk.last_line()["finish"] == "closed"


def test_drive_needs_no_callback(desk: Desk) -> None:
    desk.use(WIRES[0])
    desk.play(WIRES[0], SLOWLY)
    assert models.stream(QUESTION, CONTEXT).consume().text == TEXT


def test_a_scripted_stream_is_told_word_by_word(desk: Desk) -> None:
    desk.journal.route(default={"provider": "echo"})
    with testing.script("Low water is at noon."), models.stream(QUESTION, CONTEXT) as stream:
        assert list(stream) == ["Low ", "water ", "is ", "at ", "noon."]
