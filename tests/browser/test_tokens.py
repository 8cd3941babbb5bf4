"""The tokens pages in a browser: charts that show the totals of the log, the way down to a line, a phone, the keys."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from muse.types.formatting import format_count, format_usd
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
    expect(page.locator(".figures")).to_contain_text(format_usd(total.cost_usd))
    page.get_by_role("link", name="Tokens", exact=True).last.click()
    expect(page.locator("figcaption")).to_contain_text("Tokens by day")
    assert sum(sum(series["values"]) for series in drawn(page)["series"]) == total.usage.total_tokens
    expect(page.locator(".figures")).to_contain_text(format_count(total.usage.total_tokens))


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
        expect(page.locator("table").get_by_text("<img src=x").first).to_be_visible()
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


def widest_table(page: Page) -> tuple[int, int]:
    """Width of the widest table of a page, and of the frame it stands in, in pixels."""
    found: list[int] = page.evaluate(
        "() => [...document.querySelectorAll('.table-wrap')].map(f => [f.scrollWidth, f.clientWidth])"
        ".sort((a, b) => (b[0] - b[1]) - (a[0] - a[1]))[0]"
    )
    return found[0], found[1]


@pytest.mark.parametrize("width", [1280, 1440, 1920])
def test_no_column_of_the_log_is_cut_off(watch: Watch, example: JournalFolder, width: int) -> None:
    error = {"class": "ProviderTimeoutError", "status": 504}
    names = {"context": "observe.describe.presentation", "model": "gemini-3.1-flash-lite-preview-20261103"}
    append(example, line(**names, error=error, segment="090500_900", estimated=True), day="20261106")
    page = watch.open("/app/tokens/lines?since=all", viewport={"width": width, "height": 900})
    expect(page.locator("tbody tr").first).to_contain_text("ProviderTimeoutError 504")
    table, frame = widest_table(page)
    assert table <= frame
    page.locator("tbody tr").first.get_by_role("link").first.click()
    expect(page.get_by_role("heading", name="All fields")).to_be_visible()
    table, frame = widest_table(page)
    assert table <= frame


@pytest.mark.parametrize("scripts", [True, False])
def test_the_log_is_filtered_by_context_model_status_run_and_text(
    watch: Watch, example: JournalFolder, scripts: bool
) -> None:
    error = {"class": "SomeOwnError", "status": 429}
    append(example, line(context="app.mine", agent_id="1793807647312", model="my-model"), day="20261106")
    append(example, line(context="app.mine", error=error), day="20261106")
    page = watch.open("/app/tokens/lines?since=all", java_script_enabled=scripts)
    rows, bar = page.locator("tbody tr"), page.get_by_role("search")
    button = bar.get_by_role("button", name="Filter")

    def listed(count: int, **chosen: str) -> None:
        for label, value in chosen.items():
            bar.locator(f"select[name={label}]").select_option(value)
        button.click()
        expect(rows).to_have_count(count)

    listed(2, context="app.mine")
    listed(1, model="my-model")
    bar.get_by_role("link", name="Clear").click()
    expect(rows).to_have_count(100)
    bar.get_by_label("Agent run").fill("1793807647312")
    listed(1)
    expect(rows).to_contain_text("my-model")
    bar.get_by_role("link", name="Clear").click()
    bar.get_by_role("searchbox", name="Text").fill("someown")
    listed(1)
    listed(1, context="app.mine", only="failed")
    assert "word=someown" in page.url
    bar.get_by_role("searchbox", name="Text").fill("no such text")
    button.click()
    expect(page.get_by_role("heading", name="No such lines")).to_be_visible()


def test_a_line_shows_the_attempts_of_its_own_call_and_no_others(watch: Watch, example: JournalFolder) -> None:
    batch = [line(call_id=f"{number:016x}", attempt=1, timestamp=1_793_980_000.0 + number) for number in range(3)]
    failed = {"error": {"class": "RateLimitError", "status": 429}, "cost_usd": 0.0}
    tries = [line(call_id="f" * 16, attempt=1, **failed), line(call_id="f" * 16, attempt=2)]
    old = [line(), line()]
    append(example, *batch, *tries, *old, day="20261106")
    page = watch.open("/app/tokens/lines?from=20261106&to=20261106")
    for row, attempts in ((6, 1), (5, 1), (3, 2), (2, 2)):
        page.goto("/app/tokens/lines?from=20261106&to=20261106")
        page.locator("tbody tr").nth(row).get_by_role("link").first.click()
        expect(page.get_by_role("region", name="Attempts of this call").locator("tbody tr")).to_have_count(attempts)
        expect(page.locator("tr[aria-current=true]")).to_have_count(1)
    expect(page.get_by_text("2 attempts, $0.10 in all")).to_be_visible()
    page.goto("/app/tokens/lines?from=20261106&to=20261106")
    page.locator("tbody tr").first.get_by_role("link").first.click()
    expect(page.get_by_text("is not known")).to_be_visible()
    expect(page.get_by_role("region", name="Attempts of this call")).to_have_count(0)


def test_links_lead_from_a_context_to_its_rule_and_back_to_its_cost(page: Page) -> None:
    page.goto("/app/tokens/by/model?since=all&context=observe.enrich")
    page.get_by_role("link", name="Change its rule").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("observe.enrich")
    expect(page.get_by_role("button", name="Save")).to_be_visible()
    page.get_by_role("link", name="Its cost").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Tokens")
    expect(page.locator(".chips")).to_contain_text("context: observe.enrich")
    page.goto(f"/app/tokens/line/{DAY}/0")
    page.get_by_role("link", name="Its provider").click()
    expect(page.locator("article:focus")).to_be_visible()


def test_the_embedded_model_has_a_price_also_in_older_lines(watch: Watch, example: JournalFolder) -> None:
    page = watch.open(ALL)
    expect(page.locator(".figures")).to_be_visible()
    expect(page.get_by_text("no known price")).to_have_count(0)
    free = {"provider": "local", "model": "smollm2-135m-instruct-q4_1", "cost_usd": None}
    append(example, line(**free, cost_note="no price known"), day="20261106")
    page.goto("/app/tokens/20261106")
    expect(page.locator(".figures")).to_contain_text("$0")
    expect(page.get_by_text("no known price")).to_have_count(0)


@pytest.mark.parametrize("place", [ALL, f"/app/tokens/{DAY}", "/app/tokens/lines?since=all"])
def test_on_a_phone_no_table_is_wider_than_its_frame(watch: Watch, place: str) -> None:
    page = watch.open(place, viewport={"width": 375, "height": 740})
    expect(page.locator("table.cards").last).to_be_visible()
    table, frame = widest_table(page)
    assert table <= frame
    expect(page.locator("table.cards td[data-label=Cost]").last).to_be_visible()
