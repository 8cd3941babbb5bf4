"""The tokens pages in a browser: charts that show the totals of the log, the way down to a line, a phone, the keys."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from muse.amounts import count, usd
from tests.browser.harness import PHONE, Served, Watch, axe, is_within_width
from tests.journal_folder import JournalFolder
from tests.log_days import DAY, append, line, usage_says

ALL = "/app/tokens/?from=20261101&to=20261106"
PLACES = (ALL, f"/app/tokens/{DAY}", f"/app/tokens/by/context?from={DAY}", "/app/tokens/lines?since=all")
EVIL = '<img src=x onerror="document.title=1"><script>document.title=1</script>'


def drawn(page: Page) -> dict[str, Any]:
    """What Chart.js has drawn on the page: labels and series."""
    page.wait_for_function("() => window.Chart && Chart.getChart(document.querySelector('.chart canvas'))")
    found: dict[str, Any] = page.evaluate(
        "() => { const c = Chart.getChart(document.querySelector('.chart canvas'));"
        " return {labels: c.data.labels, series: c.data.datasets.map(d => ({label: d.label, values: d.data}))} }"
    )
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("place", PLACES)
def test_pages_are_readable_in_both_looks(watch: Watch, place: str, scheme: str) -> None:
    page = watch.open(place, color_scheme=scheme)
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    assert axe(page, impacts=("critical", "serious", "moderate")) == []


def test_charts_show_the_totals_of_the_ledger(page: Page) -> None:
    total = usage_says().total
    page.goto(ALL)
    found = drawn(page)
    assert sum(sum(series["values"]) for series in found["series"]) == pytest.approx(total.cost_usd)
    expect(page.locator(".figures")).to_contain_text(usd(total.cost_usd))
    page.get_by_role("link", name="Tokens", exact=True).last.click()
    expect(page.locator("figcaption")).to_contain_text("Tokens by day")
    assert sum(sum(series["values"]) for series in drawn(page)["series"]) == total.usage.total_tokens
    expect(page.locator(".figures")).to_contain_text(count(total.usage.total_tokens))


def test_a_bar_tells_its_figures_and_leads_to_its_day(page: Page) -> None:
    page.goto(ALL)
    drawn(page)
    place = page.evaluate(
        "() => { const c = Chart.getChart(document.querySelector('.chart canvas'));"
        " const bar = c.getDatasetMeta(0).data[2]; const box = c.canvas.getBoundingClientRect();"
        " return {x: box.x + bar.x, y: box.y + (bar.y + bar.base) / 2} }"
    )
    page.mouse.move(place["x"], place["y"])
    page.wait_for_function(
        "() => Chart.getChart(document.querySelector('.chart canvas')).tooltip.title.includes('3 Nov')"
    )
    page.mouse.click(place["x"], place["y"])
    expect(page.get_by_role("heading", level=1)).to_have_text("Tuesday 3 November 2026")


def test_the_way_leads_down_to_one_line(page: Page) -> None:
    page.goto(ALL)
    page.get_by_role("link", name="Tuesday 3 November 2026").last.click()
    page.get_by_role("link", name="observe.enrich").click()
    page.get_by_role("link", name="gpt-6.1-terra").click()
    page.get_by_role("row").filter(has_text="ProviderTimeout").get_by_role("link").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("observe.enrich")
    expect(page.get_by_text("failed: the provider reported no usage")).to_be_visible()
    expect(page.locator("tr[aria-current=true]")).to_contain_text("ProviderTimeout")


def test_on_a_phone_nothing_lies_beyond_the_edge(watch: Watch) -> None:
    for place in (*PLACES, f"/app/tokens/line/{DAY}/0"):
        page = watch.open(place, viewport=PHONE)
        assert is_within_width(page), place
        assert axe(page) == []


def test_days_are_chosen_by_keyboard_alone(page: Page, served: Served) -> None:
    append(served.journal, line(cost_usd=3.5), day="20261111")  # in any order of day and month
    page.goto("/app/tokens/")
    for label in ("From", "to"):
        page.get_by_label(label, exact=True).focus()
        page.keyboard.type("11112026")
    page.keyboard.press("Enter")
    page.wait_for_url("**from=2026-11-11**")
    expect(page.locator(".figures")).to_contain_text("$3.50")


def test_text_of_the_log_is_never_markup(watch: Watch, example: JournalFolder) -> None:
    evil = dict.fromkeys(("context", "model", "segment", "route", "finish"), EVIL)
    append(example, line(**evil, error={"class": EVIL, "status": 1}), day="20261106")
    page = watch.open(ALL)
    for place in ("/app/tokens/20261106", "/app/tokens/lines?since=all", "/app/tokens/line/20261106/0"):
        page.goto(place)
        expect(page.get_by_text("<img src=x").first).to_be_visible()
        assert page.title() != "1"
        assert page.locator("main img").count() == 0


def test_a_line_that_comes_in_is_there_at_the_next_look(page: Page, served: Served) -> None:
    page.goto("/app/tokens/20261106")
    expect(page.get_by_text("No calls on this day")).to_be_visible()
    append(served.journal, line(cost_usd=7.25), day="20261106")
    page.reload()
    expect(page.locator(".figures")).to_contain_text("$7.25")


def test_a_table_comes_as_a_file(page: Page) -> None:
    page.goto(ALL)
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV of the table by context").click()
    assert download.value.suggested_filename == "tokens-by-context.csv"
