"""Conformance: every provider gives the same reply, the same errors and the same log lines for the same scenario."""

from __future__ import annotations

import pytest

from muse import providers
from tests.desk import CONTEXT, QUESTION, WAYS, Desk
from tests.loopback.outcomes import SERVED, TEXT
from tests.loopback.server import Answer
from tests.provider_cases import CASES, FAILURES, FAMILY, REPLIES, WIRES, Case, expected_reply

_REPLIES = [(case, scenario) for case in CASES for scenario in REPLIES[case.wire]]
_FAILURES = [(case, scenario) for case in CASES for scenario in FAILURES[case.wire]]
every_case = pytest.mark.parametrize("case", CASES, ids=str)
every_wire = pytest.mark.parametrize("case", WIRES, ids=str)
every_way = pytest.mark.parametrize("way", WAYS)


@pytest.mark.parametrize(("case", "scenario"), _REPLIES, ids=str)
def test_every_way_of_asking_gives_the_same_reply(desk: Desk, case: Case, scenario: str) -> None:
    desk.use(case)
    desk.play(case, *[scenario] * len(WAYS))
    seen = {way: desk.see(way) for way in WAYS}
    expected = expected_reply(case.wire, scenario)
    assert seen == dict.fromkeys(WAYS, expected)
    assert len(desk.server.requests) == len(desk.journal.lines()) == len(WAYS)


@pytest.mark.parametrize(("case", "scenario"), _FAILURES, ids=str)
def test_every_way_of_asking_gives_the_same_error(desk: Desk, case: Case, scenario: str) -> None:
    desk.use(case)
    desk.play(case, *[scenario] * len(WAYS))
    seen = {way: desk.see(way).failure for way in WAYS}
    assert seen == dict.fromkeys(WAYS, FAILURES[case.wire][scenario])
    assert len(desk.server.requests) == len(desk.journal.lines()) == len(WAYS), "no SDK retries"


@every_way
@every_case
def test_a_reply_has_one_line_with_all_that_is_known(desk: Desk, case: Case, way: str) -> None:
    desk.use(case)
    desk.play(case, "cached")
    reply = desk.ask(way, segment="20261120/090000_300")
    (line,) = desk.journal.lines()
    counts = {"input_tokens": 2024, "output_tokens": 7, "total_tokens": 2031, "cached_tokens": 1920}
    written = {"cache_write_tokens": 64} if case.wire in {"openai", "anthropic"} else {}
    assert line["usage"] == counts | written
    assert (line["context"], line["route"], line["segment"]) == (CONTEXT, "providers.default", "20261120/090000_300")
    assert (line["provider"], line["model"], line["model_asked"]) == (case.name, SERVED[case.wire], case.model)
    assert line["finish"] == "stop"
    assert line["duration_s"] > 0
    assert ("cost_note" in line) == (line["cost_usd"] is None)
    assert (line["cost_usd"], line.get("error")) == (reply.cost_usd, None)
    assert [attempt.usage for attempt in reply.attempts] == [reply.usage]
    assert reply.route is not None
    assert (reply.provider, reply.route.model, reply.usage.requests) == (case.name, case.model, 1)


@every_wire
def test_the_family_has_a_cost_and_a_free_provider_costs_nothing(desk: Desk, case: Case) -> None:
    desk.use(case)
    assert (desk.ask("sync").cost_usd or 0) > 0


@every_way
@every_wire
def test_an_unusable_answer_is_logged_with_what_it_cost(desk: Desk, case: Case, way: str) -> None:
    desk.use(case)
    desk.play(case, "truncated", "blocked", "empty")
    finishes = {"TruncatedReply": "length", "BlockedReply": "blocked", "EmptyReply": "stop"}
    for kind, finish in finishes.items():
        error = desk.fail(way)
        line = desk.last_line()
        assert type(error).__name__ == kind == line["error"]["class"]
        assert (line["finish"], line["usage"]["input_tokens"]) == (finish, 24)
        assert (line["model"], line["model_asked"]) == (SERVED[case.wire], case.model)


@every_way
@every_wire
def test_an_error_is_logged_with_its_class_status_and_code(desk: Desk, case: Case, way: str) -> None:
    desk.use(case)
    desk.play(case, "error_429")
    desk.fail(way)
    (line,) = desk.journal.lines()
    expected = FAILURES[case.wire]["error_429"]
    assert line["error"] == {"class": "RateLimitError", "status": 429, "code": expected.code}
    assert (line["finish"], line["cost_usd"], line["usage"]["total_tokens"]) == (None, 0.0, 0)
    assert (line["model"], line["model_asked"], line["context"]) == (case.model, case.model, CONTEXT)


@every_way
@every_case
def test_an_error_that_quotes_the_key_does_not_pass_it_on(
    desk: Desk, case: Case, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    desk.use(case)
    words = f"Incorrect API key provided: {case.key}"
    desk.play(case, Answer({"error": {"message": words, "type": "invalid_request_error", "code": 401}}, status=401))
    error = desk.fail(way)
    assert "Incorrect API key provided: " in str(error)
    if case.has_key:
        said = [str(error), repr(error), *map(str, error.args), *map(str, caplog.records), caplog.text]
        assert not [text for text in [*said, desk.journal.log_bytes().decode()] if case.key in text]


@every_wire
def test_a_key_reaches_its_own_provider_and_no_other(desk: Desk, case: Case) -> None:
    desk.reach(*CASES)
    desk.use(case)
    for way in WAYS:
        request = desk.sent(way)
        assert case.key in request.headers.get("authorization", "") + request.head.decode("latin-1")
        others = [other.key for other in CASES if other is not case]
        assert not [key for key in others if key.encode() in request.head + request.content]
        assert case.key.encode() not in request.content
        assert case.key not in request.target


@every_wire
async def test_the_seeds_functions_are_those_of_every_provider_module(desk: Desk, case: Case) -> None:
    desk.use(case)
    module = providers.get_provider_module(case.name)
    assert module.__all__ == ["generate", "agenerate", "run_agent"]
    assert module.generate(QUESTION, case.model, context="x.y") == TEXT
    assert module.generate(contents=QUESTION, model=case.model) == TEXT
    assert await module.agenerate(QUESTION, case.model, 0.3, 8192 * 2, None, False, None, 5.0) == TEXT
    contexts = [line["context"] for line in desk.journal.lines()]
    assert contexts[0] == "x.y"
    assert all(".test_the_seeds_functions" in context for context in contexts[1:])


@pytest.mark.parametrize("case", FAMILY, ids=str)
def test_a_missing_key_is_a_value_error_that_names_it(desk: Desk, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.use(case)
    monkeypatch.delenv(case.key_env)
    for way in WAYS:
        with pytest.raises(ValueError, match=f"{case.key_env} not found in environment"):
            desk.ask(way)
    assert not desk.server.requests
    assert {line["error"]["class"] for line in desk.journal.lines()} == {"MissingKeyError"}
