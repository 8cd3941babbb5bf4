"""Shows that the tokens pages say what the log says, lead down to each line, and take any text for text."""

from __future__ import annotations

import html
import json
import re
import shutil
from collections.abc import Iterator
from datetime import date
from typing import Any
from unittest.mock import Mock
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from muse.types.formatting import format_count, format_usd
from muse.usage_index.index import close_indexes
from muse.usage_log import ledger
from tests.journal_folder import ROOT, JournalFolder
from tests.log_days import DAY, append, line, usage_says
from tests.pages import client

BASE = "/app/tokens"
TODAY = f"{date.today():%Y%m%d}"
EVIL = "<script>alert(1)</script>"
PAGES = ("/", "/?show=latency", f"/{DAY}", "/by/context", "/by/segment", "/lines", "/lines?only=failed")


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    """The index of the test's journal ends with it."""
    yield
    close_indexes()


@pytest.fixture(name="pages")
def _pages(journal: JournalFolder) -> TestClient:
    """The site over an empty journal."""
    return client(journal)


@pytest.fixture(name="example")
def _example(journal: JournalFolder, pages: TestClient) -> TestClient:
    """The site over the example days."""
    shutil.copytree(ROOT / "fixtures/journal/tokens", journal.tokens)
    return pages


def page(pages: TestClient, place: str) -> str:
    """A page of the app, all days unless the address says which."""
    if "?" not in place and not re.search(r"\d{8}", place):
        place += "?since=all"
    elif "since" not in place and "from" not in place and "?" in place:
        place += "&since=all"
    answer = pages.get(f"{BASE}{place}")
    assert answer.status_code == 200, answer.text
    return answer.text


def words(text: str) -> str:
    """What one reads on a page."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).split())


def links(text: str, pattern: str) -> list[str]:
    """The addresses on a page that match."""
    found = (html.unescape(link) for link in re.findall(r'href="([^"]+)"', text))
    return [link for link in found if re.search(pattern, link)]


def chart(text: str, name: str) -> dict[str, Any]:
    """The data of a chart."""
    match = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', text, re.DOTALL)
    assert match is not None
    data: dict[str, Any] = json.loads(match[1])
    return data


# --- the figures


def test_the_first_page_shows_the_totals_of_muse_usage(example: TestClient) -> None:
    total = usage_says().total
    shown = words(page(example, "/"))
    assert f"Cost {format_usd(total.cost_usd)} Calls" in shown
    assert f"Calls {total.calls}" in shown
    assert f"Tokens {format_count(total.usage.total_tokens)}" in shown
    assert f"Failed {total.failed}" in shown


@pytest.mark.parametrize("stack", ["provider", "context", "model"])
@pytest.mark.parametrize("show", ["cost", "tokens", "calls", "failed"])
def test_the_chart_adds_up_to_the_log_and_its_table_has_the_same_figures(
    example: TestClient, stack: str, show: str
) -> None:
    text = page(example, f"/?show={show}&stack={stack}")
    drawn, said = chart(text, "by-day-chart"), usage_says().total
    expected = {"cost": said.cost_usd, "tokens": said.usage.total_tokens, "calls": said.calls, "failed": said.failed}
    assert sum(sum(series["values"]) for series in drawn["series"]) == pytest.approx(expected[show])
    assert len(drawn["series"]) <= 8
    table = text.partition("The figures of the chart as a table")[2].partition("</details>")[0]
    for series in drawn["series"]:
        assert html.escape(series["label"]) in table
        for value in filter(None, series["values"]):
            assert f">{(format_usd if show == 'cost' else format_count)(value)}</td>" in table


def test_latencies_have_a_gap_where_nothing_was_called(journal: JournalFolder, pages: TestClient) -> None:
    append(journal, line(duration_s=4.0), day="20261101")
    append(journal, line(duration_s=1.0), day="20261103")
    drawn = chart(page(pages, "/?show=latency&from=20261101&to=20261103"), "by-day-chart")
    assert drawn["type"] == "line"
    assert [series["values"][1] for series in drawn["series"]] == [None, None]
    assert drawn["series"][0]["values"][0] == pytest.approx(4.0, rel=0.1)


@pytest.mark.parametrize("field", ["context", "provider", "model", "segment"])
def test_each_group_has_its_row_and_its_figures(example: TestClient, field: Any) -> None:
    shown = words(page(example, f"/by/{field}"))
    for row in usage_says((field,)).rows:
        cost = "unknown" if row.calls == row.unpriced else format_usd(row.cost_usd)
        counts = " ".join(map(format_count, (row.calls, row.usage.input_tokens, row.usage.output_tokens)))
        assert re.search(rf"{re.escape(f'{row.key[0]} {cost}')} \S+( %)? {counts} ", shown), row


def test_a_row_says_its_share_of_the_cost_and_none_where_it_is_not_known(
    journal: JournalFolder, pages: TestClient
) -> None:
    unknown = line(context="c", model="none-such", cost_usd=None)
    append(journal, line(context="a", cost_usd=0.75), line(context="b", cost_usd=0.25), unknown)
    shown = words(page(pages, "/by/context"))
    assert "Context Cost Share of cost" in shown
    assert "a $0.75 75 % 1" in shown
    assert "b $0.25 25 % 1" in shown
    assert "c unknown – 1" in shown
    append(journal, line(context="d", cost_usd=0, provider="local"), day="20261104")
    assert "Share of tokens" in words(page(pages, "/by/context?from=20261104&to=20261104"))


def test_names_stand_beside_the_bars_of_a_chart_by_group(example: TestClient) -> None:
    assert chart(page(example, "/by/context"), "by-field-chart")["horizontal"] is True
    assert chart(page(example, f"/{DAY}"), "by-context-chart")["horizontal"] is True


def test_counts_of_failed_and_unpriced_calls_lead_to_their_lines(example: TestClient, journal: JournalFolder) -> None:
    append(journal, *[line(model="none-such", cost_usd=None)] * 2)
    text = page(example, f"/{DAY}").partition('<dl class="figures">')[2].partition("</dl>")[0]
    for only in ("failed", "unpriced"):
        (link,) = links(text, f"only={only}")
        assert example.get(link).text.count("/app/tokens/line/") == (3 if only == "failed" else 2)


def test_a_day_shows_its_own_lines_only(example: TestClient) -> None:
    of_day = next(row for row in usage_says(("day",)).rows if row.key == (DAY,))
    shown = words(page(example, f"/{DAY}"))
    assert "Tuesday 3 November 2026" in shown
    assert f"Cost {format_usd(of_day.cost_usd)}" in shown
    assert f"input {format_count(of_day.usage.input_tokens)}" in shown
    assert "← Monday 2 November 2026" in shown
    assert "Wednesday 4 November 2026 →" in shown


def test_what_is_cached_estimated_unpriced_or_at_batch_price_is_marked(
    journal: JournalFolder, pages: TestClient
) -> None:
    append(
        journal,
        line(cache="hit", usage={}, cost_usd=0.0),
        line(lane="overnight"),
        line(estimated=True),
        line(cost_usd=None),
        line(error={"class": "RateLimitError", "status": 429}),
        line(route="the call's own model='gpt-4o'"),
    )
    shown, listed = words(page(pages, f"/{DAY}")), words(page(pages, "/lines"))
    for mark in ("1 from cache", "1 at batch price", "1 estimated", "1 unpriced", "1 failed", "1 own model"):
        assert mark in shown
    for mark in ("from cache", "batch price", "estimated", "unpriced", "RateLimitError 429", "own model"):
        assert mark in listed
    assert "1 call has no known price" in shown


def test_a_line_that_comes_in_is_on_the_next_page(journal: JournalFolder, pages: TestClient) -> None:
    assert "No calls yet" in page(pages, "/")
    ledger.append(line())
    assert "Calls 1" in words(page(pages, "/"))
    ledger.append(line())
    assert "Calls 2" in words(page(pages, f"/{TODAY}"))


# --- the way down


def test_links_lead_from_the_days_down_to_one_line(example: TestClient) -> None:
    first = page(example, "/")
    day = links(first, rf"{BASE}/{DAY}$")[0]
    group = links(example.get(day).text, "context=observe.enrich")[0]
    assert f"from={DAY}&to={DAY}" in group
    deeper = links(example.get(group).text, r"/lines\?.*model=gpt-6.1-terra")[0]
    listed = example.get(deeper).text
    expected = [entry for entry in ledger.read((DAY, DAY)) if entry["context"] == "observe.enrich"]
    places = links(listed, rf"{BASE}/line/")
    assert len(places) == len(expected)
    shown = words(example.get(places[-1]).text)
    assert "ProviderTimeout" in shown
    assert "providers.contexts['observe.enrich']" in shown
    assert "failed: the provider reported no usage" in shown
    assert "Attempts of this call" in shown
    assert "2 attempts, $0.0024 in all" in shown


def test_every_link_of_the_app_leads_to_a_page(example: TestClient) -> None:
    seen: set[str] = set()
    todo = [f"{BASE}/?since=all"]
    while todo and len(seen) < 150:
        place = todo.pop(0)
        answer = example.get(place)
        assert answer.status_code == 200, f"{place}: {answer.text}"
        seen.add(place)
        if "/csv/" not in place:
            todo += [link for link in links(answer.text, f"^{BASE}/") if link not in seen and "/static/" not in link]
        todo = list(dict.fromkeys(todo))
    assert len(seen) > 100


def test_older_lines_are_a_page_away(journal: JournalFolder, pages: TestClient) -> None:
    append(journal, *(line(timestamp=1_793_700_000.0 + number) for number in range(250)))
    seen: list[str] = []
    place: str | None = f"{BASE}/lines?since=all"
    while place:
        text = pages.get(place).text
        seen += links(text, f"{BASE}/line/")
        place = next(iter(links(text, "before=")), None)
    assert len(seen) == len(set(seen)) == 250


def test_filters_stand_in_the_address_and_can_be_let_go(example: TestClient) -> None:
    text = page(example, "/?context=observe.enrich&provider=openai&stack=model")
    (free,) = [link for link in links(text, "provider=openai") if "context=" not in link and f"{BASE}/?" in link]
    assert "stack=model" in free
    rows = [row for row in usage_says(("context", "provider")).rows if row.key == ("observe.enrich", "openai")]
    assert f"Calls {rows[0].calls}" in words(text)


# --- bad input


@pytest.mark.parametrize(
    "query",
    [
        *("since=x", "since=0d", "since=9999999d", "from=20261104&to=20261103", "from=x", "show=x", "stack=x"),
        *("stack=segment", "context=" + "x" * 301),
    ],
)
def test_a_bad_choice_is_refused_with_what_is_allowed(pages: TestClient, query: str) -> None:
    answer = pages.get(f"{BASE}/?{query}")
    assert answer.status_code == 400
    assert "expected" in words(answer.text)
    assert pages.get(f"{BASE}/lines?only=x").status_code == 400
    assert pages.get(f"{BASE}/lines?before=1").status_code == 400
    assert pages.get(f"{BASE}/by/x").status_code == 404


def test_any_text_of_the_log_is_text_on_the_pages(journal: JournalFolder, pages: TestClient) -> None:
    evil = dict.fromkeys(("context", "model", "segment", "provider", "route", "finish", "cost_note", EVIL), EVIL)
    append(journal, line(**evil, error={"class": EVIL, "status": EVIL}), line(context='" onmouseover="alert(1)'))
    places = [*PAGES, f"/by/model?context={quote(EVIL)}", f"/line/{DAY}/0", f"/lines?segment={quote(EVIL)}"]
    for place in places:
        text = page(pages, place)
        assert EVIL not in text
        assert '" onmouseover="' not in text
    assert html.escape(EVIL) in page(pages, f"/line/{DAY}/0")
    assert EVIL in words(page(pages, "/by/context"))


def test_a_day_that_cannot_be_read_is_told_and_hides_no_other(journal: JournalFolder, pages: TestClient) -> None:
    append(journal, line())
    (journal.tokens / "20261104.jsonl").mkdir()
    for place in ("/", "/by/context", "/20261104"):
        shown = words(page(pages, place))
        assert "The log of Wednesday 4 November 2026 cannot be read (not a file)" in shown
        assert ("No calls on this day" if place == "/20261104" else "insight.daily") in shown
    assert "cannot be read" not in words(page(pages, f"/{DAY}"))
    for place in ("usage?day=20261104", "stats/202611"):
        answer = pages.get(f"{BASE}/api/{place}")
        assert answer.status_code == 503
        assert answer.json()["error"].startswith("20261104.jsonl: it cannot be read (not a file)")
    assert pages.get(f"{BASE}/api/usage?day={DAY}").json()["total"]["calls"] == 1


def test_a_torn_last_line_is_told_and_harms_nothing(journal: JournalFolder, pages: TestClient) -> None:
    append(journal, line(), b'{"context": "torn')
    shown = words(page(pages, f"/{DAY}"))
    assert "Calls 1" in shown
    assert "1 line of the log cannot be read and is left out." in shown


def test_a_day_without_calls_says_so(example: TestClient) -> None:
    assert "No calls on this day" in page(example, "/20200101")
    assert "It has not come yet." in page(example, "/99981231")
    assert example.get(f"{BASE}/api/usage?day=20200101").json()["total"]["calls"] == 0


def test_a_range_without_calls_shows_where_there_are_some(journal: JournalFolder, pages: TestClient) -> None:
    append(journal, line(), day="20200101")
    text = page(pages, "/?since=7d")
    assert "from Wednesday 1 January 2020 to Wednesday 1 January 2020" in words(text)
    assert links(text, "since=all")


def test_a_line_of_ten_megabytes_makes_no_page_of_ten_megabytes(journal: JournalFolder, pages: TestClient) -> None:
    append(journal, line(context="c" * 10_000_000, note="n" * 10_000_000, segment="s" * 1_000_000), line())
    for place in (*PAGES, f"/line/{DAY}/0"):
        assert len(page(pages, place)) < 200_000
    assert "(10,000,000 characters)" in page(pages, f"/line/{DAY}/0")


def test_odd_lines_are_shown_as_they_are(journal: JournalFolder, pages: TestClient) -> None:
    append(
        journal, line(timestamp="noon"), line(timestamp=1e300), {"usage": 5}, {}, line(usage={"input_tokens": 10**40})
    )
    for place in (*PAGES, "/csv/lines", "/csv/context"):
        assert page(pages, place)
    for place in links(page(pages, "/lines"), f"{BASE}/line/"):
        assert pages.get(place).status_code == 200


@pytest.mark.parametrize("place", [f"/line/{DAY}/5", f"/line/{DAY}/{10**30}", "/line/20200101/0"])
def test_a_line_that_is_not_there_is_not_found(example: TestClient, place: str) -> None:
    assert example.get(f"{BASE}{place}").status_code == 404
    assert example.get(f"{BASE}/line/{DAY}/-1").status_code == 404


def test_while_the_log_is_read_the_page_says_how_far_and_comes_anew(
    journal: JournalFolder, pages: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("apps.tokens.queries._READ_S", 0.0)
    monkeypatch.setattr("muse.usage_index.index._BATCH_LINES", 5)
    monkeypatch.setattr("muse.usage_index.index.LogIndex.read_on", Mock())
    append(journal, *[line()] * 10)
    text = page(pages, "/")
    assert "Reading the log: 50 %" in text
    assert 'hx-get="/app/tokens/progress"' in text
    assert "Calls 5" in words(text)
    done = pages.get(f"{BASE}/progress", headers={"HX-Request": "true"})
    assert done.headers["HX-Refresh"] == "true"
    assert "Reading the log" not in page(pages, "/")
