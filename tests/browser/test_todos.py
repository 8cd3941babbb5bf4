"""The to-dos app in a browser: added, edited and completed by hand, also without scripts; an agent sees the same."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.browser.harness import PHONE, Served, Watch, axe, focused, is_within_width
from tests.journal_folder import run


@pytest.mark.parametrize("scripts", [True, False])
def test_a_to_do_added_by_hand_is_seen_by_an_agent_s_tool_and_completed(
    served: Served, watch: Watch, scripts: bool
) -> None:
    page = watch.open("/app/todos/", java_script_enabled=scripts)
    page.get_by_label("To do", exact=True).first.fill("Water the proving cabinet")
    page.get_by_label("Tags", exact=True).first.fill("lab")
    page.get_by_role("button", name="Add", exact=True).click()
    todo = page.locator(".todo", has_text="Water the proving cabinet")
    expect(todo).to_contain_text("#lab")
    code = "from apps.todos.tools import list_todos; print(list_todos(limit=100))"
    assert "Water the proving cabinet" in run(code, JOURNAL_PATH=str(served.journal.path))
    todo.get_by_role("button", name="Complete").click()
    expect(page.locator(".todo", has_text="Water the proving cabinet")).to_have_count(0)
    assert "Water the proving cabinet" not in run(code, JOURNAL_PATH=str(served.journal.path))


def test_a_to_do_is_edited_and_what_an_agent_did_meanwhile_is_not_overwritten(
    served: Served, page: Page, watch: Watch
) -> None:
    page.goto("/app/todos/")
    first = page.locator(".todo").first
    todo_id = str(first.get_attribute("id"))
    first.get_by_text("Edit").click()
    first.get_by_label("To do").fill("Another text")
    first.get_by_role("button", name="Keep").click()
    expect(page.locator(f"#{todo_id}")).to_contain_text("Another text")
    page.locator(f"#{todo_id}").get_by_text("Edit").click()
    code = f"from apps.todos.tools import complete_todo; complete_todo({todo_id!r})"
    run(code, JOURNAL_PATH=str(served.journal.path))
    watch.allow("409")
    page.locator(f"#{todo_id}").get_by_role("button", name="Keep").click()
    expect(page.get_by_role("alert")).to_contain_text("has changed meanwhile")


def test_the_list_is_worked_with_the_keyboard_alone(page: Page) -> None:
    page.goto("/app/todos/")
    page.get_by_label("To do", exact=True).first.focus()
    page.keyboard.type("By keyboard")
    page.keyboard.press("Enter")
    todo = page.locator(".todo", has_text="By keyboard")
    expect(todo).to_be_visible()
    todo.get_by_role("button", name="Complete").focus()
    assert focused(page) == "button Complete: By keyboard"
    page.keyboard.press("Enter")
    expect(page.locator(".todo", has_text="By keyboard")).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_readable_in_both_looks_and_on_a_phone(watch: Watch, scheme: str) -> None:
    page = watch.open("/app/todos/?state=all", color_scheme=scheme, viewport=PHONE)
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    assert axe(page) == []
    assert is_within_width(page)


@pytest.mark.parametrize("scripts", [True, False])
def test_a_completed_to_do_is_said_and_taken_back_with_one_click(watch: Watch, scripts: bool) -> None:
    page = watch.open("/app/todos/", java_script_enabled=scripts)
    first = page.locator(".todo").first
    todo_id, text = first.get_attribute("id"), first.locator(".todo-text").inner_text()
    first.get_by_role("button", name="Complete").click()
    said = page.locator("#settled")
    expect(said).to_contain_text(f"Done: {text}")
    expect(page.locator(f"#{todo_id}")).to_have_count(0)
    assert not scripts or axe(page) == []
    said.get_by_role("button", name="Undo").click()
    expect(page.locator(f"#{todo_id}")).to_contain_text(text)
    expect(page.locator("#settled")).to_have_count(0)
