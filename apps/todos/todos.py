"""To-dos in the journal: the form of a line, a day's list, what stands open now, and how that is changed; no tools.

A day's `todos.md` is the list as it stood on that day. A to-do keeps its id when it is carried over, so its state is
that on the latest day that names it. A new day's list begins with what was open before.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import date
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from muse.errors import MuseError
from muse.journal import paths
from muse.journal.days import every_day
from muse.journal.storage import atomic_files
from muse.journal.storage.path_containment import inside, is_inside

log = logging.getLogger(__name__)

FILE = "todos.md"
MOST_CHARS = 500
_SHOWN = 20

_BOX = re.compile(r"(\s*[-*+] \[)([ xX])(\] )(T-\d{1,9})((?: .*?)?)([ \t]*\r?)")
_TAGS = re.compile(r"((?:\s+#[\w/-]+)+)$")
_DUE = re.compile(r"\s+\(due (\d{4}-\d\d-\d\d)\)$")
_DATE = re.compile(r"(\d{4})-?(\d\d)-?(\d\d)")
_TAG = re.compile(r"[\w/-]{1,40}")
_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip


class TodoError(MuseError, ValueError):
    """The list cannot be read or changed like that; the text says what would be right."""


class ChangedError(TodoError):
    """The to-do is not any more as it was seen: look again, then change it."""


class Todo(Struct, frozen=True):
    """A to-do: `due` is `YYYY-MM-DD` or "", `day` the latest day (`YYYYMMDD`) whose list names it."""

    id: str
    text: str
    done: bool
    day: str
    due: str = ""
    tags: tuple[str, ...] = ()

    @property
    def number(self) -> int:
        """The number in its id."""
        return int(self.id[2:])


def parse_line(line: str, day: str) -> Todo | None:
    """The to-do in a line; None if the line is something else.

    >>> parse_line("- [ ] T-123 Go or no-go for 4.2 (due 2026-11-10) #release", "20261106").due
    '2026-11-10'
    """
    box = _BOX.fullmatch(line)
    if box is None:
        return None
    text = box[5]
    tags = _TAGS.search(text)
    text = text[: tags.start()] if tags else text
    due = _DUE.search(text)
    text = text[: due.start()] if due else text
    names = tuple(name[1:] for name in tags[1].split()) if tags else ()
    return Todo(box[4], text.strip(), box[2] != " ", day, due[1] if due else "", names)


def write_line(todo: Todo) -> str:
    """A to-do as a line, without an end of line."""
    due = f" (due {todo.due})" if todo.due else ""
    return f"- [{'x' if todo.done else ' '}] {todo.id} {todo.text}{due}{''.join(f' #{tag}' for tag in todo.tags)}"


def read_day(root: Path, day: str) -> tuple[Todo, ...]:
    """The list of a day in its own order; empty if the day has none."""
    path = root / day / FILE
    if not any(inside([path], root)):
        return ()
    try:
        text = path.read_bytes().decode("utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except OSError as exc:
        log.warning("%s cannot be read (%s); its to-dos are left out", root / day / FILE, exc.strerror)
        return ()
    return tuple(todo for line in text.split("\n") if (todo := parse_line(line, day)) is not None)


def find_days(root: Path) -> list[str]:
    """The days that have a list, in order."""
    lists = {day: root / day / FILE for day in every_day(root)}
    return [day for day, path in lists.items() if path.is_file() and any(inside([path], root))]


def read_all(root: Path) -> tuple[Todo, ...]:
    """Every to-do once, as it stands on the latest day that names it, in order of its id."""
    latest = {todo.id: todo for day in find_days(root) for todo in read_day(root, day)}
    return tuple(sorted(latest.values(), key=lambda todo: todo.number))


def add(root: Path, text: str, *, due: str = "", tags: Sequence[str] = (), today: date | None = None) -> Todo:
    """Add a to-do to today's list, with the next free id.

    Raises:
        TodoError: `text`, `due` or a tag is not of the form; or the list cannot be changed.
    """
    said = _check_text(text)
    names = tuple(dict.fromkeys(_check_tag(tag) for tag in tags))
    when = _check_due(due) if due else ""
    with _changing(root):
        known = read_all(root)
        number = max((todo.number for todo in known), default=0) + 1
        page = _open_page(root, known, today or date.today())
        todo = Todo(f"T-{number}", said, done=False, day=page.day, due=when, tags=names)
        todo = parse_line(write_line(todo), page.day) or todo  # a date or tags that end the text are read as such
        page.put(todo)
        _write(root, page)
    return todo


def complete(root: Path, todo_id: str, *, today: date | None = None) -> tuple[Todo, bool]:
    """Tick off a to-do on today's list; the to-do, and whether it was open until now.

    Raises:
        TodoError: there is none of this id; or the list cannot be changed.
    """
    wanted = todo_id.strip().upper()
    with _changing(root):
        known = read_all(root)
        todo = next((todo for todo in known if todo.id == wanted), None)
        if todo is None:
            raise TodoError(_unknown(todo_id, known))
        if todo.done:
            return todo, False
        page = _open_page(root, known, today or date.today())
        todo = replace(todo, done=True, day=page.day)
        page.put(todo)
        _write(root, page)
    return todo, True


class Changes(Struct, frozen=True):
    """What is to be another way in a to-do; None leaves a part as it is, an empty `due` takes the date away."""

    text: str | None = None
    due: str | None = None
    tags: Sequence[str] | None = None
    done: bool | None = None


def change(
    root: Path, todo_id: str, changes: Changes, *, seen: Todo | None = None, today: date | None = None
) -> tuple[Todo, bool]:
    """Change a to-do on today's list; the to-do as it is now, and whether anything of it was another way before.

    `seen` is the to-do as whoever changes it has it before their eyes; its box counts only if more than that
    changes.

    Raises:
        TodoError: there is none of this id, a part is not of the form, it is not any more as it was `seen`, or the list
            cannot be changed.
    """
    wanted = todo_id.strip().upper()
    with _changing(root):
        known = read_all(root)
        before = next((todo for todo in known if todo.id == wanted), None)
        if before is None:
            raise TodoError(_unknown(todo_id, known))
        if seen is not None and _is_changed(before, seen, changes):
            raise ChangedError(f"{before.id} has changed meanwhile; it is now: {write_line(before)}")
        page = _open_page(root, known, today or date.today())
        after = _changed(replace(before, day=page.day), changes)
        if replace(after, day=before.day) == before:
            return before, False
        page.put(after)
        _write(root, page)
    return after, True


def _is_changed(now: Todo, seen: Todo, changes: Changes) -> bool:
    is_box_only = changes == Changes(done=changes.done)
    return write_line(replace(seen, done=now.done) if is_box_only else seen) != write_line(now)


def _changed(todo: Todo, changes: Changes) -> Todo:
    """The to-do with its changes; a date or tags that end a new text are read as such, as in `add`."""
    names = todo.tags if changes.tags is None else tuple(dict.fromkeys(_check_tag(tag) for tag in changes.tags))
    due = todo.due if changes.due is None else (_check_due(changes.due) if changes.due.strip() else "")
    text = todo.text if changes.text is None else _check_text(changes.text)
    done = todo.done if changes.done is None else changes.done
    after = replace(todo, text=text, due=due, tags=names, done=done)
    return parse_line(write_line(after), todo.day) or after


class _Page(Struct):
    """The list of a day while it is changed: its lines without their ends."""

    day: str
    lines: list[str]

    def put(self, todo: Todo) -> None:
        """Set the to-do's line, or add one after the last to-do; all other lines stay as they are.

        Of a line that says the same but for its box only that is touched.
        """
        last = -1
        is_there = False
        for number, line in enumerate(self.lines):
            box = _BOX.fullmatch(line)
            if box is not None:
                last = number
            if box is not None and box[4] == todo.id:
                is_there = True
                self.lines[number] = _with_todo(line, box, todo)
        if not is_there:
            self._insert(last, write_line(todo))

    def _insert(self, last: int, line: str) -> None:
        end = "\r" if self.lines[0].endswith("\r") else ""
        if last < 0:
            last = len(self.lines) - (1 if self.lines[-1].strip() else 2)
        if last >= 0 and last == len(self.lines) - 1:  # the file ends without an end of line
            self.lines[last] += end
            self.lines.append("")
        self.lines.insert(last + 1, line + end)


def _with_todo(line: str, box: re.Match[str], todo: Todo) -> str:
    """A line of the list with another state of its to-do: its own marks before and its end stay."""
    said = parse_line(line, todo.day)
    mark = "x" if todo.done else " "
    if said is not None and replace(said, done=todo.done) == todo:
        return f"{box[1]}{mark}{line[box.end(2) :]}"
    rest = write_line(todo).partition("] ")[2]
    return f"{box[1]}{mark}{box[3]}{rest}{box[6]}"


def _open_page(root: Path, known: Sequence[Todo], today: date) -> _Page:
    """Today's list, or a later one if there is one already; a list that is not there yet begins with what is open."""
    day = max([f"{today:%Y%m%d}", *find_days(root)[-1:]])
    path = root / day / FILE
    if not is_inside(path, root):
        raise TodoError(f"{day}/{FILE} leads out of the journal; put a file in its place, then try again")
    try:
        return _Page(day, path.read_bytes().decode("utf-8").split("\n"))
    except FileNotFoundError:
        when = date(int(day[:4]), int(day[4:6]), int(day[6:]))
        title = f"# To-dos, {_WEEKDAYS[when.weekday()]} {when.day} {_MONTHS[when.month - 1]} {when.year}"
        return _Page(day, [title, "", *(write_line(todo) for todo in known if not todo.done), ""])
    except (OSError, UnicodeDecodeError) as exc:
        raise TodoError(f"{day}/{FILE} cannot be read ({exc}); mend it, then try again") from exc


def _write(root: Path, page: _Page) -> None:
    path = root / page.day / FILE
    try:
        atomic_files.make_folder(path.parent)
        atomic_files.write_atomic(path, "\n".join(page.lines))
    except OSError as exc:
        raise TodoError(f"{page.day}/{FILE} cannot be written ({exc.strerror}); nothing was changed") from exc


@contextmanager
def _changing(root: Path) -> Iterator[None]:
    """Only one process or thread changes the lists of a journal at a time."""
    with ExitStack() as held:
        try:
            atomic_files.make_folder(root)
            held.enter_context(atomic_files.file_lock(root / ".todos.lock"))
        except OSError as exc:
            raise TodoError(f"the to-dos cannot be changed ({exc.strerror}: {exc.filename})") from exc
        yield


def _check_text(text: str) -> str:
    said = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    found = parse_line(f"- [ ] T-1 {said}", "")
    if found is None or not found.text:
        raise TodoError(f"text: found {text[:40]!r}, expected what is to be done, such as 'Ring Nuala at 12:30'")
    if len(said) > MOST_CHARS:
        raise TodoError(f"text: found {len(said)} characters, expected {MOST_CHARS} at most")
    return said


def _check_tag(tag: str) -> str:
    name = tag.strip().removeprefix("#")
    if not _TAG.fullmatch(name):
        raise TodoError(f"tags: found {tag[:40]!r}, expected letters, digits, '-', '_' or '/', such as 'release'")
    return name


def _check_due(due: str) -> str:
    found = _DATE.fullmatch(due.strip())
    if found is None or not paths.is_day("".join(found.groups())):
        raise TodoError(f"due: found {due[:40]!r}, expected a date as YYYY-MM-DD, such as 2026-11-10")
    return "-".join(found.groups())


def _unknown(todo_id: str, known: Sequence[Todo]) -> str:
    still_open = [todo.id for todo in known if not todo.done]
    there = f"open are {', '.join(still_open[-_SHOWN:])}" if still_open else "none is open"
    return f"todo_id: found {todo_id[:40]!r}, expected the id of a to-do, such as T-123; {there} (see list_todos)"
