"""The settings pages in a browser: by mouse and by keyboard, on a phone, with what readers of screens get."""

from __future__ import annotations

import json
import re
import time

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.browser.harness import PHONE, Served, Watch, axe, focused, is_within_width, serving
from tests.journal_folder import JournalFolder, run
from tests.log_days import append, line
from tests.loopback.server import LoopbackServer
from tests.provider_cases import FAMILY

HOME = "/app/settings/"
KEY = "sk-abcdef-0123456789-secret"
ROUTE = "import sys; from muse import models; found = models.route(sys.argv[1]); print(found.provider, int(found.tier))"


def rule(page: Page, name: str) -> Locator:
    """The part of one context in the list."""
    return page.locator("details.rule").filter(has=page.get_by_text(name, exact=True)).first


def opened(page: Page, name: str) -> Locator:
    """The part of one context, open and with its form."""
    found = rule(page, name)
    found.locator("> summary").click()
    expect(found.get_by_role("button", name="Save")).to_be_visible()
    return found


def routed(context: str) -> str:
    """The route that another process finds: provider and tier."""
    return run(ROUTE, context).strip()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", ["", "raw", "saves", "rule?context=insight.*", "rule?new=1"])
def test_each_page_is_readable_in_both_looks(watch: Watch, path: str, scheme: str) -> None:
    page = watch.open(f"{HOME}{path}", color_scheme=scheme)
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    assert axe(page) == []


def test_on_a_phone_nothing_lies_beyond_the_edge(watch: Watch) -> None:
    page = watch.open(HOME, viewport=PHONE)
    opened(page, "insight.*").get_by_label("Tier", exact=True).select_option("1")
    expect(page.get_by_text("would change")).to_be_visible()
    assert is_within_width(page)
    assert axe(page) == []
    for path in ("raw", "saves"):
        page.goto(f"{HOME}{path}")
        assert is_within_width(page)


def test_a_route_that_is_changed_on_the_page_is_followed_by_another_process(page: Page) -> None:
    assert routed("insight.daily") == "anthropic 2"
    page.goto(HOME)
    form = opened(page, "insight.*")
    form.get_by_label("Provider", exact=True).select_option("openai")
    form.get_by_label("Tier", exact=True).select_option("1")
    expect(form.get_by_role("region", name="Contexts that would move")).to_contain_text("insight.weekly")
    expect(form.get_by_role("region", name="Calls of the last 30 days")).to_contain_text("insight.daily")
    assert routed("insight.daily") == "anthropic 2"
    form.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Saved: insight.*")).to_be_visible()
    expect(rule(page, "insight.*").get_by_role("button", name="Save")).to_be_visible()
    assert routed("insight.daily") == "openai 1"


def test_a_save_is_said_where_one_is_and_two_clicks_take_it_back(page: Page) -> None:
    page.goto(HOME)
    form = opened(page, "insight.*")
    form.get_by_label("Tier", exact=True).select_option("1")
    expect(form.get_by_text("no key").first).to_be_visible()
    form.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Saved: insight.*")).to_be_in_viewport()
    assert routed("insight.daily") == "anthropic 1"
    page.get_by_role("link", name="Undo it").click()
    page.get_by_role("button", name="Undo this save").click()
    expect(page.get_by_text("Put back to how it stood before")).to_be_visible()
    assert routed("insight.daily") == "anthropic 2"


def test_the_editor_leaves_room_for_what_is_wrong_and_for_save(watch: Watch) -> None:
    page = watch.open(f"{HOME}raw", viewport={"width": 1200, "height": 900})
    page.locator("#text").fill('{"providers": {"default": {"tier": 9}}}')
    expect(page.get_by_text("providers.default.tier")).to_be_in_viewport()
    expect(page.get_by_role("button", name="Save", exact=True)).to_be_in_viewport()


def test_all_of_it_works_by_keyboard(page: Page) -> None:
    page.goto(HOME)
    page.get_by_label("Search contexts").focus()
    page.keyboard.type("insight weekly")
    expect(page.get_by_text("1 contexts and rules")).to_be_visible()
    for _ in range(3):  # the check box, the new rule, the one context that is left
        page.keyboard.press("Tab")
    assert "insight.weekly" in focused(page)
    page.keyboard.press("Enter")
    expect(rule(page, "insight.weekly").get_by_label("Tier", exact=True)).to_be_visible()
    while "select" not in focused(page):
        page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    while focused(page) != "button Save":
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Saved: insight.weekly")).to_be_visible()
    assert routed("insight.weekly").endswith(" 3") or routed("insight.weekly").endswith(" 1")
    assert "insight.weekly" in focused(page)


def test_the_search_needs_no_server(page: Page) -> None:
    page.goto(HOME)
    before = page.locator("details.rule:visible").count()
    requests: list[str] = []
    expect(page.locator(".check").get_by_text("to mend")).to_be_visible(timeout=30_000)
    page.on("request", lambda request: requests.append(request.url))
    page.get_by_label("Search contexts").fill("no such context")
    expect(page.get_by_role("heading", name="No context is like that")).to_be_visible()
    page.get_by_label("Search contexts").fill("")
    page.get_by_label("Only those with a rule").check()
    assert page.locator("details.rule:visible").count() < before
    assert requests == []


def test_a_problem_is_shown_while_it_is_typed_and_a_save_keeps_the_input(watch: Watch) -> None:
    watch.allow("400")
    page = watch.open(HOME)
    form = opened(page, "insight.*")
    form.get_by_text("Call settings").click()
    form.get_by_label("Seconds for a call").fill("soon")
    problem = "providers.contexts['insight.*'].timeout_s"
    expect(form.locator(".preview").get_by_text(problem)).to_be_visible()
    form.get_by_role("button", name="Save").click()
    expect(page.get_by_label("Seconds for a call")).to_have_value("soon")
    expect(page.get_by_label("Seconds for a call")).to_have_attribute("aria-invalid", "true")
    assert axe(page) == []


def test_two_browsers_meet_and_nothing_is_lost(watch: Watch) -> None:
    watch.allow("409")
    first, second = watch.open(HOME), watch.open(HOME)
    mine, theirs = opened(first, "insight.*"), opened(second, "insight.*")
    theirs.get_by_label("Tier", exact=True).select_option("3")
    theirs.get_by_role("button", name="Save").click()
    expect(second.get_by_text("Saved: insight.*")).to_be_visible()
    mine.get_by_label("Provider", exact=True).select_option("openai")
    mine.get_by_role("button", name="Save").click()
    expect(first.get_by_role("heading", name="changed meanwhile")).to_be_visible()
    assert axe(first) == []
    first.get_by_role("button", name="Apply my change on top").click()
    expect(first.get_by_text("Saved: insight.*: provider openai")).to_be_visible()
    assert routed("insight.daily") == "openai 3"


def test_a_new_rule_is_made_and_removed(page: Page) -> None:
    page.goto(HOME)
    page.locator("#new > summary").click()
    form = page.locator("#new")
    form.get_by_label("Context or pattern").fill("app.mine.*")
    form.get_by_label("Provider", exact=True).select_option("local")
    form.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Saved: app.mine.*")).to_be_visible()
    assert routed("app.mine.one").startswith("local")
    rule(page, "app.mine.*").get_by_role("button", name="Remove this rule").click()
    expect(page.get_by_text("Removed the rule app.mine.*")).to_be_visible()
    assert not routed("app.mine.one").startswith("local")


def test_the_last_save_is_undone_with_one_click(page: Page) -> None:
    page.goto(HOME)
    form = opened(page, "insight.*")
    form.get_by_label("Provider", exact=True).select_option("local")
    form.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Saved: insight.*")).to_be_visible()
    page.get_by_role("link", name="Last saves").click()
    expect(page.get_by_role("group", name="What changed")).to_contain_text('+        "provider": "local"')
    assert axe(page) == []
    page.get_by_role("button", name="Undo this save").click()
    expect(page.get_by_text("Put back to how it stood before")).to_be_visible()
    assert routed("insight.daily") == "anthropic 2"


def test_a_key_that_is_saved_is_set_but_not_tested_and_is_never_shown(page: Page, served: Served) -> None:
    page.goto(HOME)
    card = page.locator("#provider-openai")
    expect(card).to_contain_text("no key")
    card.get_by_text("Save a key").click()
    card.get_by_label("OPENAI_API_KEY").fill(KEY)
    card.get_by_role("button", name="Save the key").click()
    expect(page.get_by_text("OPENAI_API_KEY is saved")).to_be_visible()
    expect(card.locator(".badge").first).to_have_text("not tested")
    expect(page.locator("#chip-openai .badge")).to_have_text("not tested")
    assert KEY not in page.content()
    state = """from muse.diagnostics import check
from muse.providers import specs
print(check.key_state(specs()['openai']))"""
    assert run(state).strip() == "present"
    assert (served.journal.path / ".env").stat().st_mode & 0o777 == 0o600
    card.get_by_text("Replace or delete the key").click()
    card.get_by_role("button", name="Delete the key").click()
    expect(page.get_by_text("OPENAI_API_KEY is deleted")).to_be_visible()
    assert run(state).strip() == "missing"


def test_a_provider_is_tested_without_leaving_the_page(page: Page) -> None:
    page.goto(HOME)
    card = page.locator("#provider-echo")
    button = card.get_by_role("button", name="Test now")
    button.focus()
    page.keyboard.press("Enter")
    expect(card.locator(".badge").first).to_have_text("ok", timeout=30_000)
    expect(button).to_be_focused()
    assert axe(page) == []


def test_a_hand_edit_that_breaks_the_file_is_said_and_mended_in_the_editor(watch: Watch, served: Served) -> None:
    text = served.journal.config.read_text()
    page = watch.open(HOME)
    served.journal.config.write_text(text.replace('"tier": 2', '"tier": two', 1))
    page.reload()
    expect(page.get_by_role("alert")).to_contain_text("journal.json cannot be read")
    page.get_by_role("link", name="Mend it in the raw JSON").click()
    area = page.get_by_label("journal.json", exact=True)
    expect(area).to_be_focused()
    assert page.evaluate("document.getSelection().toString()") in {"", '      "tier": two'}
    area.fill(area.input_value().replace("two", "2"))
    expect(page.locator("#problems")).to_be_empty()
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("journal.json is saved")).to_be_visible()
    assert json.loads(served.journal.config.read_text()) == json.loads(text)


def test_the_editor_completes_by_the_schema_and_tab_leaves_it(page: Page) -> None:
    page.goto(f"{HOME}raw")
    area = page.get_by_label("journal.json", exact=True)
    area.fill('{"providers": {"default": {}}}')
    area.focus()
    page.keyboard.press("End")
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    page.keyboard.type('"prov')
    expect(page.get_by_role("option", name=re.compile("^provider"))).to_be_visible()
    assert axe(page) == []
    page.keyboard.press("Enter")
    assert area.input_value() == '{"providers": {"default": {"provider": ""}}}'
    page.keyboard.press("Control+Space")
    expect(page.get_by_role("listbox", name="Suggestions")).to_be_visible()
    page.keyboard.type("anth")
    expect(page.get_by_role("option")).to_have_count(1)
    page.keyboard.press("Escape")
    expect(page.get_by_role("listbox", name="Suggestions")).to_be_hidden()
    page.keyboard.press("Control+Space")
    page.keyboard.press("Tab")
    assert not focused(page).startswith("textarea")
    expect(page.get_by_role("listbox", name="Suggestions")).to_be_hidden()
    assert '"anth"' in area.input_value()


def test_the_editor_names_the_line_of_a_problem_and_goes_there(page: Page) -> None:
    page.goto(f"{HOME}raw")
    area = page.get_by_label("journal.json", exact=True)
    area.fill('{\n"providers": {\n"default": {\n"tier": 9}}}')
    link = page.get_by_role("link", name="line 4")
    expect(link).to_be_visible()
    link.click()
    expect(area).to_be_focused()
    assert area.evaluate("area => area.value.slice(area.selectionStart, area.selectionEnd)") == '"tier": 9}}}'
    page.get_by_role("button", name="Format").click()
    expect(area).to_have_value(re.compile(r'\n      "tier": 9\n'))


def test_the_raw_preview_says_what_would_move(page: Page) -> None:
    page.goto(f"{HOME}raw")
    area = page.get_by_label("journal.json", exact=True)
    area.fill(area.input_value().replace('"provider": "google"', '"provider": "local"', 1))
    page.get_by_role("button", name="Preview").click()
    expect(page.get_by_role("region", name="Contexts that would move")).to_contain_text("the default")


def test_a_script_in_the_file_does_not_run(page: Page, served: Served) -> None:
    script = "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>"
    providers = {"contexts": {script: {"model": script, "tier": script}}, "default": {"provider": "local"}}
    served.journal.write({"providers": providers, script: script})
    for path in ("", "raw", "saves"):
        page.goto(f"{HOME}{path}")
        assert page.title() != "run"
    page.goto(HOME)
    opened(page, script)
    assert page.title() != "run"


def test_a_provider_is_ok_or_failing_only_after_a_test_or_a_call(
    example: JournalFolder, browser: Browser, server: LoopbackServer
) -> None:
    case = FAMILY[0]
    example.write({"providers": case.providers(server.url)})
    with serving(example, **case.environment(server.url)) as served:
        watch = Watch(browser, served.url)
        page = watch.open(HOME)
        card, chip = page.locator(f"#provider-{case.name}"), page.locator(f"#chip-{case.name}")
        expect(card.locator(".badge").first).to_have_text("not tested")
        expect(chip.locator(".badge")).to_have_text("not tested")
        expect(page.get_by_text("ready", exact=True)).to_have_count(0)
        button = card.get_by_role("button", name="Test now")
        button.click()
        answers = re.compile("^(ok|slow)$")  # slow on a busy machine
        expect(card.locator(".badge").first).to_have_text(answers, timeout=30_000)
        expect(chip.locator(".badge")).to_have_text(answers)
        server.script(case.wire, ["error_500"] * 9)
        ask = "from muse import models\nfor _ in range(3):\n    try: models.generate('x', 'some.context', retries=0)\n"
        run(f"{ask}    except Exception: pass", **case.environment(server.url), JOURNAL_PATH=str(example.path))
        page.reload()
        expect(card.locator(".badge").first).to_have_text("partly failing")  # of its models, one was called
        expect(card).to_contain_text("3 of 5 failures in a row")
        expect(chip.locator(".badge")).to_have_text("partly failing")
        button.click()
        expect(card.locator(".badge").first).to_have_text("failing", timeout=30_000)
        expect(chip.locator(".badge")).to_have_text("failing")
        server.reset()
        button.click()
        expect(chip.locator(".badge")).to_have_text("ok", timeout=30_000)
        watch.close()


def test_missing_keys_are_said_once_and_one_is_saved_at_the_top(page: Page) -> None:
    page.goto(HOME)
    notice = page.get_by_role("region", name="have no key")
    expect(notice).to_be_in_viewport()
    expect(page.locator("details.rule .badge", has_text="no key")).to_have_count(0)
    expect(page.get_by_text("to mend")).to_be_visible(timeout=30_000)
    expect(page.locator(".findings li", has_text="_API_KEY")).to_have_count(0)
    notice.get_by_label("Key of").select_option("ANTHROPIC_API_KEY")
    notice.get_by_label("Key", exact=True).fill(KEY)
    notice.get_by_role("button", name="Save the key").click()
    expect(page.get_by_text("ANTHROPIC_API_KEY is saved")).to_be_visible()
    expect(page.get_by_label("Key of").locator("option", has_text="ANTHROPIC")).to_have_count(0)


def test_what_check_finds_does_not_move_the_page(page: Page) -> None:
    page.goto(HOME)  # loaded with its styles, so that only what the check finds can move anything
    before = page.evaluate(
        "() => { document.querySelector('.check').innerHTML = '<p class=\"card muted\">muse check is running …</p>';"
        " return document.getElementById('default-title').getBoundingClientRect().top }"
    )
    page.reload()
    expect(page.get_by_text("to mend")).to_be_visible(timeout=30_000)
    after = page.evaluate("document.getElementById('default-title').getBoundingClientRect().top")
    assert abs(after - before) <= 1


def test_what_was_saved_is_said_in_the_card_and_moves_no_other_card(page: Page) -> None:
    page.goto(HOME)
    places = "() => [...document.querySelectorAll('.providers > *')].map(e => e.id)"
    before = page.evaluate(places)
    card = page.locator("#provider-mistral, #provider-openrouter, #provider-ollama").first
    card.get_by_text("Save a key").click()
    card.get_by_label("_API_KEY").fill(KEY)
    card.get_by_role("button", name="Save the key").click()
    expect(card.get_by_text("is saved in the journal's .env")).to_be_in_viewport()
    after = page.evaluate(places)
    assert sorted(after) == sorted(before)
    assert all(after)


def test_the_word_that_the_server_is_away_goes_when_it_is_back(example: JournalFolder, browser: Browser) -> None:
    with serving(example) as served:
        port = served.url.rpartition(":")[2]
        watch = Watch(browser, served.url)
        watch.allow("ERR_CONNECTION|ERR_EMPTY|htmx:")
        page = watch.open(f"{HOME}rule?context=insight.*")
        served.process.terminate()
        served.process.wait()
        page.get_by_label("Tier", exact=True).select_option("1")
        toast = page.get_by_text("The server does not answer")
        expect(toast).to_be_visible()
        page.get_by_label("Tier", exact=True).select_option("3")
        with serving(example, "--port", port):
            expect(toast).to_have_count(0)
        watch.close()


def test_a_fault_of_the_raw_json_is_said_once_and_a_refused_save_goes_to_its_line(watch: Watch) -> None:
    watch.allow("400")
    page = watch.open(f"{HOME}raw")
    area = page.get_by_label("journal.json", exact=True)
    area.fill('{"providers": {"default": {"tier": 9}}}')
    expect(page.locator("#problems")).to_contain_text("providers.default.tier")
    page.get_by_role("button", name="Preview").click()
    expect(page.locator("#preview")).to_contain_text("No preview until")
    expect(page.get_by_text("providers.default.tier")).to_have_count(1)
    filler = "".join(f'  "x{number}": 1,\n' for number in range(60))
    area.fill(f'{{\n{filler}  "providers": {{"default": {{"tier": 2,,}}}}\n}}')
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.locator("#problems")).to_contain_text("Not saved")
    expect(page.locator("#problems")).to_contain_text("found invalid JSON at column")
    expect(page.locator("#problems a")).to_have_count(1)
    expect(area).to_be_focused()
    assert "2,," in area.evaluate("area => area.value.slice(area.selectionStart, area.selectionEnd)")
    fits = area.evaluate(
        "area => { const row = parseFloat(getComputedStyle(area).lineHeight), box = area.getBoundingClientRect();"
        " const bottom = 62 * row + 8 - area.scrollTop; return bottom <= area.clientHeight"
        " && box.top + bottom <= window.innerHeight }"
    )
    assert fits
    expect(page.get_by_text("Not saved")).to_be_in_viewport()


def test_on_a_phone_the_price_after_a_change_is_in_sight(watch: Watch) -> None:
    page = watch.open(HOME, viewport={"width": 375, "height": 740})
    form = opened(page, "insight.*")
    form.get_by_label("Provider", exact=True).select_option("openai")
    after = form.get_by_role("region", name="Calls of the last 30 days").locator("td[data-label=After]").first
    after.scroll_into_view_if_needed()
    expect(after).to_be_in_viewport(ratio=1)
    expect(after).to_contain_text("$")


def test_a_small_budget_is_written_with_the_digits_it_has(page: Page, served: Served) -> None:
    data = json.loads(served.journal.config.read_text())
    data["providers"]["budgets"] = [{"context": "insight.*", "usd": 0.001, "window": "day"}]
    served.journal.write(data)
    page.goto(f"{HOME}rule?context=insight.daily")
    expect(page.get_by_role("region", name="Why it has this route")).to_contain_text("$0.0010 a day")


def test_limits_and_budgets_show_what_is_used_left_and_when_they_start_anew(page: Page, served: Served) -> None:
    data = json.loads(served.journal.config.read_text())
    data["providers"]["budgets"] = [
        {"context": "insight.*", "usd": 0.2, "window": "month"},
        {"context": "observe.*", "usd": 50, "window": "month", "degrade_at": 0.5},
    ]
    data["providers"]["limits"] = [{"context": "insight.*", "tokens_per_day": 100_000, "in_flight": 4}]
    served.journal.write(data)
    spent = line(context="insight.daily", cost_usd=0.37, timestamp=time.time())
    append(served.journal, spent, day=time.strftime("%Y%m%d"))
    page.goto(HOME)
    table = page.get_by_role("region", name="Limits and budgets: used and left")
    budget = table.get_by_role("row").filter(has_text="providers.budgets[0]")
    expect(budget).to_contain_text("$0.37 of $0.20 a month")
    expect(budget).to_contain_text("used up")
    expect(budget.locator("[data-label=Left]")).to_have_text("$0")
    expect(budget.locator("time")).to_be_visible()
    expect(table.get_by_role("row").filter(has_text="1,100 tokens of 100,000 tokens a day")).to_be_visible()
    expect(table.get_by_role("row").filter(has_text="providers.budgets[1]")).to_contain_text("one tier down from 50 %")
    assert axe(page) == []
    page.goto(f"{HOME}rule?context=insight.daily")
    expect(table.get_by_role("row").filter(has_text="providers.budgets[0]")).to_contain_text("$0.37 of $0.20 a month")
    expect(table.get_by_role("row").filter(has_text="observe")).to_have_count(0)
