"""The topics of insights: each a file that says what to look for, where, when, in which form; it asks nothing."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal, get_args

from msgspec import Struct

from muse.cortex.schedules import DAILY, WEEKLY, scheduled_times
from muse.errors import ConfigError
from muse.journal import config_loader
from muse.journal.lenient_parser import LenientParser
from muse.journal.prompts import identity_fields, render
from muse.journal.storage.backups import is_backup
from muse.journal.storage.path_containment import require_within
from muse.types.json_schema.validation import check_schema
from think.daily_summary.build import BUILT_IN
from think.entries import front_matter
from think.insights.validation import reply_schema
from think.llm.paths import TOPICS

Kind = Literal["transcripts", "notes", "events", "screens", "summaries", "insights"]
KINDS: tuple[Kind, ...] = get_args(Kind)
By = Literal["part", "person", "day"]
Filler = Literal["title", "sentence", "speaker", "speakers", "person", "heading", "due"]
FILLERS: tuple[Filler, ...] = get_args(Filler)

_HOUSE = TOPICS
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,59}")
_CONTEXT = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)+")
_OWN_FIELDS = ("quote", "source")
_USUAL_ORDER = 50
_FIELDS: Mapping[str, type] = {
    "title": str,
    "context": str,
    "schedule": str,
    "order": int,
    "sources": list,
    "choose": dict,
}
_CHOOSE: Mapping[str, type] = {"by": str, "question": str, "cues": list, "fields": dict}


class Choose(Struct, frozen=True):
    """How a model that reads little at a time serves a topic: it chooses among sentences that `cues` point out.

    `by` says for what one is chosen; `fields` what each field of an occurrence is filled with.
    """

    by: By
    question: str
    cues: tuple[str, ...]
    fields: Mapping[str, Filler]


class Topic(Struct, frozen=True):
    """One topic; `schema` is the JSON Schema of an occurrence without its quotation, `prompt` a template."""

    name: str
    title: str
    context: str
    schedule: str
    order: int
    sources: tuple[Kind, ...]
    schema: Mapping[str, Any]
    prompt: str
    path: str
    choose: Choose | None = None

    @property
    def is_weekly(self) -> bool:
        """Whether it is about a week, and stands in the folder of its last day."""
        return self.schedule == WEEKLY


class Topics(Struct, frozen=True):
    """All topics in their order, and the files that are none, each with the reason."""

    found: tuple[Topic, ...]
    problems: tuple[ConfigError, ...]

    def named(self, name: str) -> Topic:
        """The topic of that name.

        Raises:
            ConfigError: there is none, or its file cannot be used.
        """
        for problem in self.problems:
            if Path(problem.path.partition(":")[0]).stem == name:
                raise problem
        for topic in self.found:
            if topic.name == name:
                return topic
        known = ", ".join((BUILT_IN, *(topic.name for topic in self.found)))
        raise ConfigError("--topic", repr(name), f"one of {known} (muse insight --list)")


def find_topics() -> Topics:
    """The topics that come with muse, then those of the folders that journal.json names; a later one wins a name."""
    found: dict[str, Topic] = {}
    problems: list[ConfigError] = []
    for path in _files():
        try:
            topic = read_topic(path)
        except ConfigError as exc:
            problems.append(exc)
            found.pop(path.stem, None)  # else the page that the broken file made would be overwritten by another's
        else:
            found[topic.name] = topic
    ordered = sorted(found.values(), key=lambda topic: (topic.is_weekly, topic.order, topic.name))
    return Topics(tuple(ordered), tuple(problems))


def is_due(topic: Topic, day: str, *, is_end_of_week: bool) -> bool:
    """Whether a topic has its turn for a day: a daily one always, a weekly one at the end of the week, else by cron."""
    if topic.schedule in (DAILY, WEEKLY):
        return topic.schedule == DAILY or is_end_of_week
    after = datetime.strptime(day, "%Y%m%d") + timedelta(days=1)
    return any(one.day == day for one in scheduled_times(topic.schedule, after, days_back=1))


def read_topic(path: Path) -> Topic:
    """A topic out of its file.

    Raises:
        ConfigError: it cannot be used; file and field are named.
    """
    where = str(path)
    fields, body = front_matter.split(_text_of(path), where=where)
    name = path.stem
    if not _NAME.fullmatch(name) or name == BUILT_IN or is_backup(name):
        allowed = f"up to 60 small letters, digits, _ and -, a letter first; not {BUILT_IN!r}, not ..._before_<number>"
        raise ConfigError(where, f"the name {name!r}", allowed)
    reader = LenientParser()
    given = reader.fields({key: value for key, value in fields.items() if key != "schema"}, "", _FIELDS)
    for problem in reader.problems:
        raise ConfigError(f"{where}: {problem.path}", problem.found, problem.allowed)
    for key in ("title", "schedule", "sources"):
        if key not in given:
            raise ConfigError(f"{where}: {key}", "nothing", "this field, which every topic has")
    schema = _schema(fields.get("schema"), path)
    return Topic(
        name,
        " ".join(given["title"].split()),
        _context(given.get("context", f"insight.{name}"), where),
        _schedule(given["schedule"], where),
        given.get("order", _USUAL_ORDER),
        _sources(given["sources"], where),
        schema,
        _prompt(body, where),
        where,
        _choose(given["choose"], schema, where) if "choose" in given else None,
    )


def prompt_fields(first: str, last: str) -> dict[str, str]:
    """What a topic's text may name: the journal's identity and the days (`YYYYMMDD`) that it is about."""
    begin, end = (datetime.strptime(day, "%Y%m%d") for day in (first, last))
    days = {
        "day": f"{end:%A} {end.day} {end:%B %Y}",
        "date": f"{end:%Y-%m-%d}",
        "first_date": f"{begin:%Y-%m-%d}",
        "week": f"{end:%G-W%V}",
    }
    return identity_fields(config_loader.load().config.identity) | days


def _files() -> Iterator[Path]:
    snapshot = config_loader.load()
    base = Path(snapshot.path).parent
    for folder in (_HOUSE, *(Path(os.path.normpath(base / name)) for name in snapshot.config.descriptors.insights)):
        yield from sorted(folder.glob("*.md")) if folder.is_dir() else ()


def _text_of(path: Path) -> str:
    try:
        require_within(path, config_loader.load().config.descriptors.project)
        return path.read_text(encoding="utf-8")
    except OSError as exc:
        raise ConfigError(str(path), f"an unreadable file ({exc.strerror})", "a topic's text") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(str(path), f"a byte that is not UTF-8 at position {exc.start}", "UTF-8 text") from exc


def _context(context: str, where: str) -> str:
    if not _CONTEXT.fullmatch(context):
        raise ConfigError(f"{where}: context", repr(context), "words joined by dots, such as 'insight.decisions'")
    return context


def _schedule(schedule: str, where: str) -> str:
    try:
        scheduled_times(schedule, datetime(2026, 1, 1))
    except ConfigError as exc:
        raise ConfigError(f"{where}: schedule", exc.found, exc.allowed) from exc
    return schedule


def _sources(raw: list[Any], where: str) -> tuple[Kind, ...]:
    kinds = tuple(kind for kind in KINDS if kind in raw)
    if not raw or len(kinds) < len(raw):
        bad = next((kind for kind in raw if kind not in KINDS), raw)
        raise ConfigError(f"{where}: sources", repr(bad), f"a list of {', '.join(KINDS)}, each once")
    return kinds


def _prompt(body: str, where: str) -> str:
    if not body.strip():
        raise ConfigError(where, "no text below the front matter", "the prompt: what to look for")
    render(body, prompt_fields("20260101", "20260101"), where=where)
    return body.strip()


def _schema(raw: object, path: Path) -> Mapping[str, Any]:
    """The schema of an occurrence, out of the front matter or the JSON file beside that it names."""
    where = f"{path}: schema"
    if isinstance(raw, str):
        where = f"{path}: schema ({raw})"
        try:
            raw = json.loads(_text_of(path.with_name(raw)))  # a name with a slash is refused
        except (OSError, ValueError, RecursionError) as exc:
            raise ConfigError(where, f"no file of JSON ({exc})", "the name of a JSON Schema's file beside it") from exc
    if not isinstance(raw, Mapping) or raw.get("type") != "object" or not isinstance(raw.get("properties"), Mapping):
        raise ConfigError(where, "none of an object", "a JSON Schema with type: object and properties")
    own = [name for name in _OWN_FIELDS if name in raw["properties"]]
    if own or not raw["properties"]:
        found = f"a property {own[0]!r}" if own else "no properties"
        raise ConfigError(where, found, "the fields of an occurrence; `quote` and `source` are added to them")
    try:
        schema: dict[str, Any] = json.loads(json.dumps(raw, allow_nan=False))
        check_schema(schema)
        _require_possible(schema, schema)
        check_schema(reply_schema(schema, ["-"]))  # where a reference counts from another root
    except (ValueError, TypeError, RecursionError) as exc:
        raise ConfigError(where, f"none that can be used ({exc})", "a JSON Schema") from exc
    return schema


def _require_possible(schema: Mapping[str, Any], part: object) -> None:
    """See that references mean the same within a reply's schema, and that what is required may be given.

    Raises:
        ValueError: a reference counts from the root, which is another one there; or `required` names no property.
    """
    unknown = [name for name in schema.get("required", ()) if name not in schema["properties"]]
    if unknown:
        raise ValueError(f"required names {unknown[0]!r}, which is none of its properties")
    ref = part.get("$ref") if isinstance(part, Mapping) else None
    if isinstance(ref, str) and not ref.startswith(("#/$defs/", "#/definitions/")):
        raise ValueError(f"$ref {ref!r}; what is referred to has to stand in $defs")
    children = part.values() if isinstance(part, Mapping) else part if isinstance(part, list) else ()
    for child in children:
        _require_possible(schema, child)


def _choose(raw: Mapping[str, Any], schema: Mapping[str, Any], where: str) -> Choose:
    reader = LenientParser()
    given = reader.fields(raw, "choose", _CHOOSE)
    cues = [cue for i, cue in enumerate(given.get("cues", [])) if reader.is_text(cue, f"choose.cues[{i}]")]
    for problem in reader.problems:
        raise ConfigError(f"{where}: {problem.path}", problem.found, problem.allowed)
    by = next((one for one in get_args(By) if one == given.get("by", "part")), None)
    if by is None:
        raise ConfigError(f"{where}: choose.by", repr(given["by"]), f"one of {', '.join(get_args(By))}")
    for key in ("question", "fields"):
        if not given.get(key):
            raise ConfigError(f"{where}: choose.{key}", "nothing", "this field, which `choose` needs")
    for name, filler in given["fields"].items():
        if name not in schema["properties"]:
            raise ConfigError(f"{where}: choose.fields.{name}", "no property of the schema", "one of it")
        if filler not in FILLERS:
            raise ConfigError(f"{where}: choose.fields.{name}", repr(filler), f"one of {', '.join(FILLERS)}")
    return Choose(by, given["question"].strip(), tuple(cues), given["fields"])
