"""The to-do tools for a model: list, add, complete; it knows no MCP and no file form."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypedDict  # pydantic takes the standard one from Python 3.12 on

from apps.todos import todos
from apps.todos.todos import Todo, TodoError
from muse.agent_loop.tool_registry import LocalTool
from muse.errors import ToolError
from muse.journal import paths

PACK = "todo"
MOST_RESULTS = 100

_DASHED = re.compile(r"(\d{4})-(\d\d)-(\d\d)")
_SHOWN_DAYS = 8
_NO_DATE = "9999"


class TodoRow(TypedDict):
    """A to-do: due is YYYY-MM-DD or null, day is the latest day (YYYYMMDD) whose list names it."""

    id: str
    text: str
    done: bool
    due: str | None
    tags: list[str]
    day: str


class Todos(TypedDict):
    """A page of to-dos."""

    total: int
    todos: list[TodoRow]
    next_offset: int | None


class Completed(TypedDict):
    """A to-do that is done; changed is false if it was so before."""

    todo: TodoRow
    changed: bool


def list_todos(
    state: Annotated[Literal["open", "done", "all"], Field(description="Which to-dos to list.")] = "open",
    day: Annotated[
        str | None, Field(description="The list as it stood on that day, YYYYMMDD such as 20261103; null for now.")
    ] = None,
    limit: Annotated[int, Field(ge=1, le=MOST_RESULTS, description=f"How many to return, 1 to {MOST_RESULTS}.")] = 20,
    offset: Annotated[int, Field(ge=0, description="Where to go on: next_offset of the page before.")] = 0,
) -> Todos:
    """List the to-dos as they stand now, the most urgent first, or the list of one day in its own order."""
    if not 1 <= limit <= MOST_RESULTS or offset < 0:
        raise ToolError(f"found limit {limit} and offset {offset}, expected 1 to {MOST_RESULTS}, and 0 or more")
    root = paths.journal_path()
    if day is None:
        listed = sorted(todos.read_all(root), key=lambda todo: (todo.due or _NO_DATE, todo.number))
    else:
        listed = list(todos.read_day(root, _check_day(day)))
    found = [_row(todo) for todo in listed if state == "all" or todo.done == (state == "done")]
    page = found[offset : offset + limit]
    more = offset + len(page)
    return {"total": len(found), "todos": page, "next_offset": more if page and more < len(found) else None}


def add_todo(
    text: Annotated[str, Field(description="What is to be done, beginning with a verb, in one line.")],
    due: Annotated[str | None, Field(description="Date as YYYY-MM-DD, only if one was said.")] = None,
    tags: Annotated[list[str] | None, Field(description="Topics without #, such as release.")] = None,
) -> TodoRow:
    """Add a to-do to today's list; the result has its new id. List the to-dos first: adding twice makes two of them."""
    try:
        return _row(todos.add(paths.journal_path(), text, due=due or "", tags=tags or ()))
    except TodoError as exc:
        raise ToolError(str(exc)) from exc


def complete_todo(todo_id: Annotated[str, Field(description="The id of the to-do, such as T-123.")]) -> Completed:
    """Tick off a to-do on today's list; completing one that is done changes nothing."""
    try:
        todo, changed = todos.complete(paths.journal_path(), todo_id)
    except TodoError as exc:
        raise ToolError(str(exc)) from exc
    return {"todo": _row(todo), "changed": changed}


TOOLS = (
    LocalTool(list_todos, "List to-dos", read_only=True),
    LocalTool(add_todo, "Add a to-do"),
    LocalTool(complete_todo, "Complete a to-do", idempotent=True),
)


def _row(todo: Todo) -> TodoRow:
    return {
        "id": todo.id,
        "text": todo.text,
        "done": todo.done,
        "due": todo.due or None,
        "tags": list(todo.tags),
        "day": todo.day,
    }


def _check_day(value: str) -> str:
    """A day that has a list, in the form YYYYMMDD; one written 2026-11-03 is taken too."""
    day = _DASHED.sub(r"\1\2\3", value.strip())
    days = todos.find_days(paths.journal_path())
    if day in days:
        return day
    there = f"lists are there for {', '.join(days[: -_SHOWN_DAYS - 1 : -1])}" if days else "there is no list yet"
    raise ToolError(f"day: found {value[:40]!r}, expected a day with a list, as YYYYMMDD; {there}")
