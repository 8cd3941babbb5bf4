"""The chat app in a browser: answers as they are written, reloads, another provider, pictures, failures in place."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, FilePayload, Page, expect

from tests.browser.harness import PHONE, Watch, axe, is_within_width, serving
from tests.embedded import needs_model
from tests.journal_folder import JournalFolder
from tests.loopback.behaviours import Answer, Drip
from tests.loopback.scenarios import load
from tests.loopback.server import LoopbackServer
from tests.provider_cases import CASES, FAMILY

CASE = FAMILY[0]


def _ask(page: Page, text: str, **chosen: str) -> None:
    for label, value in chosen.items():
        page.get_by_role("combobox", name=label).select_option(value)
    page.get_by_label("Your question").fill(text)
    page.get_by_role("button", name="Ask").click()


@pytest.fixture(name="slow")
def _slow(example: JournalFolder, browser: Browser, server: LoopbackServer) -> Iterator[Page]:
    """A page of a site whose first provider is the loopback server."""
    example.write({"providers": CASE.providers(server.url)})
    with serving(example, **CASE.environment(server.url)) as served:
        watch = Watch(browser, served.url)
        yield watch.open("/app/chat/")
        watch.close()


@needs_model
def test_the_embedded_model_answers_with_its_tool_and_its_source_and_a_title(
    example: JournalFolder, page: Page
) -> None:
    example.route(default={"provider": "local"})
    page.goto("/app/chat/")
    _ask(page, "What did I decide about the release on Tuesday?")
    page.wait_for_url(re.compile(r"/app/chat/c/\d{13}"))
    expect(page.locator(".run-answer")).to_contain_text("20261103", timeout=60_000)
    expect(page.locator("details.run-more", has_text="search_journal").first).to_be_visible()
    expect(page.locator("#turns")).to_have_attribute("data-title", "", timeout=60_000)
    name = page.get_by_role("heading", level=1).inner_text()
    page.goto("/app/chat/")
    expect(page.get_by_role("link", name=name)).to_be_visible()


def test_an_answer_goes_on_after_a_reload_in_its_middle(slow: Page, server: LoopbackServer) -> None:
    server.script(CASE.wire, [Drip(0.6)])
    _ask(slow, "Tell me of the tides.")
    slow.wait_for_url(re.compile(r"/app/chat/c/\d{13}"))
    expect(slow.locator("[data-text]")).not_to_be_empty(timeout=30_000)
    expect(slow.get_by_role("button", name="Stop")).to_be_visible()
    slow.reload()
    expect(slow.locator("[data-text]")).not_to_be_empty()
    expect(slow.locator(".run-answer")).to_be_visible(timeout=60_000)
    expect(slow.get_by_role("button", name="Stop")).to_have_count(0)
    assert slow.locator("[data-text]").count() == 0


def test_an_answer_is_stopped_and_the_conversation_goes_on(slow: Page, server: LoopbackServer) -> None:
    server.script(CASE.wire, [Drip(2.0)])
    _ask(slow, "Tell me of the tides.")
    slow.get_by_role("button", name="Stop").click()
    expect(slow.get_by_role("button", name="Try again")).to_be_visible(timeout=30_000)
    _ask(slow, "Low water?", Provider="echo")
    expect(slow.locator(".run-answer")).to_contain_text("Low water?", timeout=30_000)


def test_the_provider_is_switched_in_mid_conversation(slow: Page, server: LoopbackServer) -> None:
    _ask(slow, "First question")
    expect(slow.locator(".run-answer")).to_have_count(1, timeout=30_000)
    _ask(slow, "Second question", Provider="echo")
    expect(slow.locator(".run-answer").nth(1)).to_contain_text("Second question", timeout=30_000)
    _ask(slow, "Third question", Provider=CASE.name)
    expect(slow.locator(".run-answer")).to_have_count(3, timeout=30_000)
    sent = [str(request.body) for request in server.requests]  # the last may be the one for a title
    assert any(all(f"{word} question" in body for word in ("First", "Second", "Third")) for body in sent)
    slow.reload()
    expect(slow.locator(".run-answer")).to_have_count(3)


def test_a_failed_answer_is_shown_in_place_and_tried_again(page: Page) -> None:
    page.goto("/app/chat/")
    _ask(page, "Low water?", Provider="openai")
    expect(page.get_by_role("alert")).to_contain_text("OPENAI_API_KEY", timeout=30_000)
    page.get_by_role("combobox", name="Provider").select_option("echo")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".run-answer")).to_contain_text("Low water?", timeout=30_000)
    expect(page.locator(".chat-turn")).to_have_count(1)


def test_hostile_text_is_shown_as_text_while_it_streams_and_after(page: Page) -> None:
    hostile = "<img src=x onerror=document.title=1> <script>document.title=2</script> [a](javascript:document.title=3)"
    page.goto("/app/chat/")
    _ask(page, hostile, Provider="echo")
    answer = page.locator(".run-answer")
    expect(answer).to_contain_text("<script>document.title=2</script>", timeout=30_000)
    expect(answer.locator("a, img, script")).to_have_count(0)
    page.reload()
    expect(page.locator(".run-prompt")).to_have_text(hostile)
    assert page.title().endswith("– muse")


def test_a_conversation_outlasts_a_server_that_is_killed(
    example: JournalFolder, browser: Browser, server: LoopbackServer
) -> None:
    example.write({"providers": CASE.providers(server.url)})
    server.script(CASE.wire, [Drip(1.0), "text"])
    with serving(example, **CASE.environment(server.url)) as served:
        watch = Watch(browser, served.url)
        watch.allow("ERR_CONNECTION|ERR_INCOMPLETE|ERR_EMPTY")  # the page asks a server that is gone
        page = watch.open("/app/chat/")
        _ask(page, "Tell me of the tides.")
        page.wait_for_url(re.compile(r"/app/chat/c/\d{13}"))
        expect(page.locator("[data-text]")).not_to_be_empty(timeout=30_000)
        path = page.url.removeprefix(served.url)
        served.process.kill()
        served.process.wait()
        expect(page.get_by_text("goes on as soon as it does")).to_be_visible()
        watch.close()
    with serving(example, **CASE.environment(server.url)) as served:
        watch = Watch(browser, served.url)
        page = watch.open(path)
        expect(page.get_by_role("alert")).to_contain_text(re.compile("cut off", re.IGNORECASE))
        page.get_by_role("button", name="Try again").click()
        expect(page.locator(".run-answer")).to_be_visible(timeout=30_000)
        expect(page.locator(".chat-turn")).to_have_count(1)
        watch.close()


def _png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), "teal").save(buffer, "PNG")
    return buffer.getvalue()


def _file(name: str, kind: str, data: bytes) -> FilePayload:
    return {"name": name, "mimeType": kind, "buffer": data}


def test_a_picture_goes_with_a_question_and_bad_files_are_named(slow: Page, server: LoopbackServer) -> None:
    field = slow.get_by_label("Pictures", exact=True)
    field.set_input_files(_file("notes.txt", "text/plain", b"x"))
    expect(slow.get_by_role("alert")).to_contain_text("notes.txt")
    field.set_input_files(_file("tide.png", "image/png", _png()))
    expect(slow.get_by_alt_text("tide.png")).to_be_visible()
    slow.evaluate(
        """async () => {
          const held = new DataTransfer();
          const bytes = await new Promise((done) => {
            const canvas = document.createElement("canvas");
            canvas.width = canvas.height = 8;
            canvas.toBlob(done, "image/png");
          });
          held.items.add(new File([bytes], "dropped.png", {type: "image/png"}));
          document.body.dispatchEvent(new DragEvent("drop", {dataTransfer: held, bubbles: true, cancelable: true}));
        }"""
    )
    expect(slow.get_by_alt_text("dropped.png")).to_be_visible()
    _ask(slow, "What is this?")
    expect(slow.locator(".bubble.mine img")).to_have_count(2)
    expect(slow.locator(".run-answer")).to_be_visible(timeout=30_000)
    assert any(str(request.body).count("data:image/png") == 2 for request in server.requests)


def test_a_conversation_is_renamed_and_deleted(page: Page) -> None:
    page.goto("/app/chat/")
    _ask(page, "Low water?", Provider="echo")
    expect(page.locator(".run-answer")).to_be_visible(timeout=30_000)
    page.get_by_text("Rename or delete").click()
    page.get_by_label("Title").fill("Tides <b>of</b> the week")
    page.get_by_role("button", name="Rename").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Tides <b>of</b> the week")
    page.get_by_text("Rename or delete").click()
    page.get_by_role("button", name="Delete it").click()
    expect(page.get_by_text("No conversation yet")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_pages_are_readable_in_both_looks_and_on_a_phone(watch: Watch, scheme: str) -> None:
    page = watch.open("/app/chat/", color_scheme=scheme, viewport=PHONE)
    assert axe(page) == []
    _ask(page, "Low water? " + "x" * 200, Provider="echo")
    expect(page.locator(".run-answer")).to_be_visible(timeout=30_000)
    assert axe(page) == []
    assert is_within_width(page)


def test_a_title_that_cannot_be_made_is_said_once(example: JournalFolder, watch: Watch, page: Page) -> None:
    watch.allow("400")
    example.write({"providers": {"contexts": {"app.chat.title": {"provider": "openai"}}}})
    page.goto("/app/chat/")
    _ask(page, "Low water?", Provider="echo")
    expect(page.get_by_text("No title could be made")).to_have_count(1, timeout=30_000)
    _ask(page, "High water?", Provider="echo")
    expect(page.locator(".run-answer")).to_have_count(2, timeout=30_000)
    expect(page.locator("#turns")).to_have_attribute("data-title", "")
    expect(page.get_by_text("No title could be made")).to_have_count(1)


def test_a_question_that_is_sent_twice_in_a_hurry_is_asked_once(page: Page) -> None:
    page.goto("/app/chat/")
    page.get_by_role("combobox", name="Provider").select_option("echo")
    page.get_by_label("Your question").fill("Low water?")
    page.evaluate("() => [1, 2].forEach(() => document.getElementById('say').requestSubmit())")
    page.wait_for_url(re.compile(r"/app/chat/c/\d{13}"))
    page.goto("/app/chat/")
    expect(page.get_by_text("1 in all")).to_be_visible()


def test_a_first_user_without_a_key_is_told_before_asking_and_gets_an_answer_in_two_clicks(
    journal: JournalFolder, browser: Browser
) -> None:
    with serving(journal) as served:
        watch = Watch(browser, served.url)
        page = watch.open("/app/chat/")
        notice = page.locator("#nobody")
        expect(notice).to_contain_text("Nobody can answer yet")
        expect(notice).to_contain_text("it has no key")
        expect(page.get_by_text("without any key")).to_have_count(0)
        expect(notice.get_by_role("link", name="Set up")).to_have_attribute("href", re.compile("#provider-google"))
        assert axe(page) == []
        page.set_viewport_size({"width": 375, "height": 740})
        assert is_within_width(page)
        notice.get_by_role("link", name="Echo").click()
        expect(page.locator("#nobody")).to_have_count(0)
        page.get_by_label("Your question").fill("Low water?")
        page.keyboard.press("Enter")
        expect(page.locator(".run-answer")).to_contain_text("Low water?", timeout=30_000)
        watch.close()


def test_the_embedded_model_is_offered_where_it_is_there_and_fetched_where_it_is_not(
    example: JournalFolder, browser: Browser, tmp_path: Path
) -> None:
    with serving(example, XDG_CACHE_HOME=str(tmp_path)) as served:
        watch = Watch(browser, served.url)
        page = watch.open("/app/chat/")
        offered = page.get_by_role("link", name="Ask the embedded model instead")
        fetched = page.get_by_role("button", name="Get the embedded model")
        expect(offered.or_(fetched)).to_be_visible()
        watch.close()


def test_enter_asks_shift_enter_breaks_and_the_model_is_named(slow: Page, server: LoopbackServer) -> None:
    provider = slow.get_by_role("combobox", name="Provider")
    expect(provider.locator("option").first).to_have_text(re.compile(r"as routed: openai, \S+"))
    slow.get_by_role("textbox", name="Model").fill("my-own-model")
    slow.get_by_label("Your question").fill("First line")
    slow.keyboard.press("Shift+Enter")
    slow.keyboard.type("second line")
    slow.keyboard.press("Enter")
    expect(slow.locator(".run-prompt")).to_have_text("First line\nsecond line", use_inner_text=True)
    expect(slow.locator(".run-answer")).to_be_visible(timeout=30_000)
    assert any("my-own-model" in str(request.body) for request in server.requests)
    expect(slow.locator("#ask")).to_be_enabled()


def test_a_failed_answer_says_what_happened_and_offers_what_mends_it(slow: Page, server: LoopbackServer) -> None:
    server.script(CASE.wire, ["error_401"])
    _ask(slow, "Low water?")
    alert = slow.get_by_role("alert")
    expect(alert).to_contain_text(f"{CASE.name} did not accept the key", timeout=30_000)
    expect(alert.get_by_role("link", name="Save another key")).to_be_visible()
    expect(alert.get_by_role("link", name="Choose who answers")).to_be_visible()
    expect(slow.get_by_role("button", name="Try again")).to_be_visible()
    assert axe(slow) == []


def test_a_pause_after_failures_is_counted_down(
    example: JournalFolder, browser: Browser, server: LoopbackServer
) -> None:
    providers = {**CASE.providers(server.url), "breaker": {"failures": 1, "cool_down_s": 600}}
    providers["default"] = {**providers["default"], "retries": 0}
    example.write({"providers": providers})
    server.script(CASE.wire, ["error_500"] * 4)
    with serving(example, **CASE.environment(server.url)) as served:
        watch = Watch(browser, served.url)
        page = watch.open("/app/chat/")
        _ask(page, "Low water?")
        expect(page.get_by_role("alert")).to_contain_text("failed with status 500", timeout=30_000)
        page.get_by_role("button", name="Try again").click()
        alert = page.get_by_role("alert")
        expect(alert).to_contain_text("failed several times in a row and is paused", timeout=30_000)
        place = alert.locator("[data-until]")
        expect(place).to_have_text(re.compile(r"in \d+ s\."))
        first = place.inner_text()
        expect(place).not_to_have_text(first)
        expect(alert).not_to_contain_text("muse providers")
        watch.close()


def test_a_question_can_not_be_asked_into_an_answer_and_a_clock_runs(slow: Page, server: LoopbackServer) -> None:
    server.script(CASE.wire, [Drip(1.0)])
    _ask(slow, "Tell me of the tides.")
    expect(slow.locator("#ask")).to_be_disabled()
    expect(slow.locator("#ask")).to_have_text("Answering …")
    expect(slow.locator(".run-blocks")).to_have_attribute("data-clock", re.compile(r"^[1-9]\d* s$"))
    slow.get_by_role("button", name="Stop").click()
    expect(slow.locator("#ask")).to_be_enabled(timeout=30_000)


def test_a_title_that_a_model_wrote_as_markdown_is_plain_words(
    example: JournalFolder, browser: Browser, server: LoopbackServer
) -> None:
    case = CASES[-1]
    example.write({"providers": case.providers(server.url)})
    body = json.loads(json.dumps(load("compatible", "text")["body"]))
    body["choices"][0]["message"]["content"] = "The release **1.8** goes out on `Thursday`"
    server.script(case.wire, ["text", Answer(body)])
    with serving(example, **case.environment(server.url)) as served:
        watch = Watch(browser, served.url)
        page = watch.open("/app/chat/")
        _ask(page, "When does it go out?")
        expect(page.get_by_role("heading", level=1)).to_have_text(
            "The release 1.8 goes out on Thursday", timeout=30_000
        )
        page.goto("/app/chat/")
        expect(page.get_by_role("link", name="The release 1.8 goes out on Thursday")).to_be_visible()
        watch.close()
