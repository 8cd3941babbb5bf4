"""Answers of forms that nobody expects: no foreign exception comes out, no key leaks, no line of the log is lost."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from muse import models
from muse.errors import ConfigError, InvalidReply, MuseError, RequestError
from tests.desk import CONTEXT, QUESTION, WAYS, Desk
from tests.loopback.behaviours import Answer, Raw
from tests.provider_cases import WIRES, Case
from tests.reply_bodies import GOOD_END, streamed_call
from tests.reply_bodies import events as stream_events

ROOT = Path(__file__).resolve().parent.parent
SCENARIOS = ("text", "thinking", "tools", "error_429")
KEY = "sk-very-secret-key-1234"

every_wire = pytest.mark.parametrize("case", WIRES, ids=lambda case: case.name)


def body_of(case: Case, scenario: str) -> Any:
    path = ROOT / "fixtures" / "wire" / case.wire / f"{scenario}.json"
    return json.loads(path.read_text(encoding="utf-8"))


def places(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value inside `value`."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in entries:
        yield (*way, key)
        yield from places(inner, (*way, key))


def changed(body: Any, way: tuple[Any, ...], other: Any) -> Any:
    """A copy of `body` with another value at `way`, or none where `other` is `...`."""
    made = copy.deepcopy(body)
    inner = made
    for key in way[:-1]:
        inner = inner[key]
    if other is ...:
        del inner[way[-1]]
    else:
        inner[way[-1]] = other
    return made


def whole(body: bytes) -> bytes:
    """An HTTP answer with `body` as it is."""
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


@every_wire
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_an_answer_with_anything_in_any_place_gives_a_reply_or_an_error_of_muse(
    desk: Desk, case: Case, data: st.DataObject
) -> None:
    desk.reach(case)
    desk.journal.write({"providers": case.providers(desk.server.url) | {"breaker": {"failures": 0}}})
    found = body_of(case, data.draw(st.sampled_from(SCENARIOS)))
    way = data.draw(st.sampled_from(list(places(found["body"]))))
    odd = changed(found["body"], way, data.draw(st.sampled_from([..., None, 5, "x", [], {}, ["y"], {"z": 1}, -3])))
    desk.server.reset()
    desk.play(case, Answer(odd, found["status"]))
    before = len(desk.journal.lines()) if (desk.journal.path / "tokens").exists() else 0
    with suppress(MuseError):
        desk.ask(data.draw(st.sampled_from(["sync", "async"])))
    assert len(desk.journal.lines()) == before + 1


@every_wire
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_stream_with_anything_in_any_place_gives_a_reply_or_an_error_of_muse(
    desk: Desk, case: Case, data: st.DataObject
) -> None:
    desk.reach(case)
    desk.journal.write({"providers": case.providers(desk.server.url) | {"breaker": {"failures": 0}}})
    told = data.draw(
        st.sampled_from([stream_events(case.wire, "one two", GOOD_END[case.wire]), streamed_call(case.wire)])
    )
    way = data.draw(st.sampled_from(list(places(told))))
    odd = changed(told, way, data.draw(st.sampled_from([..., None, 5, "x", [], {}, ["y"], {"z": 1}, -3])))
    desk.server.reset()
    desk.play(case, Raw(whole_stream(odd)))
    before = len(desk.journal.lines()) if (desk.journal.path / "tokens").exists() else 0
    with suppress(MuseError):
        reply = desk.ask(data.draw(st.sampled_from(["stream", "astream"])))
        json.dumps([reply.text, reply.thinking, [dict(call.args) for call in reply.turn.calls]]).encode()
    assert len(desk.journal.lines()) == before + 1


def whole_stream(told: list[Any]) -> bytes:
    """An HTTP answer with these values as its events."""
    lines = "".join(f"data: {json.dumps(value)}\n\n" for value in told)
    return f"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n{lines}".encode()


@every_wire
@pytest.mark.parametrize("body", [b"\xff", b'{"a":"\xff"}', b"[" * 100_000, b"null", b'"x"', b"[]"])
def test_a_body_that_is_no_object_is_unreadable(desk: Desk, case: Case, body: bytes) -> None:
    desk.use(case)
    for way in ("sync", "async"):
        desk.play(case, Raw(whole(body)))
        assert desk.fail(way).args


@every_wire
def test_a_redirect_is_not_followed_since_it_could_carry_the_key(desk: Desk, case: Case) -> None:
    desk.use(case)
    elsewhere = desk.server.url.replace("127.0.0.1", "localhost")
    for way in WAYS:
        before = len(desk.server.requests)
        desk.play(case, Answer({}, 307, {"location": f"{elsewhere}/elsewhere"}))
        assert isinstance(desk.fail(way), RequestError)
        assert len(desk.server.requests) == before + 1


@pytest.mark.parametrize("place", ["code", "type", "message"])
def test_a_key_that_a_server_quotes_is_masked_wherever_it_stands(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    case = WIRES[0]
    desk.use(case)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    desk.play(case, Answer({"error": {"message": "no", "code": "c", "type": "t", place: f"seen {KEY}"}}, 401))
    error: BaseException | None = desk.fail("sync")
    while error is not None:
        assert KEY not in f"{error} {error!r} {error.args}"
        error = error.__cause__
    assert KEY not in json.dumps(desk.journal.lines())


@pytest.mark.parametrize(
    "address", ["https://u:hunter2pw@host/v1", "ftp://host/v1", "host/v1", "http://[::1", "http://"]
)
def test_an_address_that_is_none_or_holds_a_password_is_refused_without_quoting_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    desk.use(WIRES[0])
    monkeypatch.setenv("OPENAI_BASE_URL", address)
    for way in WAYS:
        error = desk.fail(way)
        assert isinstance(error, ConfigError)
        assert "hunter2pw" not in str(error)


def test_half_a_surrogate_pair_in_a_reply_does_not_break_the_next_turn(desk: Desk) -> None:
    case = WIRES[0]
    desk.use(case)
    odd = changed(body_of(case, "text")["body"], ("output", 0, "content", 0, "text"), '{"a": "\ud800"')
    desk.play(case, Raw(whole(json.dumps(odd).encode())), Raw(whole(json.dumps(odd).encode())))
    with pytest.raises(InvalidReply):
        models.generate_object(QUESTION, CONTEXT, {"type": "object"})


def test_a_reply_nested_without_end_is_an_invalid_reply(desk: Desk) -> None:
    case = WIRES[0]
    desk.use(case)
    odd = changed(body_of(case, "text")["body"], ("output", 0, "content", 0, "text"), "[" * 100_000)
    desk.play(case, Answer(odd), Answer(odd))
    with pytest.raises(InvalidReply):
        models.generate_object(QUESTION, CONTEXT, {"type": "object"})


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"system_instruction": 5}, "system_instruction: found int"),
        ({"json_schema": "x"}, "json_schema: found str"),
        ({"model": "a\nb"}, "model: found"),
        ({"temperature": float("nan")}, "temperature: found nan"),
        ({"max_output_tokens": True}, "max_output_tokens: found True"),
        ({"timeout_s": "3"}, "timeout_s: found '3'"),
        ({"thinking_budget": 1.5}, "thinking_budget: found 1.5"),
    ],
)
def test_an_option_of_a_wrong_type_is_named(desk: Desk, option: dict[str, Any], said: str) -> None:
    desk.use(WIRES[0])
    with pytest.raises(ValueError, match=said.replace("(", r"\(")):
        models.reply(QUESTION, CONTEXT, **option)
