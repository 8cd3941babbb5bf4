"""The first page in a browser: its two looks, a phone, the keyboard, and what readers of screens get."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.harness import NEEDED, PHONE, Served, Watch, axe, find_browser, focused, is_within_width, serving
from tests.journal_folder import ROOT, JournalFolder


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_start_page_is_readable_in_both_looks(watch: Watch, scheme: str) -> None:
    page = watch.open("/", color_scheme=scheme)
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    assert axe(page) == []


def test_every_app_is_one_link_away(page: Page) -> None:
    page.goto("/")
    links = page.get_by_role("navigation", name="Apps").get_by_role("link")
    for number in range(links.count()):
        page.goto("/")
        links.nth(number).click()
        expect(page.get_by_role("navigation", name="Apps").locator("[aria-current=page]")).to_have_count(1)
        expect(page.get_by_role("heading", level=1)).to_be_visible()


def test_on_a_phone_nothing_lies_beyond_the_edge(watch: Watch) -> None:
    page = watch.open("/", viewport=PHONE)
    assert is_within_width(page)
    assert axe(page) == []


def test_the_keyboard_skips_to_the_content_first(page: Page) -> None:
    page.goto("/")
    page.keyboard.press("Tab")
    assert focused(page) == "a Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


def test_the_choice_of_colours_is_remembered(page: Page) -> None:
    page.goto("/")
    button = page.get_by_role("button", name="Colours: as the system")
    button.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Colours: dark")).to_be_visible()
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 29)"


def test_what_a_page_does_wrong_fails_its_test(watch: Watch, served: Served) -> None:
    page = watch.open("/")
    page.evaluate("() => { const s = document.createElement('script'); s.textContent = '1'; document.body.append(s) }")
    page.evaluate("() => console.error('an error')")
    page.goto(served.url.replace("127.0.0.1", "localhost"))
    with pytest.raises(pytest.fail.Exception, match="an error"):
        watch.close()
    assert any("Content Security Policy" in fault for fault in watch.faults)
    assert any("another host" in fault for fault in watch.faults)
    watch.allow(".")


def test_without_a_browser_the_tests_are_skipped_or_fail_where_one_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv(NEEDED, raising=False)
    with pytest.raises(pytest.skip.Exception, match="no Chromium"):
        find_browser()
    monkeypatch.setenv(NEEDED, "1")
    with pytest.raises(pytest.fail.Exception, match="no Chromium"):
        find_browser()


def test_every_page_names_the_journal(page: Page, served: Served) -> None:
    for path in ("/", "/app/tokens/", "/app/todos/"):
        page.goto(path)
        expect(page.locator(".journal")).to_have_attribute("title", str(served.journal.path))
        expect(page.locator(".journal")).to_contain_text(served.journal.path.name)


def test_a_page_says_that_its_scripts_are_not_installed_and_asks_for_none(
    example: JournalFolder, browser: Browser, tmp_path: Path
) -> None:
    apps = tmp_path / "clone" / "apps"
    shutil.copytree(ROOT / "apps", apps, ignore=shutil.ignore_patterns("vendor", "__pycache__"))
    with serving(example, PYTHONPATH=str(apps.parent)) as served:
        watch = Watch(browser, served.url)
        for path in ("/", "/app/tokens/?from=20261101&to=20261106", "/app/settings/"):
            page = watch.open(path)
            page.wait_for_load_state("networkidle")
            expect(page.get_by_text("this installation has no htmx.min.js, chart.js")).to_be_visible()
            assert axe(page) == []
        watch.close()


def test_moments_of_today_are_said_as_how_long_ago_they_were(page: Page) -> None:
    page.goto("/")
    stamp = "new Date(Date.now() - 3 * 60_000).toISOString()"
    page.evaluate(f"document.querySelector('main').innerHTML = `<time data-ago datetime=\"${{{stamp}}}\">1 Dec</time>`")
    page.evaluate("document.dispatchEvent(new CustomEvent('htmx:load', {detail: {elt: document.body}}))")
    expect(page.locator("main time")).to_have_text("3 min ago")
    expect(page.locator("main time")).to_have_attribute("title", "1 Dec")


def test_the_start_page_says_that_the_default_cannot_answer_and_where_to_mend_it(
    journal: JournalFolder, browser: Browser
) -> None:
    with serving(journal) as served:
        watch = Watch(browser, served.url)
        page = watch.open("/")
        expect(page.locator("#nobody")).to_contain_text("cannot answer yet")
        expect(page.locator("#nobody")).to_contain_text("it has no key")
        assert axe(page) == []
        page.locator("#nobody").get_by_role("link", name="Save a key").click()
        expect(page.get_by_role("region", name="no key").get_by_label("Key", exact=True)).to_be_visible()
        watch.close()
