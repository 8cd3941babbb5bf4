"""What a `muse batch run` was asked to do, and what it may not do: write over what is another's; it asks nothing."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import asdict

from muse import models
from muse.batch import Batch
from muse.batching.io import formats
from muse.batching.io.scan import PromptSource, digest
from muse.batching.io.template import Template
from muse.batching.provider_batches.lane import Lane
from muse.batching.provider_batches.submitter import window_s
from muse.batching.store import store
from muse.cli._terminal.terminal import print_error
from muse.types.errors import ConfigError

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
_ASKED = ("input", "context", "template", "schema", "field")


class BatchRunOptions(Struct, frozen=True):
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
    def question(self) -> PromptSource:
        """How its rows become what is asked."""
        return PromptSource(
            Template(self.template, self.template_name) if self.template is not None else None, self.field
        )

    @property
    def ledger(self) -> str:
        """The name that the same input, asked in the same way, has each time."""
        path = Path(self.input)
        stem = re.sub(r"[^A-Za-z0-9_-]+", "-", path.stem).strip("-_")[:60] or "batch"
        further = (self.context, self.template or "", json.dumps(self.schema), self.field or "")
        return f"{stem}-{digest(path, *further)}"


def parse_batch_options(about: Mapping[str, Any], name: str) -> BatchRunOptions | None:
    """The order that a ledger keeps; None for the batch of a program.

    Raises:
        ConfigError: it is not one.
    """
    if "order" not in about:
        return None
    try:
        return msgspec.convert(about["order"], BatchRunOptions)
    except msgspec.ValidationError as exc:
        raise ConfigError(
            f"ledger {name!r}", f"an order that cannot be read ({exc})", "what `batch run` wrote"
        ) from exc


def refuse_input(order: BatchRunOptions, output: Path) -> None:
    """See that an output is not the input, under whatever name.

    Raises:
        ConfigError: it is.
    """
    given = Path(order.input)
    if output.exists() and given.exists() and output.samefile(given):
        raise ConfigError("--output", f"{str(output)!r}, which is the input", "another file")


def require_output(order: BatchRunOptions, name: str) -> None:
    """See that the output may be written anew: it is not there, or holds results.

    Raises:
        ConfigError: it is the input, or holds something else.
    """
    if order.output is None:
        return
    output = Path(order.output)
    refuse_input(order, output)
    if output.exists() and not formats.holds_results(output, RESULTS):
        found = f"{order.output!r}, which holds no results of a batch"
        allowed = f"an output of this batch: move that file away, or muse batch export {name} --output FILE"
        raise ConfigError("--output", found, allowed)


def require_free(order: BatchRunOptions, name: str, *, resume: bool, force: bool) -> None:
    """See that nothing is written over that was not meant.

    Raises:
        ConfigError: the output exists, or cannot be one.
    """
    if order.output is None or not Path(order.output).exists():
        return
    refuse_input(order, Path(order.output))
    if not (resume or force):
        allowed = "a new file; --resume goes on with this one, --force writes over it"
        raise ConfigError("--output", f"{order.output!r}, which exists", allowed)
    if resume and not store.path_of(name).exists():
        found = f"{order.output!r}, of which the journal has no batch {name!r}"
        raise ConfigError("--resume", found, "the input, context and template it was begun with, or --force")


def require_same(order: BatchRunOptions, name: str) -> None:
    """See that a ledger that is named is not that of another input; what else is new there is told.

    Raises:
        ConfigError: it is, and that input still exists.
    """
    if not store.path_of(name).exists():
        return
    with closing(store.Store(name, is_read_only=True)) as kept:
        before = parse_batch_options(kept.about(), name)
    if before is None:
        return
    given, earlier = Path(order.input), Path(before.input)
    if given != earlier and earlier.exists() and not (given.exists() and given.samefile(earlier)):
        found = f"{name!r}, which is that of {before.input}"
        raise ConfigError("--ledger", found, f"another name; muse batch resume {name} goes on with that one")
    now, then = asdict(order), asdict(before)
    changed = [word for word in _ASKED if now[word] != then[word]]
    if changed:
        print_error(f"muse: batch {name!r} was begun with another {', '.join(changed)}; from now on this one")


def require_service(order: BatchRunOptions, name: str) -> None:
    """See that what is to go overnight has a way; jobs that are under way already are waited for in any case.

    Raises:
        ConfigError: its provider has no batch service.
        UnknownProviderError: journal.json leads to a provider that is not registered.
    """
    provider, _ = models.resolve_provider(order.context)
    if order.lane != "overnight" or window_s(provider) is not None:
        return
    if store.path_of(name).exists():
        with closing(store.Store(name, is_read_only=True)) as kept:
            if kept.jobs_under_way():
                return
    found = f"'overnight', while {provider!r} answers {order.context}, which has no batch service"
    raise ConfigError("--lane", found, "'now' or 'auto', or a context that a provider with one answers")
