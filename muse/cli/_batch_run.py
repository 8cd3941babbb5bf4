"""One run of `muse batch run` or `resume`: rows in, results out, and what Ctrl-C does; it reads no command line."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

from muse import models
from muse.batch import Batch, BatchRequest
from muse.batching import files, store
from muse.batching.night import Lane, cancel
from muse.batching.scan import Question, Scan, digest, scan
from muse.batching.tally import Tally
from muse.batching.template import Template
from muse.cli import _terminal
from muse.cli._terminal import Column
from muse.errors import ConfigError

FAILED, INTERRUPTED = 1, 130
RESULTS: Mapping[str, str] = {
    "row": "int64",
    "response": "string",
    "error": "string",
    "model": "string",
    "provider": "string",
    "input_tokens": "int64",
    "output_tokens": "int64",
    "cost_usd": "float64",
    "duration_s": "float64",
}


class Order(Struct, frozen=True):
    """What was asked for, as the ledger keeps it: enough to go on from any folder."""

    input: str
    context: str
    output: str | None = None
    template: str | None = None
    template_name: str = "template"
    schema: dict[str, Any] | None = None
    field: str | None = None
    concurrency: int | Literal["auto"] = 5
    lane: Lane = "now"
    deadline_ts: float | None = None

    def batch(self, name: str, *, retry_failed: bool) -> Batch:
        """The batch that carries it out; a deadline that has passed meanwhile binds no more.

        Raises:
            ConfigError: the ledger, the lane or the deadline is not usable.
        """
        left_s = None if self.deadline_ts is None else self.deadline_ts - time.time()
        deadline = left_s if left_s is not None and left_s > 0 else None
        return Batch(
            self.concurrency, ledger=name, retry_failed=retry_failed, progress=True, lane=self.lane, deadline=deadline
        )

    @property
    def question(self) -> Question:
        """How its rows become what is asked."""
        return Question(Template(self.template, self.template_name) if self.template is not None else None, self.field)

    @property
    def ledger(self) -> str:
        """The name that the same input, asked in the same way, has each time."""
        path = Path(self.input)
        stem = re.sub(r"[^A-Za-z0-9_-]+", "-", path.stem).strip("-_")[:60] or "batch"
        further = (self.context, self.template or "", json.dumps(self.schema), self.field or "")
        return f"{stem}-{digest(path, *further)}"


class Interrupt:
    """What the first and the second Ctrl-C do to a batch."""

    def __init__(self, batch: Batch) -> None:
        self.times = 0
        self._batch = batch

    def once(self) -> None:
        """The first lets calls under way finish, a second cancels them."""
        self.times += 1
        if self.times > 1:
            self._batch.cancel()
            return
        under_way = self._batch.tally.in_flight
        print(f"muse: finishing {under_way} calls under way; Ctrl-C again stops at once", file=sys.stderr)
        self._batch.stop()

    def at_once(self) -> None:
        """Cancel them."""
        self.times += 2
        self._batch.cancel()

    @contextlib.contextmanager
    def heeded(self) -> Iterator[None]:
        """Listen to Ctrl-C and SIGTERM meanwhile; where a loop takes no signals, Ctrl-C cancels the whole run."""
        loop = asyncio.get_running_loop()
        if sys.platform == "win32":
            yield
            return
        loop.add_signal_handler(signal.SIGINT, self.once)
        loop.add_signal_handler(signal.SIGTERM, self.at_once)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGINT)
            loop.remove_signal_handler(signal.SIGTERM)


def run_order(order: Order, name: str, *, retry_failed: bool) -> int:
    """Ask for all rows of an order and write what comes: 0 all done, 1 something failed or is left, 130 interrupted."""
    models.resolve_provider(order.context)
    path = Path(order.input)
    seen = scan(path, order.question, lambda text: print(f"muse: {text}", file=sys.stderr))
    _warn_of_names(seen, path)
    kinds = {"row": "int64", **seen.kinds, **RESULTS}
    batch = order.batch(name, retry_failed=retry_failed)
    try:
        if batch.ledger is not None:
            batch.ledger.note({"order": msgspec.to_builtins(order), "rows": seen.rows})
        with contextlib.closing(files.sink(Path(order.output) if order.output else None, kinds, source=path)) as sink:
            interrupted = asyncio.run(_rows(batch, order, seen, sink))
    finally:
        batch.close()
    return conclude(batch.tally, name, left=seen.rows - batch.tally.ended, broken=seen.broken, interrupted=interrupted)


def run_open(name: str, *, retry_failed: bool, concurrency: int | Literal["auto"]) -> int:
    """Ask for what is open in the ledger of a program's batch; the results are in the ledger then."""
    with contextlib.closing(store.Store(name, must_exist=True)) as kept:
        lane: Lane = "auto" if kept.jobs_under_way() else "now"  # what is at a service must not be asked live
    batch = Batch(concurrency, ledger=name, progress=True, lane=lane)
    states = ("open", "deferred", "failed") if retry_failed else ("open", "deferred")
    try:
        left = sum(one.items for one in batch.ledger.sums() if one.state in states) if batch.ledger is not None else 0
        interrupted = asyncio.run(_open(batch, states, left))
    finally:
        batch.close()
    return conclude(batch.tally, name, left=left - batch.tally.ended, broken=0, interrupted=interrupted)


def end_jobs(name: str) -> int:
    """Have batch services end what is under way for a ledger, and keep what is finished by then."""
    with contextlib.closing(store.Store(name, must_exist=True)) as kept:
        jobs = kept.jobs_under_way()
        finished = asyncio.run(cancel(kept)) if jobs else 0
    _terminal.say(f"Jobs ended: {jobs}. Requests that were finished, and are kept: {finished}.")
    return 0


async def _rows(batch: Batch, order: Order, seen: Scan, sink: files.Sink) -> bool:
    """Ask and write; whether it was interrupted."""
    interrupt = Interrupt(batch)
    with interrupt.heeded():
        batch.feed(_requests(order), total=seen.rows)
        async for request in batch.drain_batch():
            sink.write(outcome(request.note["row"], request.note["fields"], request))
    return interrupt.times > 0


def _requests(order: Order) -> Iterator[BatchRequest]:
    question, path = order.question, Path(order.input)
    for row in files.read(path):
        if isinstance(row, files.Row):
            contents = question.ask(row, f"{path.name} {files.unit_of(path)} {row.number}")
            note = {"row": row.number, "fields": row.fields}
            yield BatchRequest(contents, order.context, json_schema=order.schema, note=note)


async def _open(batch: Batch, states: tuple[str, ...], left: int) -> bool:
    interrupt = Interrupt(batch)
    if batch.ledger is None:
        return False
    with interrupt.heeded():
        batch.feed(store.requests(batch.ledger, *states), total=left)
        async for _ in batch.drain_batch():
            continue
    return interrupt.times > 0


def outcome(number: int, fields: Mapping[str, Any], request: BatchRequest) -> dict[str, Any]:
    """A row of output: the number and the fields of the row that was asked for, then what came of it."""
    response: Any = request.response
    if request.json_schema is not None and response is not None:
        response = json.loads(response)
    results = {
        "row": number,
        "response": response,
        "error": request.error,
        "model": request.model_used,
        "provider": request.provider_used,
        "input_tokens": request.usage.input_tokens,
        "output_tokens": request.usage.output_tokens,
        "cost_usd": request.cost_usd,
        "duration_s": round(request.duration, 6) if request.duration is not None else None,
    }
    return {"row": number, **fields} | results


def _warn_of_names(seen: Scan, path: Path) -> None:
    taken = [name for name in RESULTS if name in seen.kinds]
    if taken:
        print(f"muse: {path.name} has {', '.join(taken)}; in the output that is the result's own", file=sys.stderr)


def conclude(tally: Tally, name: str, *, left: int, broken: int, interrupted: bool) -> int:
    """Print the closing table to standard error, and how to go on if something is left; the exit status."""
    counts = {"done": tally.done, "failed": tally.failed, "deferred": tally.deferred}
    counts |= {word: count for word, count in (("left", left), ("broken", broken)) if count}
    counts |= {"from ledger": tally.restored} if tally.restored else {}
    cost = f"${tally.cost_usd:.4f}" + (f" + {tally.unpriced} unpriced" if tally.unpriced else "")
    cells = {word: f"{count:,}" for word, count in counts.items()}
    cells |= {"tokens": f"{tally.tokens:,}", "cost": cost, "seconds": f"{tally.elapsed_s:.1f}"}
    with contextlib.redirect_stdout(sys.stderr):
        _terminal.draw([Column(word, numbers=True) for word in cells], [list(cells.values())])
        if interrupted or left or tally.deferred:
            _terminal.say(f"To go on: muse batch resume {name}", "bold")
        elif tally.failed:
            _terminal.say(f"To ask the failed ones again: muse batch resume {name} --retry-failed")
    if interrupted:
        return INTERRUPTED
    return FAILED if tally.failed or tally.deferred or broken or left else 0


def order_of(about: Mapping[str, Any], name: str) -> Order | None:
    """The order that a ledger keeps; None for the batch of a program.

    Raises:
        ConfigError: it is not one.
    """
    if "order" not in about:
        return None
    try:
        return msgspec.convert(about["order"], Order)
    except msgspec.ValidationError as exc:
        raise ConfigError(
            f"ledger {name!r}", f"an order that cannot be read ({exc})", "what `batch run` wrote"
        ) from exc


def when(seconds: float | None) -> str:
    """A moment as people write it."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds)) if seconds is not None else ""
