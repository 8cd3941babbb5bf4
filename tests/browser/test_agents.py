"""The agents app in a browser: one is started, watched with its tools until it finishes, and read."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from muse.runs import run_files
from tests.agent_process import completion
from tests.browser.harness import PHONE, Served, Watch, axe, focused, is_within_width, serving
from tests.embedded import needs_model
from tests.journal_folder import JournalFolder
from tests.loopback.behaviours import Drip
from tests.loopback.server import LoopbackServer
from tests.provider_cases import CASES, FAMILY

QUESTION = "What did I decide about the release on Tuesday?"


def _start(page: Page, prompt: str, **chosen: str) -> None:
    page.goto("/app/agents/")
    form = page.get_by_role("region", name="Start one")
    for label, value in chosen.items():
        form.get_by_role("combobox", name=label).select_option(value)
    form.get_by_label("Task").fill(prompt)
    form.get_by_role("button", name="Start").click()
    page.wait_for_url(re.compile(r"/app/agents/run/\d{13}"))


@needs_model
def test_an_agent_with_tools_is_watched_until_it_finishes(example: JournalFolder, page: Page) -> None:
    example.route(default={"provider": "local"})
    _start(page, QUESTION, Persona="default")
    expect(page.locator("#state")).to_have_text("completed", timeout=60_000)
    tool = page.locator("details.run-more", has_text="search_journal").first
    expect(tool).to_be_visible()
    tool.locator("summary").click()
    expect(tool.locator("pre").last).to_contain_text("2026110")
    expect(page.locator(".run-answer")).to_contain_text("20261103")
    page.get_by_text("Lines of the token log").click()
    expect(page.locator(".lines table")).to_contain_text("agent.system.default")
    page.goto("/app/agents/")
    expect(page.locator("tbody tr").first).to_contain_text(QUESTION)


def test_a_run_is_seen_as_it_is_written_goes_on_after_a_reload_and_is_cancelled(
    example: JournalFolder, browser: Browser, server: LoopbackServer
) -> None:
    case = FAMILY[0]
    example.write({"providers": case.providers(server.url)})
    server.script(case.wire, [Drip(1.0)])
    with serving(example, **case.environment(server.url)) as served:
        watch = Watch(browser, served.url)
        page = watch.open()
        _start(page, "Tell me of the tides.", Persona="chat:title")
        expect(page.locator("[data-text]")).not_to_be_empty(timeout=30_000)
        seen = page.locator("[data-text]").inner_text()
        page.reload()
        expect(page.locator("[data-text]")).to_contain_text(seen)
        page.get_by_role("button", name="Cancel").click()
        expect(page.locator("#state")).to_have_text("cancelled", timeout=30_000)
        expect(page.locator(".run-block").last).to_contain_text("Cancelled before it was over")
        watch.close()


@pytest.mark.parametrize("button", ["Allow once", "Refuse"])
def test_a_call_that_needs_approval_is_answered_on_the_page(
    example: JournalFolder, browser: Browser, server: LoopbackServer, tmp_path: Path, button: str
) -> None:
    case = CASES[-1]
    (tmp_path / "careful.json").write_text(json.dumps({"title": "Careful", "tools": ["todo"], "approve": ["add_*"]}))
    (tmp_path / "careful.txt").write_text("Ask first.")
    example.write({"providers": case.providers(server.url), "descriptors": {"agents": [str(tmp_path)]}})
    server.script(case.wire, [completion(("add_todo", {"text": "Grease the hinge"})), "text"])
    with serving(example, **case.environment(server.url)) as served:
        watch = Watch(browser, served.url)
        page = watch.open()
        _start(page, "Add it", Persona="careful")
        page.get_by_role("button", name=button).click(timeout=30_000)
        expect(page.locator("#state")).to_have_text("completed", timeout=30_000)
        expect(page.locator(".notice").get_by_text("allowed" if button == "Allow once" else "refused")).to_be_visible()
        todos = watch.open("/app/todos/")  # beside the run's page, which loads itself anew when the run has ended
        expect(todos.get_by_text("Grease the hinge")).to_have_count(1 if button == "Allow once" else 0)
        watch.close()


def test_a_run_is_continued_with_the_keyboard_alone(served: Served, watch: Watch) -> None:
    page = watch.open()
    _start(page, "Low water?", Persona="chat:title", Provider="echo")
    expect(page.locator("#state")).to_have_text("completed", timeout=30_000)
    page.get_by_text("Continue with a new prompt").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.type("And tomorrow?")
    assert focused(page).startswith("textarea")
    for _ in range(2):
        page.keyboard.press("Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.type("Echo")
    for _ in range(3):
        page.keyboard.press("Tab")
    assert focused(page) == "button Continue"
    page.keyboard.press("Enter")
    expect(page.get_by_label("Runs before and after this one")).to_contain_text("Continues")
    expect(page.locator("#state")).to_have_text("completed", timeout=30_000)
    expect(page.locator(".run-answer")).to_contain_text("And tomorrow?")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_pages_are_readable_in_both_looks_and_on_a_phone(watch: Watch, scheme: str) -> None:
    page = watch.open(color_scheme=scheme, viewport=PHONE)
    _start(page, "Low water? " + "x" * 300, Persona="chat:title", Provider="echo")
    expect(page.locator("#state")).to_have_text("completed", timeout=30_000)
    assert axe(page) == []
    assert is_within_width(page)
    agent_id, path = run_files.new_file("active")
    path.write_text(json.dumps({"event": "start", "persona": "p" * 90, "model": "m" * 90, "prompt": "x"}) + "\n")
    path.rename(run_files.path_of(agent_id, "over"))
    page.goto(f"/app/agents/run/{agent_id}")
    assert is_within_width(page)
    page.goto("/app/agents/")
    assert axe(page) == []
    assert is_within_width(page)


def _two_turns(example: JournalFolder, folder: Path, server: LoopbackServer, *steps: object) -> str:
    """Have the loopback server serve the default, and a persona `careful` ask before it adds a to-do; its provider."""
    case = CASES[-1]
    (folder / "careful.json").write_text(json.dumps({"title": "Careful", "tools": ["todo"], "approve": ["add_*"]}))
    (folder / "careful.txt").write_text("Ask first.")
    (folder / "keen.json").write_text(json.dumps({"title": "Keen", "tools": ["todo"], "schedule": "30 7 * * *"}))
    (folder / "keen.txt").write_text("Do it.")
    example.write({"providers": case.providers(server.url), "descriptors": {"agents": [str(folder)]}})
    server.script(case.wire, steps)  # type: ignore[arg-type]
    return case.name


def test_a_failed_run_shows_what_it_used_everywhere_and_how_to_mend_it(
    example: JournalFolder, browser: Browser, server: LoopbackServer, tmp_path: Path
) -> None:
    case = CASES[-1]
    name = _two_turns(example, tmp_path, server, completion(("list_todos", {})), "error_401")
    with serving(example, **case.environment(server.url)) as served:
        watch = Watch(browser, served.url)
        page = watch.open()
        _start(page, "List them", Persona="keen")
        expect(page.locator("#state")).to_have_text("failed", timeout=30_000)
        alert = page.get_by_role("alert")
        expect(alert).to_contain_text(f"{name} did not accept the key")
        expect(alert.get_by_role("link", name="Save another key")).to_have_attribute(
            "href", f"/app/settings/#provider-{name}"
        )
        expect(alert).not_to_contain_text("muse providers")
        assert axe(page) == []
        tokens = page.locator(".facts div", has_text="Tokens").locator("dd").inner_text()
        assert tokens not in {"0", "–"}
        page.get_by_role("link", name="Its lines in the token log").click()
        expect(page.locator("tbody tr")).to_have_count(2)
        expect(page.locator("tbody tr").first).to_contain_text("AuthError")
        page.locator("tbody tr").first.get_by_role("link", name="its run").click()
        expect(page.locator("#state")).to_have_text("failed")
        page.get_by_role("link", name="All runs").click()
        row = page.locator("#runs-table tbody tr").first
        expect(row).to_contain_text("failed")
        expect(row.locator("[data-label=Tokens]")).to_have_text(tokens)
        expect(page.locator(".personas article", has_text="keen")).to_contain_text("failed")
        expect(page.locator(".personas article", has_text="keen")).to_contain_text("07:30")
        watch.close()


def test_a_run_that_waits_for_approval_is_seen_from_everywhere(
    example: JournalFolder, browser: Browser, server: LoopbackServer, tmp_path: Path
) -> None:
    case = CASES[-1]
    _two_turns(example, tmp_path, server, completion(("add_todo", {"text": "Grease the hinge"})), "text")
    with serving(example, **case.environment(server.url)) as served:
        watch = Watch(browser, served.url)
        start, agents = watch.open("/app/todos/"), watch.open("/app/agents/")
        page = watch.open()
        _start(page, "Add it", Persona="careful")
        expect(page.locator("#state")).to_have_text("waiting", timeout=30_000)
        expect(page.locator(".run-more", has_text="add_todo")).to_contain_text("waits for approval")
        expect(page.locator(".facts")).to_contain_text("Tool calls1")
        bar = start.locator("#waiting").get_by_role("link")
        expect(bar).to_have_text("1 run waits for approval")
        expect(start).to_have_title(re.compile(r"^\(1\) To-dos"))
        assert axe(start) == []
        expect(agents.get_by_role("link", name="Answer it")).to_be_visible()
        expect(agents.locator("#runs-table tbody tr").first).to_contain_text("waiting")
        start.goto("/")
        expect(start.get_by_role("main").get_by_text("waits for approval to call add_todo")).to_be_visible()
        bar.click()
        start.get_by_role("button", name="Refuse").click()
        expect(start.locator("#state")).to_have_text("completed", timeout=30_000)
        tool = start.locator(".run-more", has_text="add_todo")
        expect(tool.locator(".badge")).to_have_text("refused")
        expect(start.locator("#waiting a")).to_have_count(0)
        expect(start).to_have_title(re.compile(r"^careful"))
        expect(agents.locator("#runs-table tbody tr").first).to_contain_text("completed")
        watch.close()


def test_the_figures_of_a_run_grow_while_it_runs_and_stay_when_it_is_cancelled(
    example: JournalFolder, browser: Browser, server: LoopbackServer, tmp_path: Path
) -> None:
    case = CASES[-1]
    _two_turns(example, tmp_path, server, completion(("list_todos", {})), Drip(1.0))
    with serving(example, **case.environment(server.url)) as served:
        watch = Watch(browser, served.url)
        page = watch.open()
        _start(page, "List them", Persona="keen")
        facts = page.locator(".facts")
        expect(facts).to_contain_text("Tool calls1", timeout=30_000)
        expect(facts).to_contain_text(case.model)
        expect(facts.locator("div", has_text="Turns").locator("dd")).to_have_text("1")
        expect(facts.locator("div", has_text="Tokens").locator("dd")).not_to_have_text("0")
        expect(facts.locator("div", has_text="Time").locator("dd")).not_to_have_text("–")
        page.get_by_role("button", name="Cancel").click()
        expect(page.locator("#state")).to_have_text("cancelled", timeout=30_000)
        tokens = facts.locator("div", has_text="Tokens").locator("dd").inner_text()
        assert tokens not in {"0", "–"}
        page.get_by_role("link", name="All runs").click()
        row = page.locator("#runs-table tbody tr").first
        expect(row).to_contain_text("cancelled")
        expect(row.locator("[data-label=Tokens]")).to_have_text(tokens)
        watch.close()


def test_a_run_that_a_restart_cut_off_says_so(example: JournalFolder, browser: Browser, server: LoopbackServer) -> None:
    case = FAMILY[0]
    example.write({"providers": case.providers(server.url)})
    server.script(case.wire, [Drip(2.0)])
    with serving(example, **case.environment(server.url)) as served:
        watch = Watch(browser, served.url)
        watch.allow("ERR_CONNECTION|ERR_INCOMPLETE|ERR_EMPTY|htmx:")
        page = watch.open()
        _start(page, "Tell me of the tides.", Persona="chat:title")
        expect(page.locator("[data-text]")).not_to_be_empty(timeout=30_000)
        path = page.url.removeprefix(served.url)
        served.process.terminate()
        served.process.wait()
        watch.close()
    with serving(example, **case.environment(server.url)) as served:
        watch = Watch(browser, served.url)
        page = watch.open(path)
        expect(page.get_by_role("alert")).to_contain_text("muse was stopped or restarted")
        expect(page.get_by_text("Cancelled before")).to_have_count(0)
        expect(page.locator("#state")).to_contain_text("failed")
        expect(page.get_by_role("button", name="Resume it")).to_be_visible()
        watch.close()


def test_personas_stand_before_runs_and_a_run_page_is_named(served: Served, watch: Watch) -> None:
    page = watch.open()
    _start(page, "Low water?", Persona="chat:title", Provider="echo")
    expect(page.locator("#state")).to_have_text("completed", timeout=30_000)
    expect(page).to_have_title(re.compile(r"^chat:title: Low water\?"))
    page.get_by_role("link", name="All runs").click()
    tops = [page.locator(f"#{name}").evaluate("e => e.getBoundingClientRect().top") for name in ("personas", "runs")]
    assert tops[0] < tops[1]
    expect(page.locator("#runs-table time").first).to_have_text(re.compile("just now|min ago"))


def test_markdown_is_shown_while_it_is_written_and_does_not_jump_at_the_end(served: Served, watch: Watch) -> None:
    agent_id, path = run_files.new_file("active")
    recorder = run_files.adopt(agent_id)
    assert recorder is not None
    table = "| what | when |\n|---|---|\n| soak | Monday |\n"
    text = f"The release **1.8** is out.\n\n{table}\n```python\nprint(1)\n```\n\n<script>document.title = 'x'</script>"
    recorder.write({"event": "start", "persona": "default", "prompt": "x", "provider": "echo", "model": "echo"})
    recorder.write({"event": "delta", "text": text[:9]})
    page = watch.open(f"/app/agents/run/{agent_id}")
    live = page.locator("[data-text]")
    expect(live).to_contain_text("The relea")
    recorder.write({"event": "delta", "text": text[9:]})
    expect(live.locator("strong")).to_have_text("1.8")
    expect(live.locator("td").first).to_have_text("soak")
    expect(live.locator("pre code")).to_have_text("print(1)\n")
    expect(live.locator("script")).to_have_count(0)
    before = live.evaluate("e => e.getBoundingClientRect().height")
    recorder.write({"event": "finish", "result": text})
    recorder.end()
    expect(page.locator("#state")).to_have_text("completed")
    after = page.locator(".run-answer").evaluate("e => e.getBoundingClientRect().height")
    assert abs(after - before) <= 2
    assert path.exists() is False
