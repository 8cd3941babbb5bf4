"""Model calls in a pipeline of `ray.data`: rows in, rows with answers out.

Entry points: `DriverSession` and `MuseActor`.

    with DriverSession(workers=4) as host:
        pages = ray.data.read_parquet("pages")
        answers = pages.map_batches(
            MuseActor,
            fn_constructor_kwargs={"host": host, "context": "insight.page", "contents": "text"},
            compute=ray.data.ActorPoolStrategy(size=4),
            batch_format="pyarrow",
        )
        answers.write_parquet("answers")

Ray decides where rows go, and repeats the calls for rows that were lost with a node. The session, on the driver's node,
gives each worker its configuration, keys and share of the limits, and appends all their lines to the usage log.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from muse.batching.io.template import Template
from muse.batching.ray.cluster import Cluster, WorkerLost
from muse.batching.ray.driver import DriverState
from muse.batching.ray.worker import answer
from muse.batching.ray.worker_config import WorkerConfig, secret_env
from muse.batching.ray.worker_journal import WorkerJournal
from muse.batching.request import BatchRequest
from muse.types.deprecation import renamed_attributes
from muse.types.errors import ConfigError

log = logging.getLogger(__name__)

RESULTS = {
    "response": "string",
    "error": "string",
    "model": "string",
    "provider": "string",
    "input_tokens": "int64",
    "output_tokens": "int64",
    "cost_usd": "float64",
    "duration_s": "float64",
}
"""The names and Arrow types of the added columns."""
_REPORT_S = 4.0
_ASK_AGAIN_S = 2.0


class DriverSession:
    """A context manager that opens this program's journal to `workers` workers of pipelines.

    It is sent to the workers in pickled form.

    Raises:
        ConfigError: Ray is not available, or a limit cannot be divided into so many shares.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._home: Any = None

    @property
    def home(self) -> Any:
        """The `muse.batching.ray.driver.DriverState` of the session, in a process on the driver's node.

        Raises:
            ConfigError: The session is not open.
        """
        if self._home is None:
            raise ConfigError("host", "one that is not open", "`with Host(...) as host:` around the whole pipeline")
        return self._home

    def __enter__(self) -> Self:
        """Open the session."""
        cluster = Cluster()
        home = cluster.hire(DriverState, cpus=0, where=cluster.here())
        cluster.demand(home.move_to, os.getcwd(), os.environ.get("JOURNAL_PATH"), secret_env())
        cluster.demand(home.begin, self.workers)
        self._home = home
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the session; the usage log has the lines of all rows that the pipeline returned."""
        Cluster().dismiss(self._home)
        self._home = None


class MuseActor:
    """A worker of `map_batches` that makes a call for each row.

    Batches may be tables of pyarrow (`batch_format="pyarrow"`) or mappings of numpy arrays. They are returned with the
    columns of `RESULTS`, which replace columns of the same name. Errors of calls are results.

    Args:
        host: The open session.
        context: The context of the calls.
        contents: The column with the contents.
        template: A text with `{column}` placeholders, used instead of `contents`.
        at_once: The most concurrent calls of this worker.
        **options: Options of a `BatchRequest`.

    Raises:
        ConfigError: There is no such column, or the session is not open.
    """

    def __init__(
        self,
        host: DriverSession,
        context: str,
        *,
        contents: str = "contents",
        template: str | None = None,
        at_once: int = 50,
        **options: Any,
    ) -> None:
        self._cluster = Cluster()
        self._home = host.home
        self._name = uuid.uuid4().hex
        self._context = context
        self._contents = contents
        self._template = None if template is None else Template(template)
        self._options = options
        if at_once < 1:
            raise ConfigError("at_once", str(at_once), "a number of calls, 1 or more")
        BatchRequest("", context, **options)
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="muse asker", daemon=True).start()
        self._room = asyncio.Semaphore(at_once)
        self._worker_journal: WorkerJournal | None = None
        self._part: asyncio.Task[None] | None = None
        asyncio.run_coroutine_threadsafe(self._move_in(), self._loop).result()

    def __call__(self, batch: Any) -> Any:
        """Return the batch with the answers to its rows."""
        asked = [BatchRequest(self._said(row), self._context, **self._options) for row in _rows(batch)]
        asyncio.run_coroutine_threadsafe(self._ask_all(asked), self._loop).result()
        return _with_columns(batch, {name: [_result(request, name) for request in asked] for name in RESULTS})

    def _said(self, row: Mapping[str, Any]) -> Any:
        """Return the contents for a row."""
        if self._template is not None:
            self._template.require(row, "the batch")
            return self._template.fill(row)
        if self._contents not in row:
            raise ConfigError("contents", repr(self._contents), f"one of the columns {', '.join(row)}")
        return row[self._contents]

    async def _move_in(self) -> None:
        worker_config: WorkerConfig = await self._cluster.ask(self._home.worker_config)
        self._worker_journal = WorkerJournal(worker_config, await self._cluster.ask(self._home.variables))
        self._part = self._loop.create_task(self._have_part())
        self._reporter = self._loop.create_task(self._keep_reporting())

    async def _have_part(self) -> None:
        """Wait until this worker has a share of the limits and may use it."""
        rest_s = await self._cluster.ask(self._home.lease, self._name)
        while rest_s is None:
            await asyncio.sleep(_ASK_AGAIN_S)
            rest_s = await self._cluster.ask(self._home.lease, self._name)
        await asyncio.sleep(rest_s)

    async def _ask_all(self, requests: Sequence[BatchRequest]) -> None:
        """Make all calls; their lines are in the usage log before the rows are returned."""
        await asyncio.gather(*map(self._ask, requests))
        await self._report()

    async def _ask(self, request: BatchRequest) -> None:
        async with self._room:
            if self._part is not None:
                await asyncio.shield(self._part)
            found = await answer(request)
        found.fill_in(request)

    async def _keep_reporting(self) -> None:
        """Report at intervals that this worker is alive, until the session is gone."""
        try:
            while True:
                await self._report()
                await asyncio.sleep(_REPORT_S)
        except WorkerLost as exc:
            log.warning("the host of this worker is gone (%s)", exc)

    async def _report(self) -> None:
        """Send log lines to the driver and apply the current configuration; request a new share if this one expired."""
        if self._worker_journal is None:
            return
        worker_config: WorkerConfig | None = await self._cluster.ask(
            self._home.report, self._name, self._worker_journal.lines()
        )
        if worker_config is not None:
            self._worker_journal.settle(worker_config)
        elif self._part is None or self._part.done():
            self._part = self._loop.create_task(self._have_part())


def _result(request: BatchRequest, name: str) -> Any:
    match name:
        case "model":
            return request.model_used
        case "provider":
            return request.provider_used
        case "input_tokens":
            return request.usage.input_tokens
        case "output_tokens":
            return request.usage.output_tokens
        case "duration_s":
            return request.duration
        case _:
            return vars(request).get(name)


def _rows(batch: Any) -> Iterator[Mapping[str, Any]]:
    """Return an iterator over the rows of a batch, with plain Python values."""
    if isinstance(batch, dict):
        columns = {name: column.tolist() for name, column in batch.items()}
        return (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))
    if hasattr(batch, "to_pylist"):
        return iter(batch.to_pylist())
    raise ConfigError("batch_format", type(batch).__name__, "'pyarrow' or 'numpy'")


def _with_columns(batch: Any, columns: Mapping[str, list[Any]]) -> Any:
    """Return a batch of the same type with these columns added."""
    if isinstance(batch, dict):
        return {**batch, **columns}
    import pyarrow  # installed with ray.data; only its pipelines need it

    table = batch.drop_columns([name for name in RESULTS if name in batch.column_names])
    for name, values in columns.items():
        table = table.append_column(name, pyarrow.array(values, type=RESULTS[name]))
    return table


# Names of 0.1.
__getattr__ = renamed_attributes(__name__, {"Asker": "MuseActor", "Host": "DriverSession"})
