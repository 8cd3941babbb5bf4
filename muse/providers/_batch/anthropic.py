"""Anthropic's Message Batches over the SDK's `messages.batches`.

Entry point: `AnthropicBatch`.

Sources: the API reference of `POST /v1/messages/batches`; the batch processing guide (100,000 requests or 256 MB, a
window of 24 hours, results for 29 days, ids of 1 to 64 letters, digits, `-` and `_`; errored, expired and canceled
requests are not charged).
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

_NAME = "anthropic"
_PAGE = 100
# The HTTP status of a live call, by the type of its error.
_STATUSES: Mapping[str, int] = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}


class AnthropicBatch(BatchService):
    """Message Batches; a batch has no field for a mark, so it is recognised by the ids in its results."""

    limits = Limits(requests=100_000, size_bytes=256_000_000, window_s=86_400)

    def wrap(self, custom_id: str, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"custom_id": custom_id, "params": payload}

    def unwrap(self, line: bytes, model: str) -> tuple[str, Outcome]:
        entry = decode_line(line)
        if entry is None or not isinstance(entry.get("custom_id"), str) or not isinstance(entry.get("result"), Mapping):
            return "", invalid_body_error(_NAME, model, line)
        return entry["custom_id"], _answer(entry["result"], line, model)

    async def submit(self, client: Any, upload: BatchUpload) -> str:
        made = _api(client).messages.batches.create(requests=list(upload.lines()), timeout=LONG_WAIT_S)
        return str((await within(made, LONG_WAIT_S)).id)

    async def find(self, client: Any, lookup: BatchLookup) -> tuple[str, ...]:
        """Return the newer batches of the size sought, except those whose results belong to another job."""
        earliest = since_ts(lookup)
        found: list[str] = []
        page = await within(_api(client).messages.batches.list(limit=_PAGE), SHORT_WAIT_S)
        while True:
            young = [batch for batch in page.data if batch.created_at.timestamp() >= earliest]
            likely = [batch for batch in young if _size(batch.request_counts) == lookup.count]
            found += [
                str(batch.id) for batch in likely if not await within(_is_other(client, batch, lookup), LONG_WAIT_S)
            ]
            if len(young) < len(page.data) or not page.has_next_page():
                return tuple(reversed(found))  # the oldest batch after the sending is the likeliest
            page = await within(page.get_next_page(), SHORT_WAIT_S)

    async def poll(self, client: Any, remote_id: str) -> Status:
        batch = await within(_api(client).messages.batches.retrieve(remote_id), SHORT_WAIT_S)
        counts = batch.request_counts
        failed = counts.errored + counts.expired + counts.canceled
        return Status(_state(batch), done=counts.succeeded, failed=failed, total=_size(counts))

    async def fetch(self, client: Any, remote_id: str, file: IO[bytes]) -> None:
        """Write the results of a finished batch into `file` unchanged.

        The SDK's own reader is not used, because it stops at the first line that is not JSON.
        """
        asked = _api(client).messages.batches.with_streaming_response.results(remote_id, timeout=LONG_WAIT_S)
        async with asked as answer:
            async for piece in answer.iter_bytes():
                file.write(piece)

    async def cancel(self, client: Any, remote_id: str) -> None:
        await within(_api(client).messages.batches.cancel(remote_id), SHORT_WAIT_S)

    async def discard(self, client: Any, remote_id: str) -> None:
        await within(_api(client).messages.batches.delete(remote_id), SHORT_WAIT_S)


def _api(client: Any) -> Any:
    """Return a copy of the SDK's client with usable typed methods: the provider's client posts to one address only."""
    return client.sdk.copy()


async def _is_other(client: Any, batch: Any, lookup: BatchLookup) -> bool:
    """Return True if the first readable line of a batch's results is of another job; False if it has no results."""
    if batch.processing_status != "ended" or not batch.results_url:
        return False
    async with _api(client).messages.batches.with_streaming_response.results(batch.id) as answer:
        async for line in answer.iter_lines():
            entry = decode_line(line)
            if entry is not None:
                return not str(entry.get("custom_id")).startswith(f"{lookup.mark}-")
    return False


def _size(counts: Any) -> int:
    return int(counts.processing + counts.succeeded + counts.errored + counts.canceled + counts.expired)


def _state(batch: Any) -> State:
    if batch.processing_status != "ended":
        return "running"
    if batch.request_counts.canceled:
        return "cancelled"
    return "expired" if batch.request_counts.expired else "done"


def _answer(result: Mapping[str, Any], line: bytes, model: str) -> Outcome:
    message = result.get("message")
    match result.get("type"):
        case "succeeded" if isinstance(message, Mapping):
            return message
        case "expired":
            return expired_error(_NAME, model)
        case "canceled":
            return cancelled_error(_NAME, model)
        case "errored":
            code, words = error_words(result.get("error"))
            return status_error(_NAME, model, _STATUSES.get(str(code), STREAM_STATUS), code=code, message=words)
        case _:
            return invalid_body_error(_NAME, model, line, expected="a result of a known type")
