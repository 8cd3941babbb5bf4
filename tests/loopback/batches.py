"""The loopback server with the three batch services: files, jobs, results, faults by script; it does not know muse.

In a test::

    with BatchLoopback() as server:
        server.plan("openai", Script(polls=2, fates={3: "error_400"}))
        ... server.url ... server.jobs["openai"]
"""

from __future__ import annotations

import json
import re
from collections import defaultdict, deque
from collections.abc import Callable
from itertools import count
from urllib.parse import parse_qs, urlsplit

from tests.loopback.batch_forms import (
    anthropic_job,
    anthropic_lines,
    google_job,
    google_lines,
    openai_job,
    openai_lines,
)
from tests.loopback.batch_jobs import Fault, Job, Script
from tests.loopback.events import Json, dump
from tests.loopback.scenarios import load
from tests.loopback.server import LoopbackServer, Request

_ROUTES = (
    ("openai", "POST", r"/v1/files", "upload"),
    ("openai", "GET", r"/v1/files/file-(?P<job>[^/]+)-(?P<kind>output|error)/content", "results"),
    ("openai", "DELETE", r"/v1/files/(?P<file>[^/]+)", "delete_file"),
    ("openai", "POST", r"/v1/batches", "make"),
    ("openai", "GET", r"/v1/batches", "list"),
    ("openai", "GET", r"/v1/batches/(?P<job>[^/]+)", "look"),
    ("openai", "POST", r"/v1/batches/(?P<job>[^/]+)/cancel", "cancel"),
    ("anthropic", "POST", r"/v1/messages/batches", "make"),
    ("anthropic", "GET", r"/v1/messages/batches", "list"),
    ("anthropic", "GET", r"/v1/messages/batches/(?P<job>[^/]+)", "look"),
    ("anthropic", "GET", r"/v1/messages/batches/(?P<job>[^/]+)/results", "results"),
    ("anthropic", "POST", r"/v1/messages/batches/(?P<job>[^/]+)/cancel", "cancel"),
    ("anthropic", "DELETE", r"/v1/messages/batches/(?P<job>[^/]+)", "delete"),
    ("google", "POST", r"/upload/v1(?:beta)?/files", "begin"),
    ("google", "POST", r"/upload/(?P<file>[^/]+)", "upload"),
    ("google", "POST", r"/v1(?:beta)?/models/(?P<model>[^/:]+):batchGenerateContent", "make"),
    ("google", "GET", r"/v1(?:beta)?/batches", "list"),
    ("google", "GET", r"/v1(?:beta)?/batches/(?P<job>[^/:]+)", "look"),
    ("google", "POST", r"/v1(?:beta)?/batches/(?P<job>[^/:]+):cancel", "cancel"),
    ("google", "DELETE", r"/v1(?:beta)?/batches/(?P<job>[^/:]+)", "delete"),
    ("google", "GET", r"/v1(?:beta)?/files/batch-(?P<job>[^/:]+):download", "results"),
)
_PAGING = {"openai": ("after", "limit"), "anthropic": ("after_id", "limit"), "google": ("pageToken", "pageSize")}
_CUSTOM_ID = re.compile(r"^[a-zA-Z0-9_-]{1,64}$")


class BatchLoopback(LoopbackServer):
    """A loopback server that keeps files and jobs.

    Attributes:
        jobs: every job that was made, by provider and name, in order.
        files: every file that was uploaded.
        steps: every batch request as `openai_make` and the like, in order.
        on_step: is told each of them before it is answered.
    """

    def __init__(self, **options: int) -> None:
        """Prepare a server without jobs."""
        super().__init__(**options)
        self.jobs: defaultdict[str, dict[str, Job]] = defaultdict(dict)
        self.files: dict[str, bytes] = {}
        self.steps: list[str] = []
        self.on_step: Callable[[str], None] | None = None
        self._numbers = count(1)
        self._plans: defaultdict[str, deque[Script]] = defaultdict(deque)
        self._faults: defaultdict[str, deque[Fault]] = defaultdict(deque)

    def plan(self, provider: str, *scripts: Script) -> None:
        """Queue how the next jobs of `provider` go; without a script they end well at the second look."""
        self._plans[provider].extend(scripts)
        for script in scripts:
            self._faults[provider].extend(script.submit_faults)

    def count(self, step: str) -> int:
        """How many requests were `step`, such as `openai_make`."""
        return self.steps.count(step)

    def outside(self, request: Request) -> Json | bytes | None:
        """Answer a batch request."""
        for provider, method, pattern, action in _ROUTES:
            found = re.fullmatch(pattern, request.path)
            if found and method == request.method and provider == _speaker(request, pattern):
                self.steps.append(f"{provider}_{action}")
                if self.on_step is not None:
                    self.on_step(self.steps[-1])
                return self._act(provider, action, request, found.groupdict())
        return None

    def _act(self, provider: str, action: str, request: Request, named: dict[str, str]) -> Json | bytes:
        job = self.jobs[provider].get(named.get("job", ""))
        if "job" in named and job is None:
            return load(provider, "error_404")
        fault = self._fault(provider, action, job)
        if fault == "lost":
            return b""
        if fault is not None and fault != "unanswered":
            return load(provider, fault)
        answer = (
            self._file(provider, action, request, named) if job is None else self._job(provider, action, job, named)
        )
        return b"" if fault == "unanswered" else answer

    def _fault(self, provider: str, action: str, job: Job | None) -> Fault | None:
        """What a step meets in place of what it is for."""
        if action == "make" and self._faults[provider]:
            return self._faults[provider].popleft()
        if job is not None and action == "look" and len(job.script.poll_faults) > job.looks:
            job.looks += 1
            return job.script.poll_faults[job.looks - 1]
        if job is not None and action == "results":
            job.fetches += 1
            return job.script.fetch_faults[job.fetches - 1] if len(job.script.fetch_faults) >= job.fetches else None
        return None

    def _job(self, provider: str, action: str, job: Job, named: dict[str, str]) -> Json:
        """A step that is about one job."""
        match action:
            case "look":
                job.looks += 1
                job.fetches += bool(provider == "google" and job.is_over and not job.input_file)
            case "cancel":
                job.is_cancelled = True
            case "delete":
                del self.jobs[provider][job.name]
            case "results":
                return _raw(_results(provider, job, named.get("kind", "")))
        return _ok(self._view(provider, job))

    def _file(self, provider: str, action: str, request: Request, named: dict[str, str]) -> Json:
        """A step before there is a job, or about all of them."""
        match provider, action:
            case _, "list":
                return _ok(self._listing(provider, parse_qs(urlsplit(request.target).query)))
            case _, "delete_file":
                self.files.pop(named["file"], None)
                return _ok({"id": named["file"], "object": "file", "deleted": True})
            case "openai", "upload":
                return self._take_form(request)
            case "google", "begin":
                name = f"in{len(self.files) + 1}"
                self.files[name] = b""
                return _ok({}, {"x-goog-upload-url": f"{self.url}/upload/{name}", "x-goog-upload-status": "active"})
            case "google", "upload":
                return self._take_piece(request, named["file"])
        return _ok(self._view(provider, self._make(provider, request.body, named.get("model", ""))))

    def _take_form(self, request: Request) -> Json:
        """A file as a part of a form."""
        name = f"file-in{len(self.files) + 1}"
        part = next(part for part in request.content.split(b"\r\n--") if b'filename="' in part)
        self.files[name] = content = part.partition(b"\r\n\r\n")[2]
        whole = {"id": name, "object": "file", "bytes": len(content), "created_at": 1, "filename": "in.jsonl"}
        return _ok({**whole, "purpose": "batch", "status": "processed"})

    def _take_piece(self, request: Request, name: str) -> Json:
        """A file, or the next piece of it, as it is."""
        self.files[name] += request.content
        is_last = "finalize" in request.headers["x-goog-upload-command"]
        body = {"file": {"name": f"files/{name}", "mimeType": "application/jsonl"}} if is_last else {}
        return _ok(body, {"x-goog-upload-status": "final" if is_last else "active"})

    def _make(self, provider: str, body: Json, model: str) -> Job:
        """A new job out of the body that asks for one, seen to be of the right form."""
        match provider:
            case "openai":
                file, mark = body["input_file_id"], body["metadata"]["muse_job"]
                lines = [json.loads(line) for line in self.files[file].splitlines()]
                assert {line["url"] for line in lines} == {body["endpoint"]} == {"/v1/responses"}
                requests = [(line["custom_id"], line["body"]) for line in lines]
            case "anthropic":
                file, mark = "", ""
                requests = [(line["custom_id"], line["params"]) for line in body["requests"]]
                assert all(_CUSTOM_ID.match(custom_id) for custom_id, _ in requests)
            case _:
                source, mark = body["batch"]["inputConfig"], body["batch"]["displayName"]
                file = str(source.get("fileName", "")).removeprefix("files/")
                requests = _google_requests(source, self.files.get(file))
        assert requests
        assert len(dict(requests)) == len(requests)
        script = self._plans[provider].popleft() if self._plans[provider] else Script()
        name = f"{provider}{next(self._numbers)}"
        job = self.jobs[provider][name] = Job(name, mark, requests, script, model=model, input_file=file)
        return job

    def _view(self, provider: str, job: Job) -> Json:
        match provider:
            case "openai":
                return openai_job(job)
            case "anthropic":
                return anthropic_job(job, self.url)
        return google_job(job)

    def _listing(self, provider: str, query: dict[str, list[str]]) -> Json:
        """A page of the jobs, newest first."""
        names = list(reversed(self.jobs[provider]))
        after, size = _PAGING[provider]
        begin = names.index(query[after][0]) + 1 if after in query else 0
        end = begin + int(query[size][0])
        page = [self._view(provider, self.jobs[provider][name]) for name in names[begin:end]]
        has_more = end < len(names)
        if provider == "google":
            return {"operations": page} | ({"nextPageToken": names[end - 1]} if has_more else {})
        return {"data": page, "has_more": has_more, "last_id": page[-1]["id"] if page else None}


def _speaker(request: Request, pattern: str) -> str:
    """Whose wire form a request is in: two have the same paths, and the pieces of a file come without a key."""
    if "anthropic-version" in request.headers:
        return "anthropic"
    return "google" if "x-goog-api-key" in request.headers or pattern.startswith("/upload") else "openai"


def _google_requests(source: Json, file: bytes | None) -> list[tuple[str, Json]]:
    if file is None:
        return [(line["metadata"]["key"], line["request"]) for line in source["requests"]["requests"]]
    return [(line["key"], line["request"]) for line in map(json.loads, file.splitlines())]


def _results(provider: str, job: Job, kind: str) -> str:
    match provider:
        case "openai":
            return openai_lines(job, kind)
        case "anthropic":
            return anthropic_lines(job)
    return "\n".join(line if isinstance(line, str) else dump(line) for line in google_lines(job))


def _ok(body: Json, headers: dict[str, str] | None = None) -> Json:
    return {"status": 200, "headers": {"content-type": "application/json", **(headers or {})}, "body": body}


def _raw(text: str) -> Json:
    return {"status": 200, "headers": {"content-type": "application/octet-stream"}, "raw": text}
