"""The addresses of the to-dos app: the list now or of a day, and what changes it; it knows no file form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from typing import Any
from urllib.parse import urlencode

from msgspec import Struct
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from apps.host.templating import own_path
from apps.todos import todos
from apps.todos.todos import ChangedError, Changes, Todo, TodoError
from muse.journal import paths

__all__ = ["ROUTES", "workspace"]

BASE = "/app/todos/"
STATES = ("open", "done", "all")
_SETTLED = "todos_settled"
_NO_DATE = "9999"
_SOON = timedelta(days=7)


class Group(Struct, frozen=True):
    """To-dos that belong together by when they are due."""

    title: str
    todos: tuple[Todo, ...]
    kind: str = ""


class Wanted(Struct, frozen=True):
    """Which to-dos a page shows: of one day's list ("" is now), in a state, with a tag, with words."""

    day: str = ""
    state: str = "open"
    tag: str = ""
    words: str = ""

    def address(self, **other: str) -> str:
        """The page with some of it another way."""
        said = {"day": self.day, "state": self.state, "tag": self.tag, "words": self.words, **other}
        kept = {name: value for name, value in said.items() if value and (name, value) != ("state", "open")}
        return f"{BASE}?{urlencode(kept)}" if kept else BASE


def workspace(request: Request) -> Mapping[str, Any]:
    """The list, now or as it stood on a day."""
    root = paths.journal_path()
    wanted = _wanted(request)
    listed = list(todos.read_day(root, wanted.day)) if wanted.day else list(todos.read_all(root))
    shown = [todo for todo in listed if _is_wanted(todo, wanted)]
    days = todos.find_days(root)
    return {
        "wanted": wanted,
        "groups": [Group("", tuple(shown))] if wanted.day else group(shown, date.today()),
        "days": days[::-1],
        "tags": sorted({tag for todo in listed for tag in todo.tags}),
        "states": STATES,
        "is_empty": not listed,
        "open_count": sum(1 for todo in listed if not todo.done),
        "today": date.today().isoformat(),
        "most_chars": todos.MOST_CHARS,
        "line_of": todos.write_line,
        "settled": _just_settled(request, listed),
    }


def _just_settled(request: Request, listed: Sequence[Todo]) -> Todo | None:
    """The to-do that the request before completed, said once, with its undo."""
    todo_id = request.session.pop(_SETTLED, None)
    return next((todo for todo in listed if todo.id == todo_id and todo.done), None)


def _wanted(request: Request) -> Wanted:
    query = request.query_params
    day, state = query.get("day", ""), query.get("state") or "open"
    if day and not paths.is_day(day):
        raise HTTPException(400, detail=f"day: found {day[:20]!r}, expected a date as YYYYMMDD")
    if state not in STATES:
        raise HTTPException(400, detail=f"state: found {state[:20]!r}, expected one of {', '.join(STATES)}")
    return Wanted(day, state, query.get("tag", ""), query.get("words", "").strip())


def _is_wanted(todo: Todo, wanted: Wanted) -> bool:
    words = wanted.words.casefold().split()
    said = f"{todo.id} {todo.text} {' '.join(todo.tags)}".casefold()
    is_state = wanted.state == "all" or todo.done == (wanted.state == "done")
    return is_state and (not wanted.tag or wanted.tag in todo.tags) and all(word in said for word in words)


def group(listed: Sequence[Todo], today: date) -> list[Group]:
    """To-dos by when they are due, the most urgent first; those that are done last, newest first."""
    now, soon = today.isoformat(), (today + _SOON).isoformat()
    rows = sorted(listed, key=lambda todo: (todo.due or _NO_DATE, todo.number))
    still_open = [todo for todo in rows if not todo.done]
    done = sorted((todo for todo in rows if todo.done), key=lambda todo: (todo.day, todo.number), reverse=True)
    groups = (
        Group("Overdue", tuple(todo for todo in still_open if todo.due and todo.due < now), "bad"),
        Group("Today", tuple(todo for todo in still_open if todo.due == now), "warn"),
        Group("Next seven days", tuple(todo for todo in still_open if now < todo.due <= soon)),
        Group("Later", tuple(todo for todo in still_open if todo.due > soon)),
        Group("Without a date", tuple(todo for todo in still_open if not todo.due)),
        Group("Done", tuple(done)),
    )
    return [one for one in groups if one.todos]


async def add(request: Request) -> Response:
    """Add a to-do: fields text, due, tags."""
    form = await request.form()
    text, due, tags = (str(form.get(name) or "") for name in ("text", "due", "tags"))
    return await _changed(request, lambda: todos.add(paths.journal_path(), text, due=due, tags=_tags(tags)))


async def settle(request: Request) -> Response:
    """Complete a to-do, or open it again: field done, yes or no; the field seen is the line that the page showed."""
    form = await request.form()
    todo_id, done = request.path_params["todo_id"], form.get("done") == "yes"
    seen = todos.parse_line(str(form.get("seen") or ""), "")
    answer = await _changed(
        request, lambda: todos.change(paths.journal_path(), todo_id, Changes(done=done), seen=seen)[0]
    )
    if done:
        request.session[_SETTLED] = todo_id
    else:
        request.session.pop(_SETTLED, None)
    return answer


async def edit(request: Request) -> Response:
    """Change text, due and tags; the field seen is the line that the page showed."""
    form = await request.form()
    todo_id = request.path_params["todo_id"]
    text, due, tags = (str(form.get(name) or "") for name in ("text", "due", "tags"))
    seen = todos.parse_line(str(form.get("seen") or ""), "")
    changes = Changes(text=text, due=due, tags=_tags(tags))
    return await _changed(request, lambda: todos.change(paths.journal_path(), todo_id, changes, seen=seen)[0])


def _tags(text: str) -> list[str]:
    return text.replace(",", " ").split()


async def _changed(request: Request, act: Callable[[], Todo]) -> Response:
    """Change the list, then show it; JSON for a program."""
    try:
        todo = await run_in_threadpool(act)
    except ChangedError as exc:
        raise HTTPException(409, detail=f"{exc}. Go back and reload the page; nothing was changed.") from exc
    except TodoError as exc:
        raise HTTPException(400, detail=str(exc)) from exc
    if "application/json" in request.headers.get("Accept", ""):
        return JSONResponse({"id": todo.id, "text": todo.text, "done": todo.done, "due": todo.due, "tags": todo.tags})
    form = await request.form()
    return RedirectResponse(f"{own_path(form.get('back'), BASE)}#{todo.id}", status_code=303)


ROUTES: tuple[BaseRoute, ...] = (
    Route("/add", add, methods=["POST"]),
    Route("/todo/{todo_id}/settle", settle, methods=["POST"]),
    Route("/todo/{todo_id}/edit", edit, methods=["POST"]),
)
