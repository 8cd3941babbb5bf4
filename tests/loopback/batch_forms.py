"""The wire forms of the three batch services: jobs and their results as JSON; it does not know sockets or muse."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

from tests.loopback.batch_jobs import Job
from tests.loopback.events import Json, dump
from tests.loopback.outcomes import TEXT
from tests.loopback.scenarios import load

BROKEN = '{"custom_id": "muse-'
_OPENAI_STATES = {"done": "completed", "failed": "failed", "expired": "expired", "cancelled": "cancelled"}
_NO_CODES = {400: 3, 401: 16, 403: 7, 404: 5, 429: 8, 500: 13, 503: 14}


def prompt_of(provider: str, payload: Json) -> str:
    """The text of a request's first part."""
    match provider:
        case "openai":
            return str(payload["input"][0]["content"][0]["text"])
        case "anthropic":
            return str(payload["messages"][0]["content"][0]["text"])
    return str(payload["contents"][0]["parts"][0]["text"])


def reply_text(prompt: str) -> str:
    """The text that answers a prompt, so that answers cannot be mixed up."""
    return f"{TEXT} You asked: {prompt}"


def _body(provider: str, scenario: str, payload: Json) -> tuple[int, Any]:
    """`(status, body)` of the scenario; the plain one answers its own prompt."""
    fixture = load(provider, scenario)
    body = copy.deepcopy(fixture["body"])
    text = reply_text(prompt_of(provider, payload))
    if scenario != "text":
        return fixture["status"], body
    match provider:
        case "openai":
            body["output"][0]["content"][0]["text"] = text
        case "anthropic":
            body["content"][0]["text"] = text
        case _:
            body["candidates"][0]["content"]["parts"][0]["text"] = text
    return fixture["status"], body


def openai_job(job: Job) -> Json:
    """A `batch` object."""
    over, ending = job.is_over, job.ending
    has_results = over and ending != "failed"
    refused = job.script.refused_line
    problem = {"code": "invalid_request", "line": refused, "message": "line is not acceptable", "param": "body"}
    failed = sum(job.fate(place) != "text" for place in range(len(job.requests)))
    total = len(job.requests)
    return {
        "id": job.name,
        "object": "batch",
        "endpoint": "/v1/responses",
        "errors": {"object": "list", "data": [problem]} if over and ending == "failed" else None,
        "input_file_id": job.input_file,
        "completion_window": "24h",
        "status": _OPENAI_STATES[ending] if over else "in_progress" if job.looks else "validating",
        "output_file_id": f"file-{job.name}-output" if has_results else None,
        "error_file_id": f"file-{job.name}-error" if has_results and failed else None,
        "created_at": int(job.created_ts),
        "request_counts": {"total": total, "completed": (total - failed) * over, "failed": failed * over},
        "metadata": {"muse_job": job.mark},
    }


def openai_lines(job: Job, kind: str) -> str:
    """The output file, or the error file."""
    lines: list[str] = []
    for place, (custom_id, payload) in enumerate(job.requests):
        fate = job.fate(place)
        if fate == "broken" and not (job.script.falls_back and job.fetches > 1):
            lines += [BROKEN] if kind == "output" else []
        elif fate in ("expired", "cancelled"):
            error = {"code": f"batch_{fate}", "message": f"This request was {fate}."}
            line = {"id": f"batch_req_{place}", "custom_id": custom_id, "response": None, "error": error}
            lines += [dump(line)] if kind == "error" else []
        elif fate != "missing":
            status, body = _body("openai", "text" if fate == "broken" else fate, payload)
            response = {"status_code": status, "request_id": f"req_{place}", "body": body}
            line = {"id": f"batch_req_{place}", "custom_id": custom_id, "response": response, "error": None}
            lines += [dump(line)] if (kind == "output") == (status == 200) else []
    return "\n".join(reversed(lines))


def anthropic_job(job: Job, url: str) -> Json:
    """A `message_batch` object."""
    over = job.is_over
    fates = [job.fate(place) for place in range(len(job.requests))]
    counts = {"processing": 0 if over else len(fates), "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0}
    for fate in fates if over else ():
        counts[_anthropic_kind(fate)] += 1
    created = datetime.fromtimestamp(job.created_ts, UTC)
    return {
        "id": job.name,
        "type": "message_batch",
        "processing_status": "ended" if over else "in_progress",
        "request_counts": counts,
        "created_at": created.isoformat(),
        "expires_at": created.isoformat(),
        "ended_at": created.isoformat() if over else None,
        "cancel_initiated_at": created.isoformat() if job.is_cancelled else None,
        "archived_at": None,
        "results_url": f"{url}/v1/messages/batches/{job.name}/results" if over else None,
    }


def _anthropic_kind(fate: str) -> str:
    known = {"expired": "expired", "cancelled": "canceled"}
    return known.get(fate, "errored" if fate.startswith("error_") else "succeeded")


def anthropic_lines(job: Job) -> str:
    """The results file."""
    lines: list[str] = []
    for place, (custom_id, payload) in enumerate(job.requests):
        fate = job.fate(place)
        if fate == "broken" and not (job.script.falls_back and job.fetches > 1):
            lines.append(BROKEN)
        elif fate in ("expired", "cancelled"):
            lines.append(dump({"custom_id": custom_id, "result": {"type": _anthropic_kind(fate)}}))
        elif fate != "missing":
            status, body = _body("anthropic", "text" if fate == "broken" else fate, payload)
            result = {"type": "succeeded", "message": body} if status == 200 else {"type": "errored", "error": body}
            lines.append(dump({"custom_id": custom_id, "result": result}))
    return "\n".join(reversed(lines))


def google_job(job: Job) -> Json:
    """A long-running operation with a batch as its metadata."""
    states = {"done": "SUCCEEDED", "failed": "FAILED", "expired": "EXPIRED", "cancelled": "CANCELLED"}
    state = states[job.ending] if job.is_over else "RUNNING" if job.looks else "PENDING"
    created = datetime.fromtimestamp(job.created_ts, UTC).isoformat().replace("+00:00", "Z")
    batch = {
        "@type": "type.googleapis.com/google.ai.generativelanguage.v1main.GenerateContentBatch",
        "model": f"models/{job.model}",
        "displayName": job.mark,
        "createTime": created,
        "updateTime": created,
        "batchStats": {"requestCount": str(len(job.requests))},
        "state": f"BATCH_STATE_{state}",
        "name": f"batches/{job.name}",
    }
    if state == "SUCCEEDED":
        answers = [line for line in google_lines(job) if isinstance(line, dict)]
        inline = [{"metadata": {"key": line.pop("key")}, **line} for line in answers]
        by_file = {"responsesFile": f"files/batch-{job.name}"}
        batch["output"] = by_file if job.input_file else {"inlinedResponses": {"inlinedResponses": inline}}
    return {"name": f"batches/{job.name}", "metadata": batch, "done": job.is_over}


def google_lines(job: Job) -> list[Json | str]:
    """The lines of the responses file; a broken one is text."""
    lines: list[Json | str] = []
    for place, (key, payload) in enumerate(job.requests):
        fate = job.fate(place)
        if fate == "broken" and not (job.script.falls_back and job.fetches > 1):
            lines.append(BROKEN)
        elif fate != "missing":
            status, body = _body("google", "text" if fate == "broken" else fate, payload)
            error = {"code": _NO_CODES.get(status, 13), "message": "the request could not be served"}
            lines.append({"key": key, "response": body} if status == 200 else {"key": key, "error": error})
    return lines
