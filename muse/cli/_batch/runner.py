"""One run of `muse batch run` or `resume`: rows in, results out, a table at its end; it reads no command line."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from muse.batch import Batch, BatchRequest
from muse.batching.io import formats
from muse.batching.io.scan import Scan, scan
from muse.batching.provider_batches.lane import Lane, cancel
from muse.batching.stats import BatchStats
from muse.batching.store import store
from muse.cli._batch.interrupt import Interrupt
from muse.cli._batch.options import RESULTS, BatchRunOptions, require_output, require_service
from muse.cli._terminal import terminal
from muse.cli._terminal.arguments import FAILED, INTERRUPTED
from muse.cli._terminal.terminal import Column
from muse.types.errors import MuseError
from muse.types.formatting import exact_usd, format_usd


def run_batch(order: BatchRunOptions, name: str, *, retry_failed: bool, is_forced: bool = False) -> int:
    """Ask for all rows of an order and write what comes: 0 all done, 1 something failed or is left, 130 interrupted.

    Raises:
        ConfigError: nothing was sent, or what was told of ended the run, after its table.
    """
    require_service(order, name)
    if not is_forced:
        require_output(order, name)
    path = Path(order.input)
    seen = scan(path, order.question, lambda text: terminal.print_error(f"muse: {text}"))
    _warn_of_names(seen, path)
    kinds = {"row": "int64", **seen.kinds, **RESULTS}
    batch = order.batch(name, retry_failed=retry_failed)
    interrupt = Interrupt(batch)
    with interrupt.heeded():
        with contextlib.closing(batch):
            if batch.ledger is not None:
                batch.ledger.note({"order": msgspec.to_builtins(order), "rows": seen.rows})
            sink = formats.sink(Path(order.output) if order.output else None, kinds, source=path)
            problem = _carried_out(_rows(batch, order, seen, sink, interrupt))
        left = seen.rows - batch.tally.ended
        return _concluded(batch, name, problem, interrupt, left=left, broken=seen.broken)


def run_open(name: str, *, retry_failed: bool, concurrency: int | Literal["auto"]) -> int:
    """Ask for what is open in the ledger of a program's batch; the results are in the ledger then.

    Raises:
        ConfigError: nothing was sent, or what was told of ended the run, after its table.
    """
    with contextlib.closing(store.Store(name, is_read_only=True)) as kept:
        lane: Lane = "auto" if kept.jobs_under_way() else "now"  # what is at a service must not be asked live
    batch = Batch(concurrency, ledger=name, progress=True, lane=lane)
    states = ("open", "deferred", "failed") if retry_failed else ("open", "deferred")
    interrupt = Interrupt(batch)
    with interrupt.heeded():
        with contextlib.closing(batch):
            sums = batch.ledger.sums() if batch.ledger is not None else []
            left = sum(one.items for one in sums if one.state in states)
            problem = _carried_out(_open(batch, states, left, interrupt))
        return _concluded(batch, name, problem, interrupt, left=left - batch.tally.ended, broken=0)


def _carried_out(work: Coroutine[Any, Any, None]) -> MuseError | None:
    """Run to the end: what ended it before its time, if it was not Ctrl-C."""
    try:
        asyncio.run(work)
    except KeyboardInterrupt:  # counted by the one that heard it
        return None
    except MuseError as exc:
        return exc
    return None


def _concluded(
    batch: Batch, name: str, problem: MuseError | None, interrupt: Interrupt, *, left: int, broken: int
) -> int:
    interrupted = interrupt.times > 0
    status = conclude(
        batch.tally, name, left=left, broken=broken, interrupted=interrupted, is_cut_off=problem is not None
    )
    if problem is not None:
        raise problem
    return status


def end_jobs(name: str) -> int:
    """Have batch services end what is under way for a ledger, and keep what is finished by then."""
    with contextlib.closing(store.Store(name, must_exist=True)) as kept:
        jobs = kept.jobs_under_way()
        finished = asyncio.run(cancel(kept)) if jobs else 0
    terminal.say(f"Jobs ended: {jobs}. Requests that were finished, and are kept: {finished}.")
    return 0


async def _rows(batch: Batch, order: BatchRunOptions, seen: Scan, sink: formats.Sink, interrupt: Interrupt) -> None:
    """Ask and write.

    Raises:
        KeyboardInterrupt: Ctrl-C broke a row off that nobody read.
        MuseError: it cannot go on.
    """
    with contextlib.closing(sink), interrupt.applied():
        batch.feed(_requests(order), total=seen.rows)
        async for request in batch.drain_batch():
            row = outcome(request.note["row"], request.note["fields"], request)
            _write(row, sink, interrupt, to_screen=order.output is None)


def _requests(order: BatchRunOptions) -> Iterator[BatchRequest]:
    question, path = order.question, Path(order.input)
    for row in formats.read(path):
        if isinstance(row, formats.Row):
            contents = question.ask(row, f"{path.name} {formats.unit_of(path)} {row.number}")
            note = {"row": row.number, "fields": row.fields}
            yield BatchRequest(contents, order.context, json_schema=order.schema, note=note)


def _write(row: Mapping[str, Any], sink: formats.Sink, interrupt: Interrupt, *, to_screen: bool) -> None:
    try:
        with interrupt.writing():
            sink.write(row)
    except KeyboardInterrupt:
        if to_screen:  # what is left of the row would wait for its reader once more
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


async def _open(batch: Batch, states: tuple[str, ...], left: int, interrupt: Interrupt) -> None:
    if batch.ledger is None:
        return
    with interrupt.applied():
        batch.feed(store.requests(batch.ledger, *states), total=left)
        async for _ in batch.drain_batch():
            continue


def outcome(number: int, fields: Mapping[str, Any], request: BatchRequest) -> dict[str, Any]:
    """A row of output: the number and the fields of the row that was asked for, then what came of it."""
    response: Any = request.response
    if request.json_schema is not None and response is not None:
        response = _object(response)
    results = {
        "row": number,
        "response": response,
        "error": request.error,
        "model": request.model_used,
        "provider": request.provider_used,
        "input_tokens": request.usage.input_tokens,
        "output_tokens": request.usage.output_tokens,
        "cost_usd": exact_usd(request.cost_usd),
        "duration_s": round(request.duration, 6) if request.duration is not None else None,
    }
    return {"row": number, **fields} | results


def _object(text: str) -> Any:
    """The object that an answer is; one that is none, as jobs of earlier versions may have left, as it is."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _warn_of_names(seen: Scan, path: Path) -> None:
    taken = [name for name in RESULTS if name in seen.kinds]
    if taken:
        terminal.print_error(f"muse: {path.name} has {', '.join(taken)}; in the output that is the result's own")


def conclude(tally: BatchStats, name: str, *, left: int, broken: int, interrupted: bool, is_cut_off: bool) -> int:
    """Print the closing table to standard error, and how to go on if something is left; the exit status."""
    counts = {"done": tally.done, "failed": tally.failed, "deferred": tally.deferred}
    counts |= {word: count for word, count in (("left", left), ("broken", broken)) if count}
    counts |= {"from ledger": tally.restored} if tally.restored else {}
    cost = format_usd(tally.cost_usd, more=tally.unpriced > 0)
    cells = {word: f"{count:,}" for word, count in counts.items()}
    cells |= {"tokens": f"{tally.tokens:,}", "cost": cost, "seconds": f"{tally.elapsed_s:.1f}"}
    with contextlib.redirect_stdout(sys.stderr):
        terminal.draw([Column(word, numbers=True) for word in cells], [list(cells.values())])
        if interrupted or is_cut_off or left or tally.deferred:
            terminal.say(f"To go on: muse batch resume {name}", "bold")
        elif tally.failed:
            terminal.say(f"To ask the failed ones again: muse batch resume {name} --retry-failed")
    if interrupted:
        return INTERRUPTED
    return FAILED if tally.failed or tally.deferred or broken or left else 0


def when(seconds: float | None) -> str:
    """A moment as people write it."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds)) if seconds is not None else ""
