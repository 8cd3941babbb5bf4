"""The Gemini Batch API over the SDK's `batches` and `files`.

Entry point: `GoogleBatch`.

Sources: the REST reference of `models.batchGenerateContent`; the guide to the Batch API (up to 20 MB of requests in the
call itself, up to 2 GB in an uploaded file of `{"key", "request"}` lines; the target is 24 hours, after 48 a job
expires without results). The service states no maximum of requests; muse's own keeps a job within what may be lost
in one night.
"""

from __future__ import annotations

from collections.abc import Mapping
from io import IOBase
from typing import IO, Any, cast

from muse.providers._backend.batch_service import (
    LONG_WAIT_S,
    SHORT_WAIT_S,
    BatchLookup,
    BatchService,
    BatchUpload,
    Limits,
    Outcome,
    State,
    Status,
    decode_line,
    encode_line,
    since_ts,
    within,
)
from muse.providers._replies.errors import invalid_body_error, status_error
from muse.types.errors import MuseError

_NAME = "google"
_PAGE = 100
# Up to this size the requests are sent in the call itself, and their answers come with the state of the job.
_INLINE_BYTES = 1_000_000
_STATES: Mapping[str, State] = {
    "JOB_STATE_QUEUED": "validating",
    "JOB_STATE_PENDING": "validating",
    "JOB_STATE_SUCCEEDED": "done",
    "JOB_STATE_PARTIALLY_SUCCEEDED": "done",
    "JOB_STATE_FAILED": "failed",
    "JOB_STATE_CANCELLED": "cancelled",
    "JOB_STATE_EXPIRED": "expired",
}
# HTTP status and name by google.rpc.Code, which the error of a single request uses.
_CODES: Mapping[int, tuple[int, str]] = {
    1: (499, "CANCELLED"),
    3: (400, "INVALID_ARGUMENT"),
    4: (504, "DEADLINE_EXCEEDED"),
    5: (404, "NOT_FOUND"),
    7: (403, "PERMISSION_DENIED"),
    8: (429, "RESOURCE_EXHAUSTED"),
    9: (400, "FAILED_PRECONDITION"),
    10: (409, "ABORTED"),
    11: (400, "OUT_OF_RANGE"),
    13: (500, "INTERNAL"),
    14: (503, "UNAVAILABLE"),
    16: (401, "UNAUTHENTICATED"),
}


class GoogleBatch(BatchService):
    """Gemini's batch jobs; a job carries its mark as display name."""

    limits = Limits(requests=100_000, size_bytes=2_000_000_000, window_s=172_800)

    def wrap(self, custom_id: str, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"key": custom_id, "request": payload["body"]}

    def unwrap(self, line: bytes, model: str) -> tuple[str, Outcome]:
        entry = decode_line(line)
        if entry is None or not isinstance(entry.get("key"), str):
            return "", invalid_body_error(_NAME, model, line)
        response, error = entry.get("response"), entry.get("error") or entry.get("status")
        if isinstance(response, Mapping):
            return entry["key"], response
        if isinstance(error, Mapping):
            return entry["key"], _error(error, model)
        return entry["key"], invalid_body_error(_NAME, model, line, expected="a response or an error")

    async def submit(self, client: Any, upload: BatchUpload) -> str:
        if upload.size_bytes <= _INLINE_BYTES:
            entries = [{"request": line["request"], "metadata": {"key": line["key"]}} for line in upload.lines()]
            source: dict[str, Any] = {"requests": {"requests": entries}}
        else:
            source = {"fileName": await self._upload(client, upload)}
        types = client.types
        batch = {"displayName": upload.mark, "inputConfig": source}
        options = types.HttpOptions(extra_body={"batch": batch}, timeout=int(LONG_WAIT_S * 1000))
        config = types.CreateBatchJobConfig(display_name=upload.mark, http_options=options)
        # The method requires a source. `extra_body` replaces it with the raw requests, which skips the SDK's types.
        named = {"file_name": source["fileName"]} if "fileName" in source else {"inlined_requests": []}
        stand_in = types.BatchJobSource(**named)
        made = client.sdk.aio.batches.create(model=upload.model, src=stand_in, config=config)
        return str((await within(made, LONG_WAIT_S)).name)

    async def _upload(self, client: Any, upload: BatchUpload) -> str:
        upload.file.seek(0)
        form = client.types.UploadFileConfig(display_name=upload.mark, mime_type="application/jsonl")
        file = cast(IOBase, upload.file)
        sent = await within(client.sdk.aio.files.upload(file=file, config=form), LONG_WAIT_S)
        return str(sent.name)

    async def find(self, client: Any, lookup: BatchLookup) -> tuple[str, ...]:
        earliest = since_ts(lookup)
        pager = await within(client.sdk.aio.batches.list(config={"page_size": _PAGE}), SHORT_WAIT_S)
        while True:
            jobs = list(pager.page)
            for job in jobs:
                if job.display_name == lookup.mark:
                    return (str(job.name),)
            begun = [job.create_time.timestamp() for job in jobs if job.create_time]
            if not jobs or not pager.config.get("page_token") or (begun and max(begun) < earliest):
                return ()
            await within(pager.next_page(), SHORT_WAIT_S)

    async def poll(self, client: Any, remote_id: str) -> Status:
        job = await within(client.sdk.aio.batches.get(name=remote_id), SHORT_WAIT_S)
        state = job.state.value if job.state else ""
        stats = job.completion_stats
        return Status(
            _STATES.get(state, "running"),
            done=(stats.successful_count or 0) if stats else 0,
            failed=(stats.failed_count or 0) if stats else 0,
            message=(job.error.message or "") if job.error else "",
            code=state if _STATES.get(state) == "failed" else "",
        )

    async def fetch(self, client: Any, remote_id: str, file: IO[bytes]) -> None:
        job = await client.sdk.aio.batches.get(name=remote_id)
        if job.dest is None:
            return
        for answer in job.dest.inlined_responses or ():
            entry = answer.model_dump(mode="json", by_alias=True, exclude_none=True)
            file.write(encode_line({**entry, "key": (answer.metadata or {}).get("key")}))
        if job.dest.file_name:
            await client.sdk.aio.files.download(file=job.dest.file_name, destination=file)

    async def cancel(self, client: Any, remote_id: str) -> None:
        await within(client.sdk.aio.batches.cancel(name=remote_id), SHORT_WAIT_S)

    async def discard(self, client: Any, remote_id: str) -> None:
        """Delete the job; the service deletes its files after two days."""
        await within(client.sdk.aio.batches.delete(name=remote_id), SHORT_WAIT_S)


def _error(error: Mapping[str, Any], model: str) -> MuseError:
    """Return the error of a single request: a google.rpc.Status whose code is a google.rpc.Code or an HTTP status."""
    told = error.get("code")
    number = told if isinstance(told, int) else 13
    status, name = _CODES.get(number, (number if number >= 400 else 500, error.get("status")))
    return status_error(_NAME, model, status, code=name, message=error.get("message"))
