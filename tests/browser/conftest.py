"""Fixtures of the tests in a browser: `served`, `watch` and `page` over a copy of the example journal."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from tests.browser.harness import Served, Watch, chromium, copy_example, serving
from tests.journal_folder import JournalFolder


@pytest.fixture(scope="module", name="browser")
def _browser() -> Iterator[Browser]:
    """A Chromium for the tests of one file; it ends with them, as its event loop stands in the way of asyncio tests."""
    with chromium() as browser:
        yield browser


@pytest.fixture(name="example")
def _example(journal: JournalFolder) -> JournalFolder:
    """The journal of the test, with the example days in it."""
    copy_example(journal)
    return journal


@pytest.fixture(name="served")
def _served(example: JournalFolder) -> Iterator[Served]:
    """`muse serve` over the example journal."""
    with serving(example) as served:
        yield served


@pytest.fixture(name="watch")
def _watch(browser: Browser, served: Served) -> Iterator[Watch]:
    """Opens pages of `served`; a page that breaks a rule fails the test at its end."""
    watch = Watch(browser, served.url)
    yield watch
    watch.close()


@pytest.fixture(name="page")
def _page(watch: Watch) -> Page:
    """One page, wide and light, at no address yet: `page.goto("/app/tokens/")`."""
    return watch.open()
