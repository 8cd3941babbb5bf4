"""OpenAI's Batch API over the SDK's `files` and `batches`.

Entry point: `OpenAIBatch`.

Sources: the API reference of `POST /batches` and `POST /files` (50,000 requests and 200 MB per file, a window of 24
hours, metadata of up to 512 characters per value); the batch guide (output file and error file, in any order; requests
that finish before expiry or cancellation are kept and charged).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Any

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
    cancelled_error,
    decode_line,
    expired_error,
    since_ts,
    within,
)
from muse.providers._replies.errors import invalid_body_error, status_error
from muse.providers._sdk_base import STREAM_STATUS, error_words
from muse.types.errors import MuseError

_NAME = "openai"
_ENDPOINT = "/v1/responses"
_MARK = "muse_job"
_STATES: Mapping[str, State] = {
    "validating": "validating",
    "in_progress": "running",
    "finalizing": "running",
    "cancelling": "running",
    "completed": "done",
    "failed": "failed",
    "expired": "expired",
    "cancelled": "cancelled",
}
_PAGE = 100


class OpenAIBatch(BatchService):
    """Batch jobs at `/v1/responses`; a job carries its mark as metadata."""

    limits = Limits(requests=50_000, size_bytes=200_000_000, window_s=86_400)

    def wrap(self, custom_id: str, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"custom_id": custom_id, "method": "POST", "url": _ENDPOINT, "body": payload}

    def unwrap(self, line: bytes, model: str) -> tuple[str, Outcome]:
        entry = decode_line(line)
        if entry is None or not isinstance(entry.get("custom_id"), str):
            return "", invalid_body_error(_NAME, model, line)
        return entry["custom_id"], _answer(entry, line, model)

    async def submit(self, client: Any, upload: BatchUpload) -> str:
        upload.file.seek(0)
        form = (f"{upload.mark}.jsonl", upload.file, "application/jsonl")
        sent = await within(_api(client).files.create(file=form, purpose="batch", timeout=LONG_WAIT_S), LONG_WAIT_S)
        made = _api(client).batches.create(
            completion_window="24h", endpoint=_ENDPOINT, input_file_id=sent.id, metadata={_MARK: upload.mark}
        )
        return str((await within(made, SHORT_WAIT_S)).id)

    async def find(self, client: Any, lookup: BatchLookup) -> tuple[str, ...]:
        earliest = since_ts(lookup)
        page = await within(_api(client).batches.list(limit=_PAGE), SHORT_WAIT_S)
        while True:
            for batch in page.data:
                if (batch.metadata or {}).get(_MARK) == lookup.mark:
                    return (str(batch.id),)
            is_last = not page.data or page.data[-1].created_at < earliest or not page.has_next_page()
            if is_last:
                return ()
            page = await within(page.get_next_page(), SHORT_WAIT_S)

    async def poll(self, client: Any, remote_id: str) -> Status:
        batch = await within(_api(client).batches.retrieve(remote_id), SHORT_WAIT_S)
        counts = batch.request_counts
        problems = (batch.errors.data if batch.errors else None) or ()
        first = problems[0] if problems else None
        return Status(
            _STATES.get(batch.status, "running"),
            done=counts.completed if counts else 0,
            failed=counts.failed if counts else 0,
            total=counts.total if counts else 0,
            message=(first.message or "") if first else "",
            code=(first.code or "") if first else "",
            rejected={one.line - 1: one.message or "" for one in problems if one.line},
        )

    async def fetch(self, client: Any, remote_id: str, file: IO[bytes]) -> None:
        batch = await _api(client).batches.retrieve(remote_id)
        for file_id in filter(None, (batch.output_file_id, batch.error_file_id)):
            asked = _api(client).files.with_streaming_response.content(file_id, timeout=LONG_WAIT_S)
            async with asked as answer:
                async for piece in answer.iter_bytes():
                    file.write(piece)
            file.write(b"\n")  # a file may lack its last line break

    async def cancel(self, client: Any, remote_id: str) -> None:
        await within(_api(client).batches.cancel(remote_id), SHORT_WAIT_S)

    async def discard(self, client: Any, remote_id: str) -> None:
        batch = await within(_api(client).batches.retrieve(remote_id), SHORT_WAIT_S)
        for file_id in filter(None, (batch.input_file_id, batch.output_file_id, batch.error_file_id)):
            await within(_api(client).files.delete(file_id), SHORT_WAIT_S)


def _api(client: Any) -> Any:
    """Return a copy of the SDK's client with usable typed methods: the provider's client posts to one address only."""
    return client.sdk.copy()


def _answer(entry: Mapping[str, Any], line: bytes, model: str) -> Outcome:
    """Return the answer in a line of an output or error file; both files hold answers and errors."""
    response = entry.get("response")
    if entry.get("error"):
        return _error(entry, STREAM_STATUS, model)
    if not isinstance(response, Mapping) or not isinstance(response.get("body"), Mapping):
        return invalid_body_error(_NAME, model, line, expected="a response with a body")
    status, body = response.get("status_code"), response["body"]
    if status == 200:
        answer: Mapping[str, Any] = body
        return answer
    return _error(body, status if isinstance(status, int) else STREAM_STATUS, model)


def _error(body: Mapping[str, Any], status: int, model: str) -> MuseError:
    code, message = error_words(body)
    if code == "batch_expired":
        return expired_error(_NAME, model)
    if code == "batch_cancelled":
        return cancelled_error(_NAME, model)
    return status_error(_NAME, model, status, code=code, message=message)
