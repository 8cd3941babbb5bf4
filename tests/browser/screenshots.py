"""Writes the pictures of pages in docs/images from the example journal; a page is one row of SHOTS.

python -m tests.browser.screenshots [NAME ...]; the embedded model answers.
"""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from playwright.sync_api import Page, expect

from tests.browser.harness import PHONE, WIDE, Watch, chromium, copy_example, serving
from tests.journal_folder import ROOT, JournalFolder

FOLDER = ROOT / "docs" / "images"
MOST_BYTES = 200_000
QUESTION = "What did I decide about the release on Tuesday?"
_COLORS = 192
_ANSWER_MS = 120_000


def _stay(page: Page) -> None:
    """Show the page as it comes."""


def _preview(page: Page) -> None:
    """Choose another provider for a rule, up to what it would change."""
    rule = page.locator("details.rule").filter(has=page.get_by_text("insight.*", exact=True)).first
    rule.locator("summary").first.click()
    rule.get_by_label("Provider", exact=True).select_option("openai")
    expect(rule.get_by_role("region", name="Contexts that would move")).to_contain_text("insight")
    expect(rule.get_by_role("region", name="Calls of the last 30 days")).to_contain_text("insight")
    rule.scroll_into_view_if_needed()
    page.evaluate("top => window.scrollBy(0, top - 80)", rule.evaluate("e => e.getBoundingClientRect().top"))


def _run(page: Page) -> None:
    """Start an agent, and wait for its end."""
    form = page.get_by_role("region", name="Start one")
    form.get_by_label("Task").fill(QUESTION)
    form.get_by_role("button", name="Start").click()
    expect(page.locator("#state")).to_have_text("completed", timeout=_ANSWER_MS)


def _ask(page: Page) -> None:
    """Ask in the chat, and wait for answer and title."""
    page.get_by_label("Your question").fill(QUESTION)
    page.get_by_role("button", name="Ask").click()
    expect(page.locator(".run-answer")).to_contain_text("2026", timeout=_ANSWER_MS)
    expect(page.locator("#turns")).to_have_attribute("data-title", "", timeout=_ANSWER_MS)
    page.evaluate("() => window.scrollTo(0, 0)")


class Shot(NamedTuple):
    """One picture: its file's name, the page's address, what to do on it first, and how it is seen."""

    name: str
    path: str
    prepare: Callable[[Page], None] = _stay
    scheme: str = "light"
    viewport: dict[str, int] = WIDE


SHOTS: Sequence[Shot] = (
    Shot("start", "/"),
    Shot("settings", "/app/settings/"),
    Shot("settings_preview", "/app/settings/", _preview),
    Shot("tokens", "/app/tokens/?from=20261101&to=20261106"),
    Shot("tokens_dark", "/app/tokens/?from=20261101&to=20261106", scheme="dark"),
    Shot("tokens_day", "/app/tokens/20261103"),
    Shot("agents_run", "/app/agents/", _run),
    Shot("agents", "/app/agents/"),
    Shot("chat", "/app/chat/", _ask),
    Shot("todos", "/app/todos/"),
    Shot("todos_phone", "/app/todos/", viewport=PHONE),
)


def main(names: Sequence[str]) -> int:
    """Take the pictures of these names, or all; 1 if a page could not be shown."""
    wanted = [shot for shot in SHOTS if not names or shot.name in names]
    unknown = set(names) - {shot.name for shot in SHOTS}
    if unknown:
        sys.stderr.write(f"no picture is called {', '.join(sorted(unknown))}; SHOTS in this file lists them\n")
        return 2
    with tempfile.TemporaryDirectory() as folder:
        os.environ["JOURNAL_PATH"] = str(Path(folder, "example", "journal"))
        journal = JournalFolder(Path(folder, "example", "journal"))
        copy_example(journal)
        _answer_here(journal)
        with serving(journal) as served, chromium() as browser:
            watch = Watch(browser, served.url)
            missed = [shot.name for shot in wanted if not _take(watch, shot)]
            watch.close_quietly()
    return 1 if missed else 0


def _answer_here(journal: JournalFolder) -> None:
    """Have the embedded model answer agents and the chat; all else stays as the example has it."""
    data = json.loads(journal.config.read_text(encoding="utf-8"))
    contexts = data["providers"]["contexts"]
    kept = {name: entry for name, entry in contexts.items() if not name.startswith(("agent.", "app.chat."))}
    data["providers"]["contexts"] = {**kept, "agent.*": {"provider": "local"}, "app.chat.*": {"provider": "local"}}
    journal.write(data)


def _take(watch: Watch, shot: Shot) -> bool:
    """Take one picture; False, with a word on standard error, if its page is not to be had."""
    page = watch.open(color_scheme=shot.scheme, viewport=shot.viewport)
    answer = page.goto(shot.path, wait_until="load")
    if answer is None or not answer.ok:
        sys.stderr.write(f"{shot.name}: {shot.path} answers {answer.status if answer else 'nothing'}\n")
        return False
    shot.prepare(page)
    page.evaluate("() => document.fonts.ready")
    page.wait_for_function(
        "() => [...document.querySelectorAll('[data-chart] canvas')].every((c) => window.Chart?.getChart(c))"
    )
    path = FOLDER / f"{shot.name}.png"
    path.write_bytes(_small(page.screenshot()))
    sys.stdout.write(f"{path.relative_to(ROOT)}  {path.stat().st_size:,} bytes\n")
    return True


def _small(picture: bytes) -> bytes:
    """The picture with a palette, which for a page is a third of the size.

    Raises:
        ValueError: it is larger than a picture of a page should be.
    """
    out = io.BytesIO()
    with Image.open(io.BytesIO(picture)) as image:
        image.convert("RGB").quantize(_COLORS, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    if out.tell() > MOST_BYTES:
        raise ValueError(f"found {out.tell():,} bytes, expected {MOST_BYTES:,} at most")
    return out.getvalue()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
