"""Shows that the index of the token log says what `muse usage` says, and survives what may happen to log and index."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from muse.types.usage import Usage
from muse.usage_index.index import LogIndex
from muse.usage_index.line_queries import LineFilter, find_line, list_lines
from muse.usage_index.queries import count_bad_lines, sums
from muse.usage_log import prices
from muse.usage_log.totals import FIELDS, Field
from tests.journal_folder import ROOT, JournalFolder
from tests.log_days import ALL, DAY, append, calls, line, log_path, same_as_usage, usage_says


@pytest.fixture(name="index")
def _index(journal: JournalFolder) -> Iterator[LogIndex]:
    index = LogIndex(journal.path)
    yield index
    index.close()


# --- the same figures as `muse usage`


@pytest.mark.parametrize("by", [*((name,) for name in FIELDS), *combinations(FIELDS, 2), FIELDS])
def test_sums_of_the_example_are_those_of_muse_usage(
    journal: JournalFolder, index: LogIndex, by: tuple[Field, ...]
) -> None:
    shutil.copytree(ROOT / "fixtures/journal/tokens", journal.tokens)
    same_as_usage(index, by)


_COUNT = st.integers(0, 10**6) | st.sampled_from([-1, True, None, "7", 1.5, 10**30])
_USAGE: st.SearchStrategy[Any] = st.fixed_dictionaries(
    {},
    optional={
        "input_tokens": _COUNT,
        "output_tokens": _COUNT,
        "cached_tokens": _COUNT,
        "cache_write_tokens": _COUNT,
        "reasoning_tokens": _COUNT,
        "prompt_token_count": _COUNT,
        "estimated": st.booleans(),
    },
) | st.sampled_from([None, [], "usage", 5])
_NAME = st.sampled_from(["insight.daily", "app.chat", "ä", "", None, 7, ["x"]])
_LINE = st.fixed_dictionaries(
    {"usage": _USAGE},
    optional={
        "context": _NAME,
        "segment": _NAME,
        "model": st.sampled_from(["gpt-6-luna", "claude-sonnet-5-5", "nobody's", "", None, 3]),
        "provider": st.sampled_from(["openai", "anthropic", "", None, {"a": 1}]),
        "cost_usd": st.none() | st.floats(0, 1e6) | st.sampled_from([float("nan"), "1", True, -0.5, 1e-300, 1e308]),
        "duration_s": st.none() | st.floats(0, 1e5) | st.sampled_from([float("inf"), "1", 0, 1e308, -1]),
        "error": st.sampled_from([None, {}, {"class": "AuthError", "status": 401}, "odd", 1]),
        "cache": st.sampled_from(["hit", "miss"]),
        "lane": st.sampled_from(["overnight", ""]),
        "route": st.sampled_from(["providers.default", "the call's own model='m'", None, 5]),
        "timestamp": st.sampled_from([None, "now", 1.5, 10**400]),
        "estimated": st.booleans(),
    },
)
_RAW = st.sampled_from([b"\n", b"  \n", b"no json\n", b"[1]\n", b"\xff\xfe\n", b'{"a": 1', b"\n\n"])


@given(st.lists(st.lists(st.tuples(st.sampled_from([DAY, "20261104"]), _LINE | _RAW), max_size=8), max_size=5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
def test_any_lines_read_in_any_portions_come_to_the_same(
    journal: JournalFolder, portions: list[list[tuple[str, Any]]]
) -> None:
    shutil.rmtree(journal.tokens, ignore_errors=True)
    index = LogIndex(journal.path)
    try:
        for portion in portions:
            for day, entry in portion:
                append(journal, entry, day=day)
            same_as_usage(index, ("day", "context", "provider", "model", "segment"))
    finally:
        index.close()


def test_a_number_that_no_call_can_have_counts_as_none(journal: JournalFolder, index: LogIndex) -> None:
    absurd = line(usage={"input_tokens": 10**40, "output_tokens": 1}, cost_usd=1e308, duration_s=1e308)
    append(journal, *[absurd] * 3, line(cost_usd=-1e308), line(duration_s=10**400))
    same_as_usage(index)
    found = sums(index, ALL).total
    assert found.total.usage.input_tokens == 2_000
    assert found.total.unpriced == 4
    assert (found.total.cost_usd, found.total.duration_s) == (0.1, 2.0)
    assert len(list_lines(index, ALL)) == 5


def test_the_longest_call_falls_into_the_last_step(journal: JournalFolder, index: LogIndex) -> None:
    append(journal, line(duration_s=1e15), line(duration_s=-1.0))
    same_as_usage(index)
    assert sums(index, ALL).total.p95_s is not None


def test_sums_beyond_64_bits_are_exact(journal: JournalFolder, index: LogIndex) -> None:
    most = 2**53 - 1
    append(journal, *[line(usage={"input_tokens": most, "output_tokens": 1})] * 3_000)
    same_as_usage(index)
    assert sums(index, ALL).total.total.usage.input_tokens == 3_000 * most > 2**64


def test_what_is_no_file_is_told_once_and_hides_no_other_day(
    journal: JournalFolder, index: LogIndex, caplog: pytest.LogCaptureFixture
) -> None:
    append(journal, line())
    (journal.tokens / "20261104.jsonl").mkdir()
    os.mkfifo(journal.tokens / "20261105.jsonl")
    (journal.tokens / "20261106.jsonl").symlink_to("nowhere")
    for _ in range(2):
        assert index.refresh().is_complete
        assert index.progress().is_complete
    assert sums(index, ALL).total.total.calls == 1
    assert index.unreadable(ALL.days) == dict.fromkeys((20261104, 20261105), "not a file")
    assert index.unreadable((20261105, 20261105)) == {20261105: "not a file"}
    assert caplog.text.count("20261104.jsonl: it cannot be read (not a file)") == 1
    (journal.tokens / "20261104.jsonl").rmdir()
    (journal.tokens / "20261105.jsonl").unlink()
    (journal.tokens / "20261106.jsonl").unlink()
    same_as_usage(index)
    assert index.unreadable(ALL.days) == {}


def test_a_day_of_the_first_centuries_is_read_like_any_other(journal: JournalFolder, index: LogIndex) -> None:
    append(journal, line(), day="00010101")
    same_as_usage(index, ("day",))
    (found,) = list_lines(index, ALL)
    assert find_line(index, found.day, found.at) is not None


@given(st.lists(st.floats(0.001, 4e4), min_size=1, max_size=60), st.sampled_from([0.5, 0.95]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25)
def test_latencies_are_told_within_ten_percent(journal: JournalFolder, durations: list[float], share: float) -> None:
    shutil.rmtree(journal.tokens, ignore_errors=True)
    append(journal, *(line(duration_s=duration) for duration in durations))
    index = LogIndex(journal.path)
    try:
        index.refresh()
        found = sums(index, ALL).total
    finally:
        index.close()
    exact = sorted(durations)[max(0, -(-int(share * 100) * len(durations) // 100) - 1)]
    assert (found.p50_s if share == 0.5 else found.p95_s) == pytest.approx(exact, rel=0.1)


def test_kept_answers_and_batch_services_are_counted_and_not_timed(journal: JournalFolder, index: LogIndex) -> None:
    own = line(route="the call's own model='gpt-6-luna'")
    append(journal, line(cache="hit", duration_s=0.0), line(lane="overnight", duration_s=40_000.0), own)
    index.refresh()
    found = sums(index, ALL).total
    assert (found.kept, found.overnight, found.own, found.total.calls) == (1, 1, 1, 3)
    assert found.p95_s == pytest.approx(2.0, rel=0.1)


# --- how it follows the log


def test_only_what_is_new_is_read(journal: JournalFolder, index: LogIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    begins: list[int] = []
    read_on = index._assessor.read

    def noted(day: str, found: Any) -> Any:
        begins.append(found.mark.done)
        return read_on(day, found)

    monkeypatch.setattr(index._assessor, "read", noted)
    size = append(journal, line(), line()).stat().st_size
    assert calls(index) == 2
    assert calls(index) == 2
    append(journal, line())
    assert calls(index) == 3
    assert begins == [0, size]


def test_a_torn_last_line_waits_until_it_is_whole(journal: JournalFolder, index: LogIndex) -> None:
    whole = json.dumps(line()).encode()
    append(journal, line(), whole[:40])
    same_as_usage(index)
    assert (calls(index), count_bad_lines(index, ALL.days)) == (1, 1)
    append(journal, whole[40:] + b"\n")
    same_as_usage(index)
    assert (calls(index), count_bad_lines(index, ALL.days)) == (2, 0)


def test_a_torn_line_that_stays_is_one_unreadable_line(journal: JournalFolder, index: LogIndex) -> None:
    append(journal, line(), b'{"context": "cut o')
    index.refresh()
    append(journal, line(), line())
    same_as_usage(index)
    assert (calls(index), count_bad_lines(index, ALL.days)) == (2, 1)


def test_blanks_behind_the_last_line_are_no_line(journal: JournalFolder, index: LogIndex) -> None:
    append(journal, line(), b" ")
    same_as_usage(index)
    assert count_bad_lines(index, ALL.days) == 0
    append(journal, line())
    same_as_usage(index)


def test_a_last_line_without_its_end_is_counted_once(journal: JournalFolder, index: LogIndex) -> None:
    append(journal, line(), json.dumps(line()).encode())
    same_as_usage(index)
    os.utime(log_path(journal), ns=(1, 1))
    same_as_usage(index)
    append(journal, b"\n", line())
    same_as_usage(index)
    append(journal, json.dumps(line()).encode())
    same_as_usage(index)
    append(journal, line())
    same_as_usage(index)


@pytest.mark.parametrize("how", ["shortened", "replaced", "edited in place", "grown and edited", "deleted", "emptied"])
def test_a_log_whose_past_has_changed_is_read_anew(journal: JournalFolder, index: LogIndex, how: str) -> None:
    path = append(journal, *(line(context=f"c{number}") for number in range(5)))
    append(journal, line(), day="20261104")
    index.refresh()
    text = path.read_bytes()
    if how == "shortened":
        path.write_bytes(b"".join(text.splitlines(keepends=True)[:2]))
    elif how == "replaced":
        other = path.with_suffix(".new")
        other.write_bytes(text.replace(b"c1", b"d1"))
        other.replace(path)
    elif how == "edited in place":
        path.write_bytes(text.replace(b"c1", b"d1"))
        os.utime(path, ns=(1, 1))
    elif how == "grown and edited":
        path.write_bytes(text.replace(b"c1", b"d1") + text)
    elif how == "deleted":
        path.unlink()
    else:
        path.write_bytes(b"")
    same_as_usage(index)


def test_a_long_log_is_read_in_portions_with_the_newest_days_first(
    journal: JournalFolder, index: LogIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muse.usage_index.index._BATCH_LINES", 3)
    for day in ("20261101", "20261102", DAY):
        append(journal, *[line()] * 6, day=day)
    shares = []
    while not (progress := index.refresh(0.0)).is_complete:
        shares.append(progress.share)
        assert sums(index, ALL, ("day",)).rows[-1].key == (DAY,)
    assert shares[0] == pytest.approx(1 / 6)
    assert shares == sorted(set(shares))
    same_as_usage(index)


def test_what_is_new_is_read_in_the_background(journal: JournalFolder, index: LogIndex) -> None:
    append(journal, *[line()] * 50)
    index.read_on()
    assert index._thread is not None
    index._thread.join(timeout=180)
    assert index.progress().is_complete
    assert sums(index, ALL).total.total.calls == 50


def test_a_line_of_ten_megabytes_is_a_line(journal: JournalFolder, index: LogIndex) -> None:
    append(journal, line(), line(context="x" * 10_000_000, note="y"), line())
    index.refresh()
    assert usage_says().total.calls == sums(index, ALL).total.total.calls == 3
    found = list_lines(index, ALL)[1]
    assert len(found.context) <= 200
    whole = find_line(index, found.day, found.at)
    assert whole is not None
    assert whole[1]["note"] == "y"
    assert list_lines(index, replace(ALL, context=found.context)) == [found]


def test_long_lines_are_read_a_few_at_a_time(
    journal: JournalFolder, index: LogIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muse.usage_index.log_reader._MOST_BYTES", 10_000)
    append(journal, *(line(note="x" * 4_000, context=f"c{number}") for number in range(20)))
    assert not index.refresh(0).is_complete
    assert sums(index, ALL).total.total.calls == 3
    same_as_usage(index)


def test_a_name_that_utf_8_cannot_hold_is_kept_with_a_question_mark(journal: JournalFolder, index: LogIndex) -> None:
    append(journal, line(context="a\ud800b"))
    index.refresh()
    assert sums(index, ALL, ("context",)).rows[0].key == ("a?b",)


def test_a_day_without_a_log_folder_is_empty(index: LogIndex) -> None:
    assert index.refresh().is_complete
    assert (sums(index, ALL).rows, list_lines(index, ALL), count_bad_lines(index, ALL.days)) == ((), [], 0)


# --- prices


def test_lines_without_a_cost_are_priced_anew_when_the_price_changes(
    journal: JournalFolder, index: LogIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = {name: value for name, value in line().items() if name != "cost_usd"}
    append(journal, older)
    append(journal, line(), day="20261104")
    same_as_usage(index)
    real = prices.cost_of

    def doubled(model: str, usage: Usage, price_id: str | None, *, calls: int = 1) -> prices.Cost | None:
        found = real(model, usage, price_id, calls=calls)
        return None if found is None else prices.Cost(2 * found.input_cost, 2 * found.output_cost)

    monkeypatch.setattr(prices, "cost_of", doubled)
    again = LogIndex(journal.path)
    try:
        assert not again.progress().is_complete
        same_as_usage(again)
    finally:
        again.close()


# --- lists of lines


def test_pages_of_lines_show_each_line_once_and_the_last_first(journal: JournalFolder, index: LogIndex) -> None:
    for day in ("20261101", DAY):
        for number in range(7):
            error = {"class": "AuthError", "status": 401} if number % 3 == 0 else None
            append(journal, line(timestamp=float(number), context=f"c{number % 2}", error=error), day=day)
    index.refresh()
    for where, only, expected in (
        (ALL, "", 14),
        (ALL, "failed", 6),
        (replace(ALL, context="c1"), "", 6),
        (replace(ALL, context="c1", days=(20261103, 20261103)), "failed", 1),
        (replace(ALL, segment="none of it"), "", 0),
    ):
        seen, before = [], (99_999_999, 0)
        while page := list_lines(index, where, LineFilter(only), before=before, limit=2):  # type: ignore[arg-type]
            seen += page
            before = (page[-1].day, page[-1].at)
        places = [(found.day, found.at) for found in seen]
        assert places == sorted(set(places), reverse=True)
        assert len(seen) == expected


def test_a_line_that_is_gone_is_not_found(journal: JournalFolder, index: LogIndex) -> None:
    append(journal, line())
    index.refresh()
    assert find_line(index, int(DAY), 0) is not None
    assert find_line(index, int(DAY), 3) is None
    log_path(journal).unlink()
    assert find_line(index, int(DAY), 0) is None


def test_lines_with_a_word_are_those_whose_names_or_errors_have_it(journal: JournalFolder, index: LogIndex) -> None:
    append(journal, line(context="app.Tides"), line(model="tide-1"), line(), day="20261101")
    error = {"class": "TideError", "status": 500}
    append(journal, line(), line(error=error, agent_id="1793807647312"), line(segment="x_tide"), day=DAY)
    index.refresh()
    found = list_lines(index, ALL, LineFilter(word="TIDE"))
    assert [(one.day, one.context, one.error) for one in found] == [
        (20261103, "insight.daily", ""),
        (20261103, "insight.daily", "TideError 500"),
        (20261101, "insight.daily", ""),
        (20261101, "app.Tides", ""),
    ]
    assert [one.error for one in list_lines(index, ALL, LineFilter(word="error 500"))] == ["TideError 500"]
    assert list_lines(index, ALL, LineFilter(word="no such")) == []
    (of_run,) = list_lines(index, ALL, LineFilter(run="1793807647312"))
    assert (of_run.run, of_run.error) == ("1793807647312", "TideError 500")
    assert list_lines(index, replace(ALL, days=(20261101, 20261101)), LineFilter(run="1793807647312")) == []
