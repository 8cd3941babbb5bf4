"""Tool calls out of answers: streamed pieces joined, arguments read, ids unique in a run and fit for each provider."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muse.errors import TruncatedReply
from muse.providers import backend_of
from muse.providers._backend.backend import ProviderBackend
from muse.providers._backend.provider import Provider
from muse.providers._replies.tool_calls import IdRule, ToolCallJoiner, args_text, fit_ids, fresh_ids, parse_args
from muse.types.messages import Assistant, Request, ToolCall, ToolResult, ToolResults, Turn, User
from tests.desk import WAYS, Desk
from tests.provider_cases import WIRES, Case
from tests.reply_bodies import GOOD_END, LIMIT_END, body, sse, streamed_call, whole

every_wire = pytest.mark.parametrize("case", WIRES, ids=str)
names = st.sampled_from(["get", "read_file", "now"])
arguments = st.dictionaries(st.text(max_size=4), st.text(max_size=6) | st.integers(), max_size=3)


def provider_of(case: Case) -> Provider:
    backend = backend_of(case.name)
    assert isinstance(backend, ProviderBackend)
    return backend.provider


# Streamed pieces of Chat Completions


@st.composite
def streamed_calls(draw: st.DrawFn) -> tuple[list[list[dict[str, Any]]], list[tuple[str, str, dict[str, Any]]]]:
    """The deltas of a server that leaves out ids or indices, or repeats names and ids; and the calls they mean."""
    has_ids, has_indices = draw(st.booleans()), draw(st.booleans())
    repeats_id = has_ids and draw(st.booleans())
    repeats_name = draw(st.booleans())
    told = draw(st.lists(st.tuples(names, arguments), min_size=1, max_size=3))
    first = 0 if has_ids or has_indices else 1  # else nothing tells a next call from a name that is said again
    deltas: list[list[dict[str, Any]]] = []
    for place, (name, args) in enumerate(told):
        text = json.dumps(args)
        cuts = sorted(draw(st.lists(st.integers(first, len(text)), max_size=4)))
        parts = [text[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        for number, part in enumerate(parts):
            is_first = number == 0
            function: dict[str, Any] = {"arguments": part}
            function |= {"name": name} if is_first or repeats_name else {}
            piece: dict[str, Any] = {"function": function}
            piece |= {"id": f"id-{place}"} if has_ids and (is_first or repeats_id) else {}
            piece |= {"index": place} if has_indices else {}
            deltas.append([piece])
    calls = [(f"id-{place}" if has_ids else "", name, args) for place, (name, args) in enumerate(told)]
    return deltas, calls


@given(streamed_calls())
def test_pieces_are_joined_whatever_the_server_leaves_out_or_repeats(
    case: tuple[list[list[dict[str, Any]]], list[tuple[str, str, dict[str, Any]]]],
) -> None:
    deltas, calls = case
    joiner = ToolCallJoiner()
    for delta in deltas:
        joiner.add(delta)
    found = [
        (call["id"], call["function"]["name"], dict(parse_args(call["function"]["arguments"])))
        for call in joiner.calls()
    ]
    assert found == calls


def joined(*deltas: list[dict[str, Any]]) -> list[tuple[str, str, Any]]:
    joiner = ToolCallJoiner()
    for delta in deltas:
        joiner.add(delta)
    return [(one["id"], one["function"]["name"], one["function"]["arguments"]) for one in joiner.calls()]


def piece(args: Any = "", *, name: str | None = None, **further: Any) -> dict[str, Any]:
    return {"function": {"arguments": args} | ({"name": name} if name else {}), **further}


def test_parallel_calls_that_all_have_index_zero_are_told_apart_by_their_ids() -> None:
    found = joined(
        [piece('{"a": 1}', name="get", id="a", index=0)],
        [piece('{"a": 2}', name="get", id="b", index=0)],
    )
    assert found == [("a", "get", '{"a": 1}'), ("b", "get", '{"a": 2}')]


def test_a_server_that_makes_up_an_id_for_each_piece_still_means_one_call() -> None:
    found = joined(
        [piece("", name="get", id="a", index=0)], [piece('{"a"', id="b", index=0)], [piece(": 1}", id="c", index=0)]
    )
    assert found == [("a", "get", '{"a": 1}')]


def test_calls_of_one_index_and_name_under_two_ids_are_told_apart_while_both_are_open() -> None:
    found = joined(
        [piece('{"a"', name="get", id="a", index=0)],
        [piece('{"a"', name="get", id="b", index=0)],
        [piece(": 1}", id="a", index=0)],
        [piece(": 2}", id="b", index=0)],
    )
    assert found == [("a", "get", '{"a": 1}'), ("b", "get", '{"a": 2}')]
    nested = joined([piece('{"a": ', name="get", id="a", index=0)], [piece('{"b": 1}}', name="get", id="c", index=0)])
    assert nested == [("a", "get", '{"a": {"b": 1}}')]


def test_two_nameless_pieces_of_one_event_are_two_calls_and_order_follows_the_index() -> None:
    assert joined([piece("{}", name="now"), piece("{}", name="now")]) == [("", "now", "{}")] * 2
    assert joined([piece("", name="now"), piece("", name="now")]) == [("", "now", "{}")] * 2
    assert joined([piece("{}", name="b", index=4)], [piece("{}", name="a", index=2)]) == [
        ("", "a", "{}"),
        ("", "b", "{}"),
    ]


@pytest.mark.parametrize(
    ("args", "meant"),
    [
        (None, {}),
        ("", {}),
        (" ", {}),
        ("null", {}),
        ({}, {}),
        ({"a": 1}, {"a": 1}),
        ('{"a": 1}', {"a": 1}),
        ('"{\\"a\\": 1}"', {"a": 1}),
        ('{"a": "\\ud83d\\ude00\\ud83d"}', {"a": "\U0001f600\ufffd"}),
        ('{"a": "two\nlines"}', {"a": "two\nlines"}),
        ('{"a": 1}{"a": 1}', {"a": 1}),
        ('{}{"a": 1}', {"a": 1}),
        ('{"a": 1}{"a": 2}', {"_invalid": '{"a": 1}{"a": 2}'}),
        ("[1]", {"_invalid": [1]}),
        ('{"a": ', {"_invalid": '{"a": '}),
        (5, {"_invalid": 5}),
    ],
)
def test_arguments_may_be_an_object_text_or_nothing(args: Any, meant: dict[str, Any]) -> None:
    assert parse_args(args) == meant
    if "_invalid" not in meant:
        assert parse_args(args_text(args)) == meant
    assert joined([piece(args, name="get")])[0][1] == "get"
    assert parse_args(joined([piece(args, name="get")])[0][2]) == meant or args == 5


# Arguments and ids in each wire form


@pytest.mark.parametrize("args", [None, {}, "", "{}", "null", {"a": 1}, '{"a": 1}'])
@every_wire
def test_every_form_of_arguments_is_read_in_every_wire_form(case: Case, args: Any) -> None:
    request = Request(case.model, (User(("x",)),))
    told = body(case.wire, "", GOOD_END[case.wire], [("a1", "get", args)])
    if case.wire == "google" and isinstance(args, str):
        return
    (call,) = provider_of(case).decode(told, request).turn.calls
    assert (call.call_id, call.name, dict(call.args)) == ("a1", "get", {"a": 1} if "1" in str(args) else {})


@pytest.mark.parametrize("told", [(None, None), ("same", "same"), ("", "x")])
@every_wire
def test_every_call_of_a_run_has_its_own_id_and_its_result_the_same(case: Case, told: tuple[str | None, ...]) -> None:
    provider = provider_of(case)
    args: Any = "{}" if case.wire in ("openai", "compatible") else {}
    turns: tuple[Turn, ...] = (User(("x",)),)
    answer = body(case.wire, "", GOOD_END[case.wire], [(call_id, "now", args) for call_id in told])
    for _ in range(3):
        turn = provider.decode(answer, Request(case.model, turns)).turn
        results = ToolResults(tuple(ToolResult(call.call_id, call.name, ("42",)) for call in turn.calls))
        turns = (*turns, turn, results)
    ids = [call.call_id for turn in turns if isinstance(turn, Assistant) for call in turn.calls]
    assert len(set(ids)) == len(ids) == 6
    assert all(ids)
    asked, answered = wire_ids(provider.encode(Request(case.model, turns)).payload)
    assert asked == answered


def wire_ids(payload: Any) -> tuple[list[str | None], list[str | None]]:
    """The ids of the calls and of the results in a payload, in order."""
    entries = list(entries_of(payload))
    asked = [found for entry in entries if (found := asked_id(entry)) is not ...]
    answered = [found for entry in entries if (found := answered_id(entry)) is not ...]
    return asked, answered


def entries_of(value: Any) -> Iterator[dict[str, Any]]:
    """The dicts in a value, outer ones first."""
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ():
        yield from entries_of(inner)


def asked_id(entry: dict[str, Any]) -> Any:
    """The id of a call; `...` if it is none."""
    if "functionCall" in entry:
        return entry["functionCall"].get("id")
    if entry.get("type") == "function_call":
        return entry["call_id"]
    is_call = entry.get("type") == "tool_use" or "arguments" in entry.get("function", ())
    return entry["id"] if is_call else ...


def answered_id(entry: dict[str, Any]) -> Any:
    """The id of the call that a result is of; `...` if it is none."""
    if "functionResponse" in entry:
        return entry["functionResponse"].get("id")
    return entry.get("tool_use_id", entry.get("tool_call_id", ...)) if "output" not in entry else entry["call_id"]


RULES = {"openai": r".{1,64}", "anthropic": r"[a-zA-Z0-9_-]+", "google": r".+", "compatible": r"[a-zA-Z0-9_-]{1,40}"}
ODD_IDS = ("functions.now:0", "x" * 80, "a b", "ünïque", "muse-call-0", "call_1", "call_1", "", "functions_now_0")


@every_wire
def test_ids_of_another_provider_are_rewritten_in_pairs_where_the_next_one_refuses_them(case: Case) -> None:
    turns: list[Turn] = [User(("x",))]
    for call_id in ODD_IDS:
        turns.append(Assistant("", (ToolCall(call_id, "now", {}),), native=None, provider="elsewhere"))
        turns.append(ToolResults((ToolResult(call_id, "now", ("42",)),)))
    payload = provider_of(case).encode(Request(case.model, tuple(turns))).payload
    asked, answered = wire_ids(payload)
    assert asked == answered
    told = [call_id for call_id in asked if call_id is not None]  # Google takes calls without ids
    assert len(set(told)) == len(told)
    assert len(asked) == len(ODD_IDS)
    assert all(re.fullmatch(RULES[case.wire], call_id) for call_id in told), told
    assert provider_of(case).encode(Request(case.model, tuple(turns))).payload == payload, "the same each time"


@pytest.mark.parametrize("model", ["mistralai/mistral-large", "devstral-small", "ministral-8b", "Mixtral-8x7B"])
def test_models_of_mistral_get_ids_of_nine_letters_and_digits(model: str) -> None:
    turns = (
        User(("x",)),
        Assistant("", (ToolCall("call_abc123", "now", {}), ToolCall("abcDEF123", "now", {}))),
        ToolResults((ToolResult("call_abc123", "now", ("42",)), ToolResult("abcDEF123", "now", ("43",)))),
    )
    asked, answered = wire_ids(provider_of(WIRES[-1]).encode(Request(model, turns)).payload)
    assert asked == answered
    assert asked[1] == "abcDEF123"
    assert all(re.fullmatch("[A-Za-z0-9]{9}", str(call_id)) for call_id in asked)


ids = st.text("ab.:- é", max_size=5) | st.sampled_from(["a", "muse-call-0", "x" * 50])


@st.composite
def conversations(draw: st.DrawFn) -> tuple[Turn, ...]:
    """Turns with calls of two providers, each call with its result; ids differ within a turn."""
    turns: list[Turn] = [User(("x",))]
    for _ in range(draw(st.integers(1, 4))):
        used = draw(st.lists(ids, max_size=3, unique=True))
        author = draw(st.sampled_from(["here", "elsewhere"]))
        calls = tuple(ToolCall(call_id, "now", {"n": number}) for number, call_id in enumerate(used))
        turns.append(Assistant("", calls, native={"said": used} if author == "here" else None, provider=author))
        if calls:
            turns.append(ToolResults(tuple(ToolResult(call_id, "now", (str(n),)) for n, call_id in enumerate(used))))
    return tuple(turns)


@given(conversations())
def test_fitting_ids_keeps_pairs_and_own_turns_and_leaves_nothing_to_fit(turns: tuple[Turn, ...]) -> None:
    rule = IdRule("[a-zA-Z0-9]{1,9}", 9)
    fitted = fit_ids(turns, "here", rule)
    assert fit_ids(fitted, "here", rule) == fitted
    seen: list[str] = []
    for before, after in zip(turns, fitted, strict=True):
        if isinstance(after, Assistant) and after.provider == "here" and after.calls:
            assert after == before
        elif isinstance(after, Assistant):
            found = [call.call_id for call in after.calls]
            assert all(re.fullmatch(rule.pattern, call_id) for call_id in found)
            seen += found
        if isinstance(after, ToolResults):
            last = next(turn for turn in reversed(fitted[: fitted.index(after)]) if isinstance(turn, Assistant))
            assert [one.call_id for one in after.results] == [call.call_id for call in last.calls]
            assert isinstance(before, ToolResults)
            assert [one.parts for one in after.results] == [one.parts for one in before.results]
    assert len(set(seen)) == len(seen)


@given(st.lists(st.lists(ids, max_size=3), max_size=4))
def test_fresh_ids_are_those_told_or_new_ones_and_never_twice(told: list[list[str]]) -> None:
    turns: list[Turn] = []
    for one in told:
        found = fresh_ids(turns, one)
        assert len(found) == len(one)
        turns.append(Assistant("", tuple(ToolCall(call_id, "now", {}) for call_id in found)))
    taken = [call.call_id for turn in turns if isinstance(turn, Assistant) for call in turn.calls]
    assert len(set(taken)) == len(taken)
    assert all(taken)


# Calls that are cut off, and blocks in odd places


@pytest.mark.parametrize("way", WAYS)
@every_wire
def test_a_call_cut_off_at_the_limit_is_truncated_after_one_request(desk: Desk, case: Case, way: str) -> None:
    desk.use(case)
    section = case.providers(desk.server.url)
    section["default"]["retries"] = 2
    desk.journal.write({"providers": section})
    half = '{"city": "Ro'
    if way in ("sync", "async"):
        args = {"_": half} if case.wire in ("anthropic", "google") else half
        told = json.dumps(body(case.wire, "", LIMIT_END[case.wire], [("a1", "get", args)])).encode()
    else:
        told = sse(streamed_call(case.wire, half, LIMIT_END[case.wire]))
    desk.play(case, whole(told))
    assert isinstance(desk.fail(way), TruncatedReply)
    assert len(desk.server.requests) == 1


def block_start(index: int | None, content: dict[str, Any]) -> dict[str, Any]:
    place = {} if index is None else {"index": index}
    return {"type": "content_block_start", "content_block": content, **place}


def block_delta(index: int | None, **delta: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "delta": delta} | ({} if index is None else {"index": index})


def gathered(*told: dict[str, Any]) -> tuple[str, str, list[tuple[str, str, dict[str, Any]]]]:
    """The pieces, text and calls of Anthropic events between a start and an end."""
    case = WIRES[1]
    accumulator = provider_of(case).gather()
    start = {"type": "message_start", "message": {"content": [], "model": "m"}}
    pieces = [accumulator.feed(event) for event in (start, *told, {"type": "message_stop"})]
    raw = accumulator.raw()
    assert raw is not None
    turn = provider_of(case).decode(raw, Request(case.model, (User(("x",)),))).turn
    return "".join(pieces), turn.text, [(call.call_id, call.name, dict(call.args)) for call in turn.calls]


CALL = {"type": "tool_use", "id": "t1", "name": "get", "input": {}}
SPOKEN = {"type": "text", "text": ""}


@pytest.mark.parametrize("numbers", [(0, 1), (1, 3), (7, 2), (None, None), (0, 0)])
def test_blocks_are_found_by_their_numbers_with_gaps_out_of_order_or_without_any(numbers: tuple[Any, Any]) -> None:
    one, two = numbers
    found = gathered(
        block_start(one, SPOKEN),
        block_delta(one, type="text_delta", text="hello"),
        {"type": "content_block_stop"} | ({} if one is None else {"index": one}),
        block_start(two, CALL),
        block_delta(two, type="input_json_delta", partial_json='{"a": '),
        block_delta(two, type="input_json_delta", partial_json="1}"),
    )
    assert found == ("hello", "hello", [("t1", "get", {"a": 1})])


def test_blocks_may_be_written_by_turns_and_begin_without_a_start() -> None:
    found = gathered(
        block_start(0, {"type": "text", "text": "Hel"}),
        block_start(1, CALL),
        block_delta(1, type="input_json_delta", partial_json='{"a": '),
        block_delta(0, type="text_delta", text="lo"),
        block_delta(1, type="input_json_delta", partial_json="1}"),
        block_delta(5, type="text_delta", text=" there"),
    )
    assert found == ("Hello there", "Hello there", [("t1", "get", {"a": 1})])


def test_a_call_whose_start_has_all_its_arguments_keeps_them() -> None:
    assert gathered(block_start(0, CALL | {"input": {"a": 1}}))[2] == [("t1", "get", {"a": 1})]
    assert gathered(block_start(0, CALL | {"input": None}))[2] == [("t1", "get", {})]


def test_items_of_a_response_that_its_end_leaves_out_are_those_of_its_events() -> None:
    provider = provider_of(WIRES[0])
    accumulator = provider.gather()
    added = {"type": "function_call", "call_id": "a1", "name": "get", "arguments": ""}
    told: list[dict[str, Any]] = [
        {"type": "response.output_text.delta", "output_index": 2, "delta": "Hel"},
        {"type": "response.output_text.delta", "output_index": 2, "delta": "lo"},
        {"type": "response.output_item.added", "output_index": 5, "item": added},
        {"type": "response.function_call_arguments.delta", "output_index": 5, "delta": '{"a": '},
        {"type": "response.function_call_arguments.delta", "output_index": 5, "delta": "1}"},
        {"type": "response.completed", "response": {"status": "completed", "output": [], "model": "m"}},
    ]
    assert "".join(map(accumulator.feed, told)) == "Hello"
    raw = accumulator.raw()
    assert raw is not None
    turn = provider.decode(raw, Request("m", (User(("x",)),))).turn
    assert (turn.text, [(one.call_id, one.name, dict(one.args)) for one in turn.calls]) == (
        "Hello",
        [("a1", "get", {"a": 1})],
    )


@pytest.mark.parametrize("key", ["item_id", None])
def test_items_without_an_index_are_found_by_their_ids_or_in_their_order(key: str | None) -> None:
    provider = provider_of(WIRES[0])
    accumulator = provider.gather()
    for name in ("one", "two"):
        known = {key: name} if key else {}
        item = {"type": "function_call", "call_id": name, "name": "get", "arguments": ""} | (
            {"id": name} if key else {}
        )
        accumulator.feed({"type": "response.output_item.added", "item": item})
        for part in ('{"a": ', f'"{name}"', "}"):
            accumulator.feed({"type": "response.function_call_arguments.delta", "delta": part, **known})
        accumulator.feed({"type": "response.output_item.done", "item": item | {"arguments": f'{{"a": "{name}"}}'}})
    accumulator.feed({"type": "response.completed", "response": {"status": "completed", "output": []}})
    raw = accumulator.raw()
    assert raw is not None
    turn = provider.decode(raw, Request("m", (User(("x",)),))).turn
    assert [(one.call_id, dict(one.args)) for one in turn.calls] == [("one", {"a": "one"}), ("two", {"a": "two"})]


def test_text_that_only_the_end_of_a_response_has_is_given_out_too() -> None:
    accumulator = provider_of(WIRES[0]).gather()
    told = {"type": "response.completed", "response": body("openai", "Hello there", "completed")}
    assert accumulator.feed({"type": "response.output_text.delta", "delta": "Hello"}) == "Hello"
    assert accumulator.feed(told) == " there"
