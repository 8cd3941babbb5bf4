"""`muse batch`: a file of rows asked row by row, and the ledgers of batches; it makes no call itself."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from msgspec.structs import asdict, replace

from muse.batch import BatchRequest
from muse.batching.io import formats
from muse.batching.io.column_types import Kind, column_of, note_kinds
from muse.batching.provider_batches.job_table import BatchJobTable
from muse.batching.provider_batches.lane import LANES
from muse.batching.store import store
from muse.batching.store.serialization import unpack
from muse.batching.store.store import StateSummary, Store, StoredItem
from muse.cli._batch.options import (
    RESULTS,
    BatchRunOptions,
    parse_batch_options,
    refuse_input,
    require_free,
    require_same,
)
from muse.cli._batch.runner import end_jobs, outcome, run_batch, run_open, when
from muse.cli._terminal import terminal
from muse.cli._terminal.arguments import MISUSED
from muse.cli._terminal.terminal import Column
from muse.types.errors import ConfigError
from muse.types.formatting import format_usd
from muse.types.json_schema.validation import check_schema

HELP = (
    "Ask for every row of a JSONL, CSV or Parquet file, a few at a time; each result is kept as it comes, so that a run"
    " that was cut off goes on where it was."
)
_UNITS_S = {"m": 60.0, "h": 3_600.0, "d": 86_400.0}
_STATES = ("done", "failed", "deferred", "open")
_SHOWN_ERRORS = 5
_MOST_DIGITS = 6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """run, list, show, resume and export."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("-v", "--verbose", action="store_true", help=argparse.SUPPRESS)
    common.add_argument("-d", "--debug", action="store_true", help=argparse.SUPPRESS)
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    def action(name: str, text: str) -> argparse.ArgumentParser:
        return actions.add_parser(name, parents=[common], help=text, description=text, allow_abbrev=False)

    _add_run(action("run", "ask for every row of a file; run again, it goes on"))
    action("list", "the batches of the journal").add_argument("--json", action="store_true", help="print JSON")
    show = action("show", "one batch: how its items stand, and what failed")
    show.add_argument("name", metavar="NAME", help="a batch: `muse batch list` names them")
    show.add_argument("--json", action="store_true", help="print JSON")
    resume = action("resume", "go on with a batch that was cut off, as it was begun")
    resume.add_argument("name", metavar="NAME", help="a batch: `muse batch list` names them")
    resume.add_argument("--retry-failed", action="store_true", help="ask for failed items again, too")
    resume.add_argument("--concurrency", type=_concurrency, metavar="N|auto", help="instead of the first run's")
    ended = action("cancel", "have batch services end what is under way for a batch; what is finished is kept")
    ended.add_argument("name", metavar="NAME", help="a batch: `muse batch list` names them")
    export = action("export", "write the results of a batch to a file")
    export.add_argument("name", metavar="NAME", help="a batch: `muse batch list` names them")
    export.add_argument("--output", type=Path, metavar="FILE", help="JSONL, CSV or Parquet by its ending; else JSONL to"
                        " standard output")  # fmt: skip
    export.add_argument("--force", action="store_true", help="write over a file that exists")


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", type=Path, metavar="INPUT", help="rows: .jsonl (one object a line), .csv or .parquet")
    parser.add_argument("--context", required=True, help="what is being done: journal.json says who answers it")
    parser.add_argument("--template", type=Path, metavar="FILE", help="the question, with {field} places for a row")
    parser.add_argument("--field", metavar="NAME", help="the field that is the question (contents, prompt or text)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="rows with results: .jsonl (as they finish), .csv"
                        " or .parquet; else JSONL to standard output")  # fmt: skip
    parser.add_argument("--schema", type=Path, metavar="FILE", help="a JSON Schema that each answer has to fit")
    parser.add_argument("--concurrency", type=_concurrency, default=5, metavar="N|auto", help="calls at once (5)")
    parser.add_argument("--lane", choices=LANES, default="now", help="live calls (now), the providers' batch services"
                        " (overnight), or those with what is left asked live (auto)")  # fmt: skip
    parser.add_argument("--deadline", type=_span_s, metavar="SPAN", help="overnight, auto: to be done by then (36h)")
    parser.add_argument("--ledger", metavar="NAME", help="where results are kept (a name made of what is asked)")
    parser.add_argument("--retry-failed", action="store_true", help="ask for items again that failed in an earlier run")
    exists = parser.add_mutually_exclusive_group()
    exists.add_argument("--resume", action="store_true", help="go on with an output that exists")
    exists.add_argument("--force", action="store_true", help="write over an output that exists")


def run(args: argparse.Namespace) -> int:
    """Do what was named."""
    actions: dict[str, Callable[[argparse.Namespace], int]] = {
        "run": _run,
        "list": _list,
        "show": _show,
        "resume": _resume,
        "cancel": lambda args: end_jobs(args.name),
        "export": _export,
    }
    return actions[args.action](args)


def _run(args: argparse.Namespace) -> int:
    try:
        order = _order(args)
    except ConfigError as exc:
        terminal.print_error(f"muse: {exc}")
        return MISUSED
    name = args.ledger or order.ledger
    require_free(order, name, resume=args.resume, force=args.force)
    if args.ledger is not None:
        require_same(order, name)
    return run_batch(order, name, retry_failed=args.retry_failed, is_forced=args.force)


def _order(args: argparse.Namespace) -> BatchRunOptions:
    """What the words of the command line ask for.

    Raises:
        ConfigError: they make no sense, whatever there is in the journal and in the input.
    """
    formats.form_of(args.input, "INPUT")
    if args.output is not None:
        formats.form_of(args.output, "--output")
    if args.ledger is not None:
        store.path_of(args.ledger)
    if not args.context.strip():
        raise ConfigError("--context", repr(args.context), "a name such as app.rows, by which journal.json routes")
    if args.template is not None and args.field is not None:
        raise ConfigError("--field", f"{args.field!r} beside a template", "one of the two")
    if args.deadline is not None and args.lane == "now":
        raise ConfigError("--deadline", "one for live calls", "--lane overnight or auto with it")
    schema = _schema(args.schema) if args.schema is not None else None
    return BatchRunOptions(
        str(args.input.absolute()),
        args.context,
        str(args.output.absolute()) if args.output is not None else None,
        _text(args.template, "--template").removesuffix("\n") if args.template is not None else None,
        str(args.template) if args.template is not None else "template",
        schema,
        args.field,
        args.concurrency,
        args.lane,
        time.time() + args.deadline if args.deadline is not None else None,
    )


def _resume(args: argparse.Namespace) -> int:
    with closing(Store(args.name, is_read_only=True)) as kept:
        order = parse_batch_options(kept.about(), args.name)
    if order is None:
        return run_open(args.name, retry_failed=args.retry_failed, concurrency=args.concurrency or 5)
    if args.concurrency is not None:
        order = replace(order, concurrency=args.concurrency)
    return run_batch(order, args.name, retry_failed=args.retry_failed)


def _list(args: argparse.Namespace) -> int:
    found = [(name, *_looked(name)) for name in store.names()]
    if args.json:
        terminal.print_json([{"name": name, **counts, "problem": problem} for name, counts, problem in found])
        return 0
    if not found:
        terminal.say(f"No batches in {store.folder()}.")
        return 0
    columns = [Column("batch"), *(Column(state, numbers=True) for state in _STATES)]
    columns += [Column("tokens", numbers=True), Column("cost", numbers=True), Column("last result")]
    terminal.draw(columns, [_cells(name, counts) for name, counts, _ in found])
    for name, _, problem in found:
        if problem is not None:
            terminal.say(f"{name}: {problem}", "yellow")
    return 0


def _looked(name: str) -> tuple[dict[str, Any], str | None]:
    """The numbers of a batch, and why there are none if it cannot be read."""
    try:
        with closing(Store(name, is_read_only=True)) as kept:
            return _counts(kept.sums(), kept.about()), None
    except ConfigError as exc:
        return _counts([], {}), str(exc)


def _counts(sums: list[StateSummary], about: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of a batch by name; rows of its file that were not taken yet are open."""
    counts: dict[str, Any] = {state: sum(one.items for one in sums if one.state == state) for state in _STATES}
    ended = counts["done"] + counts["failed"] + counts["deferred"]
    counts["open"] = max(counts["open"], int(about.get("rows", 0)) - ended)
    counts["input_tokens"] = sum(one.input_tokens for one in sums)
    counts["output_tokens"] = sum(one.output_tokens for one in sums)
    counts["unpriced"] = sum(one.unpriced for one in sums)
    lasts = [one.last_s for one in sums if one.last_s is not None]
    return counts | {"cost_usd": round(sum(one.cost_usd for one in sums), 10), "last_s": max(lasts, default=None)}


def _cells(name: str, counts: Mapping[str, Any]) -> list[str]:
    tokens = counts["input_tokens"] + counts["output_tokens"]
    cost = format_usd(counts["cost_usd"], more=counts["unpriced"] > 0)
    return [name, *(f"{counts[state]:,}" for state in _STATES), f"{tokens:,}", cost, when(counts["last_s"])]


def _show(args: argparse.Namespace) -> int:
    with closing(Store(args.name, is_read_only=True)) as kept:
        about = kept.about()
        counts = _counts(kept.sums(), about)
        wrong = list(islice(kept.items("failed", "deferred"), _SHOWN_ERRORS))
        jobs = BatchJobTable(kept.connection).all(closed=False) if kept.jobs_under_way() else []
    order = parse_batch_options(about, args.name)
    if args.json:
        errors = [
            {"key": item.key, "state": item.state, "error": item.error, "class": item.error_class} for item in wrong
        ]
        terminal.print_json(
            {"name": args.name, **counts, "jobs": [asdict(job) for job in jobs], **about, "errors": errors}
        )
        return 0
    columns = [Column("batch"), *(Column(state, numbers=True) for state in _STATES)]
    columns += [Column("tokens", numbers=True), Column("cost", numbers=True), Column("last result")]
    terminal.draw(columns, [_cells(args.name, counts)])
    if order is not None:
        terminal.say(f"{order.input} → {order.output or 'standard output'}, {order.context}", "dim")
    for item in wrong:
        row = _row(item)
        terminal.say(f"{item.state} {item.key if row is None else row[0]}: {item.error_class}: {item.error}", "yellow")
    for job in jobs:
        what = f"{job.model}, {job.size:,} requests, {job.state}, {job.done:,} done ({job.remote_id or 'no name yet'})"
        terminal.say(f"at {job.provider}: {what}; to end it: muse batch cancel {args.name}")
    if counts["open"] or counts["deferred"]:
        terminal.say(f"To go on: muse batch resume {args.name}")
    return 0


def _export(args: argparse.Namespace) -> int:
    if args.output is not None:
        formats.form_of(args.output, "--output")
        if args.output.exists() and not args.force:
            raise ConfigError("--output", f"{str(args.output)!r}, which exists", "a new file; --force writes over it")
    with closing(Store(args.name, is_read_only=True)) as kept:
        order = parse_batch_options(kept.about(), args.name)
        if order is not None and args.output is not None:
            refuse_input(order, args.output)
        columns = _columns(kept)
        source = Path(order.input) if order is not None else None
        if source is None or source.suffix.lower() != ".parquet" or not source.is_file():
            _write_results(kept, args.output, columns, None)
            return 0
        try:
            _write_results(kept, args.output, columns, source)
        except ConfigError:  # the source is another one by now: its dates stay text
            _write_results(kept, args.output, columns, None)
    return 0


_ENDED = ("done", "failed", "deferred")


def _columns(kept: Store) -> dict[str, Kind]:
    """The columns of a batch's results, each with the kind of what it holds."""
    kinds: dict[str, Kind] = {}
    answers: dict[str, Kind] = {}
    for item in kept.items(*_ENDED):
        note_kinds(kinds, _fields(item)[1])
        note_kinds(answers, {"response": _exported(item)["response"]})
    columns: dict[str, Kind] = {"row": "int64", **{name: column_of(kind) for name, kind in kinds.items()}}
    return columns | {**RESULTS, **{name: column_of(kind) for name, kind in answers.items()}}


def _write_results(kept: Store, output: Path | None, columns: dict[str, Kind], source: Path | None) -> None:
    with closing(formats.sink(output, columns, spelled_from=source)) as sink:
        for item in kept.items(*_ENDED):
            sink.write(_exported(item))


def _row(item: StoredItem) -> tuple[int, dict[str, Any]] | None:
    """The number and the fields of the row of a file that an item was made of; None for a program's item."""
    note = json.loads(item.note) if item.note is not None else None
    if isinstance(note, dict) and isinstance(note.get("fields"), dict) and isinstance(note.get("row"), int):
        return note["row"], note["fields"]
    return None


def _fields(item: StoredItem) -> tuple[int, dict[str, Any]]:
    """The row that an item was made of; of a program's batch its place and its key."""
    row = _row(item)
    if row is not None:
        return row
    note = json.loads(item.note) if item.note is not None else None
    return item.number, {"key": item.key, **({"note": note} if note is not None else {})}


def _exported(item: StoredItem) -> dict[str, Any]:
    request: BatchRequest = unpack(item.request)
    item.restore(request)
    return outcome(*_fields(item), request)


def _concurrency(text: str) -> int | Literal["auto"]:
    if text == "auto":
        return "auto"
    number = _number(text)
    if number is None:
        raise argparse.ArgumentTypeError(f"found {text[:20]!r}, expected a whole number from 1 on, or auto")
    return number


def _number(text: str) -> int | None:
    """A whole number from 1 to 999,999."""
    digits = text.lstrip("0") if text.isascii() and text.isdigit() else ""
    return int(digits) if 0 < len(digits) <= _MOST_DIGITS else None


def _span_s(text: str) -> float:
    """A span such as `36h` or `2d`, in seconds."""
    number, unit = _number(text[:-1]), _UNITS_S.get(text[-1:])
    if unit is None or number is None:
        expected = "up to 999999 minutes, hours or days, such as 90m, 36h or 2d"
        raise argparse.ArgumentTypeError(f"found {text[:20]!r}, expected {expected}")
    return number * unit


def _text(path: Path, option: str) -> str:
    """What a file says.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(option, f"{str(path)!r}, which cannot be read ({exc})", "a file of UTF-8 text") from exc


def _schema(path: Path) -> dict[str, Any]:
    try:
        schema = json.loads(_text(path, "--schema"))
    except (ValueError, RecursionError) as exc:
        raise ConfigError("--schema", f"{str(path)!r}, which is no JSON ({exc})", "a JSON Schema") from exc
    if not isinstance(schema, dict):
        raise ConfigError("--schema", f"a JSON {type(schema).__name__} in {str(path)!r}", "a JSON Schema as an object")
    try:
        check_schema(schema)
    except ValueError as exc:
        raise ConfigError("--schema", f"{str(path)!r}, which is none ({exc})", "a JSON Schema") from exc
    return schema
