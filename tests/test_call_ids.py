"""Shows that every line of the usage log says which call it belongs to, and which attempt at it it is."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest

from muse import models
from muse.providers import backend_of
from muse.providers._backend.attempt import CallMetadata
from muse.providers._backend.function_adapter import FunctionBackend
from muse.types.call_ids import new_call_id, parse_call_id
from muse.types.messages import Request, User
from muse.usage_index.index import LogIndex
from muse.usage_index.line_queries import lines_of_call, list_lines
from tests.desk import CONTEXT, QUESTION, WAYS, Desk
from tests.journal_folder import UNMEASURED, JournalFolder, run
from tests.log_days import ALL, append, line
from tests.provider_cases import FAMILY

OPENAI, ANTHROPIC, _ = FAMILY
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
every_way = pytest.mark.parametrize("way", WAYS)


def route(desk: Desk, **rules: Any) -> None:
    desk.reach(OPENAI, ANTHROPIC)
    desk.journal.route(default={"provider": "openai", "model": OPENAI.model, **rules})


def attempts(lines: list[dict[str, Any]]) -> list[tuple[str, int]]:
    return [(entry["call_id"], entry["attempt"]) for entry in lines]


@pytest.fixture(name="index")
def _index(journal: JournalFolder) -> Iterator[LogIndex]:
    index = LogIndex(journal.path)
    yield index
    index.close()


@every_way
def test_tries_and_fallbacks_of_a_call_have_its_id_and_are_numbered(desk: Desk, way: str) -> None:
    route(desk, retries=1, fallbacks=["anthropic"])
    desk.play(OPENAI, "error_500", "error_500")
    reply = desk.ask(way)
    assert reply.provider == "anthropic"
    assert attempts(desk.journal.lines()) == [(reply.call_id, 1), (reply.call_id, 2), (reply.call_id, 3)]


@every_way
def test_each_call_has_an_id_of_its_own(desk: Desk, way: str) -> None:
    route(desk)
    ids = [desk.ask(way).call_id for _ in range(3)]
    assert attempts(desk.journal.lines()) == [(one, 1) for one in ids]
    assert len(set(ids)) == 3


def test_calls_at_the_same_time_do_not_share_an_id(desk: Desk) -> None:
    route(desk, retries=5)
    desk.play(OPENAI, *["error_500"] * 3)

    async def ask() -> list[Any]:
        return await asyncio.gather(*(models.areply(QUESTION, CONTEXT) for _ in range(5)), return_exceptions=True)

    replies = asyncio.run(ask())
    lines = desk.journal.lines()
    by_call = {reply.call_id: len(reply.attempts) for reply in replies}
    assert len(by_call) == 5
    assert {call: [n for one, n in attempts(lines) if one == call] for call in by_call} == {
        call: list(range(1, tries + 1)) for call, tries in by_call.items()
    }


def test_the_repair_of_an_object_is_an_attempt_at_the_same_call(desk: Desk) -> None:
    route(desk)
    desk.play(OPENAI, "text", "schema")
    assert models.generate_object(QUESTION, CONTEXT, SCHEMA)["city"] == "Husum"
    (first, one), (second, two) = attempts(desk.journal.lines())
    assert (first, one, two) == (second, 1, 2)


def test_an_answer_out_of_the_cache_is_a_call_too(desk: Desk) -> None:
    route(desk, cache_s=60)
    first, kept = desk.ask("sync"), desk.ask("sync")
    assert attempts(desk.journal.lines()) == [(first.call_id, 1), (kept.call_id, 1)]
    assert first.call_id != kept.call_id


def test_each_turn_of_an_agent_is_a_call(desk: Desk) -> None:
    route(desk)
    desk.play(OPENAI, "text")
    config = {"prompt": QUESTION, "model": OPENAI.model, "disable_mcp": True, "context": CONTEXT}
    for _ in range(2):
        asyncio.run(backend_of("openai").run_agent(config))
    (first, one), (second, two) = attempts(desk.journal.lines())
    assert (one, two) == (1, 1)
    assert first != second


def test_what_other_code_logs_is_a_call_of_its_own(journal: JournalFolder) -> None:
    for _ in range(2):
        models.log_token_usage("gpt-6-luna", {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}, "elsewhere")
    (first, one), (second, two) = attempts(journal.lines())
    assert (one, two) == (1, 1)
    assert first != second


def test_a_plain_module_logs_the_call_that_it_works_for(
    journal: JournalFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = journal.path / "plugin"
    folder.mkdir()
    (folder / "plain_one.py").write_text(PLAIN)
    monkeypatch.syspath_prepend(str(folder))
    reply = FunctionBackend(import_module("plain_one"), "plain_one").reply(
        Request("m", (User(("hi",)),)), CallMetadata("app.x")
    )
    assert attempts(journal.lines()) == [(reply.call_id, 1)]


PLAIN = """
from muse.models import log_token_usage

def generate(contents, model, context=None, **options):
    log_token_usage(model, {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}, context)
    return "hello"
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_does_not_repeat_the_ids_of_its_parent() -> None:
    said = run(FORKS, **UNMEASURED).split()
    assert len(said) == 40
    assert len(set(said)) == 40


FORKS = """
import os, sys
from muse.types.call_ids import new_call_id
new_call_id()
for _ in range(3):
    if os.fork() == 0:
        os.write(1, "".join(new_call_id() + "\\n" for _ in range(10)).encode())
        os._exit(0)
    os.wait()
os.write(1, "".join(new_call_id() + "\\n" for _ in range(10)).encode())
"""


def test_an_id_is_16_hexadecimal_digits() -> None:
    ids = [new_call_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert all(len(one) == 16 and int(one, 16) >= 0 for one in ids)


# --- in the index


def test_the_index_gives_the_attempts_of_a_call_and_no_line_of_another(journal: JournalFolder, index: LogIndex) -> None:
    append(journal, line(call_id="aa", attempt=1, error={"class": "ProviderDown"}), line(call_id="bb", attempt=1))
    append(journal, line(call_id="aa", attempt=2), day="20261104")
    index.refresh()
    assert [(one.day, one.attempt, one.error) for one in lines_of_call(index, "aa")] == [
        (20261103, 1, "ProviderDown"),
        (20261104, 2, ""),
    ]
    assert [one.attempt for one in lines_of_call(index, "bb")] == [1]


def test_lines_without_an_id_are_read_and_belong_to_no_call(journal: JournalFolder, index: LogIndex) -> None:
    append(journal, line(), line())
    index.refresh()
    assert [(one.call_id, one.attempt) for one in list_lines(index, ALL)] == [("", None)] * 2
    assert lines_of_call(index, "") == []


@pytest.mark.parametrize("odd", [7, None, "", "x" * 1000, "\ud800", ["a"], True])
def test_an_id_that_is_none_counts_as_missing(journal: JournalFolder, index: LogIndex, odd: object) -> None:
    append(journal, json.dumps(line(call_id=odd, attempt=odd)).encode() + b"\n")
    index.refresh()
    assert [(one.call_id, one.attempt) for one in list_lines(index, ALL)] == [("", None)]
    assert parse_call_id({"call_id": "aa", "attempt": odd}) == ("aa", 7 if odd == 7 else None)
