"""Pages in a real browser: `muse serve` as a process, Chromium, and what a page must never do; it knows no app."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import axe_playwright_python
import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, Response, sync_playwright

from tests.journal_folder import ROOT, JournalFolder, environment

NEEDED = "MUSE_TESTS_NEED_BROWSER"
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WIDE, PHONE = {"width": 1200, "height": 800}, {"width": 360, "height": 740}
TIMEOUT_MS = 15_000

_AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js")
_START_S, _END_S = 60, 10


class Served(NamedTuple):
    """A running `muse serve`: its address without the last slash, its journal, its process."""

    url: str
    journal: JournalFolder
    process: subprocess.Popen[str]


@contextmanager
def serving(journal: JournalFolder, *arguments: str, **changes: str) -> Iterator[Served]:
    """`muse serve` over a journal on a free port, in a process of its own; `changes` are environment variables.

    When it ends, what it logged must hold no trace.
    """
    command = [sys.executable, "-m", "muse", "serve", "--port", "0", *arguments]
    log_path = journal.path.parent / f"serve-{time.monotonic_ns()}.log"
    with (
        log_path.open("w", encoding="utf-8") as log,
        subprocess.Popen(
            command,
            env=environment(JOURNAL_PATH=str(journal.path), **changes),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        try:
            yield Served(_address_of(process, log_path), journal, process)
        finally:
            process.terminate()
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
    logged = log_path.read_text(encoding="utf-8")
    assert "Traceback" not in logged, logged


def _address_of(process: subprocess.Popen[str], log_path: Path) -> str:
    """The address that the first line names."""
    assert process.stdout is not None
    line = process.stdout.readline()
    match = re.search(r"http://\S+", line)
    assert match is not None, f"{line}\n{log_path.read_text(encoding='utf-8')}"
    return match[0].rstrip("/")


def copy_example(journal: JournalFolder) -> None:
    """Put the example days and their journal.json into a journal."""
    shutil.copytree(
        ROOT / "fixtures" / "journal",
        journal.path,
        dirs_exist_ok=True,
        ignore=shutil.ignore_patterns("agents", "index", "*.lock", "session.key", "password"),
    )


def find_browser() -> str:
    """The program of a Chromium; without one the test is skipped, or fails where one is needed."""
    found = next((path for path in map(shutil.which, PROGRAMS) if path), None)
    if found is None:
        reason = f"no Chromium on PATH ({', '.join(PROGRAMS)}); Debian and Ubuntu: apt install chromium"
        if os.environ.get(NEEDED) == "1":
            pytest.fail(f"{reason}; {NEEDED}=1 asks for one")
        pytest.skip(reason)
    return found


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless Chromium. Its event loop runs until the end: no asyncio test may run beside it."""
    program = find_browser()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


class Watch:
    """Opens pages and notes what they must not do: errors in the console, broken rules, requests to other hosts."""

    def __init__(self, browser: Browser, base_url: str) -> None:
        self._browser = browser
        self._base_url = base_url
        self._allowed: list[re.Pattern[str]] = []
        self._contexts: list[BrowserContext] = []
        self.faults: list[str] = []

    def open(self, path: str | None = None, **options: Any) -> Page:
        """A page of a new browser (nothing shared with others), at `path` if one is given.

        `options` are Playwright's for a context, such as `color_scheme="dark"` or `viewport=PHONE`.
        """
        given = {"viewport": WIDE, "locale": "en-GB", "base_url": self._base_url, "reduced_motion": "reduce", **options}
        context = self._browser.new_context(**given)
        context.set_default_timeout(TIMEOUT_MS)
        self._contexts.append(context)
        context.on("console", self._on_console)
        context.on("request", self._on_request)
        context.on("response", self._on_response)
        context.on("weberror", lambda error: self.faults.append(f"script error: {error.error}"))
        page = context.new_page()
        if path is not None:
            page.goto(path)
        return page

    def allow(self, pattern: str) -> None:
        """Expect faults that match: `watch.allow("409")` where a conflict is provoked."""
        self._allowed.append(re.compile(pattern))

    def close_quietly(self) -> None:
        """Close all pages, whatever they did."""
        for context in self._contexts:
            context.close()

    def close(self) -> None:
        """Close all pages; what they did wrong fails the test."""
        self.close_quietly()
        wrong = [fault for fault in self.faults if not any(allowed.search(fault) for allowed in self._allowed)]
        if wrong:
            pytest.fail("a page did what it must not do:\n" + "\n".join(wrong))

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.faults.append(f"console {message.type}: {message.text} ({message.location.get('url', '')})")

    def _on_request(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme in {"http", "https", "ws", "wss"} and parts.netloc != urlsplit(self._base_url).netloc:
            self.faults.append(f"request to another host: {request.url}")

    def _on_response(self, response: Response) -> None:
        if response.status >= 500:
            self.faults.append(f"status {response.status}: {response.url}")


def axe(page: Page, *, impacts: Collection[str] = ("critical", "serious")) -> list[str]:
    """What axe-core finds in a page of these impacts, with where; empty if all is well."""
    page.evaluate(_AXE.read_text(encoding="utf-8"))
    found: dict[str, Any] = page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{violation['impact']}: {violation['id']}: {violation['help']}: {node['target']} {node['failureSummary']}"
        for violation in found["violations"]
        if violation["impact"] in impacts
        for node in violation["nodes"]
    ]


def is_within_width(page: Page) -> bool:
    """Whether nothing of a page lies beyond its window's sides."""
    return bool(page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth"))


def focused(page: Page) -> str:
    """What has the keyboard's focus: its role or tag, and its words."""
    return str(
        page.evaluate(
            "() => { const e = document.activeElement;"
            " return `${e.tagName.toLowerCase()} ${(e.getAttribute('aria-label') ?? e.textContent).trim()}`; }"
        )
    )
