"""The addresses of the tokens app; it knows no figure and no file of the journal."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from apps.host.templating import render
from apps.tokens import csv_export, queries
from apps.tokens.filters import GROUPS, Choice, read_choice, read_day
from muse.usage_index.index import close_indexes, log_index
from muse.usage_index.line_queries import find_line, text_of
from muse.usage_index.queries import sums
from muse.usage_log.totals import Field

_COLUMNS: tuple[Field, ...] = (*GROUPS, "day")


def warm() -> None:
    """Read the token log as far as it is new, before the first page is asked for."""
    log_index().read_on()


@asynccontextmanager
async def lifespan() -> AsyncIterator[None]:
    """Let go of the index when the server ends, between two transactions."""
    yield
    await run_in_threadpool(close_indexes)


def workspace(request: Request) -> Mapping[str, Any]:
    """The overview of a range of days."""
    return queries.overview(read_choice(request.query_params))


def day_page(request: Request) -> Response:
    """A day."""
    day = read_day(request.path_params["day"])
    return render(request, "tokens/day.html", **queries.one_day(read_choice(request.query_params).on(day), day))


def group_page(request: Request) -> Response:
    """All groups of one field."""
    choice = read_choice(request.query_params)
    return render(request, "tokens/by.html", **queries.by_field(choice, _field(request, GROUPS)))


def lines_page(request: Request) -> Response:
    """Lines of the log."""
    query = request.query_params
    return render(request, "tokens/lines.html", **queries.lines(read_choice(query), _place(query.get("before"))))


def line_page(request: Request) -> Response:
    """One line of the log, with all that it says."""
    day = read_day(request.path_params["day"])
    index, progress = queries.current()
    found = find_line(index, day, min(request.path_params["at"], 1 << 62))
    if found is None:
        detail = (
            f"{day}: no line of the log begins at byte {request.path_params['at']} (any more); look for it by its day"
        )
        raise HTTPException(404, detail=detail)
    line, entry = found
    choice = Choice((day, day), "")
    return render(
        request,
        "tokens/line.html",
        **queries.frame(index, progress, choice, f"/{day}"),
        line=line,
        fields=[(text_of(name, most=100), text_of(value)) for name, value in entry.items()],
        entry=entry,
        attempts=queries.attempts(index, line),
    )


def progress_part(request: Request) -> Response:
    """How far the log is read, as a part of a page; when it is read to its end the page comes anew."""
    _, progress = queries.current()
    headers = {"HX-Refresh": "true"} if progress.is_complete else {}
    answer = render(request, "tokens/_progress.html", progress=progress)
    answer.headers.update(headers)
    return answer


def sums_csv(request: Request) -> Response:
    """A table of sums as CSV."""
    choice, name = read_choice(request.query_params), _field(request, _COLUMNS)
    index, _ = queries.current()
    return _csv(f"tokens-by-{name}", csv_export.sum_rows(sums(index, choice.where(), (name,))))


def lines_csv(request: Request) -> Response:
    """Lines of the log as CSV."""
    choice = read_choice(request.query_params)
    index, _ = queries.current()
    return _csv("tokens-lines", csv_export.line_rows(index, choice.where(), choice.wanted()))


def usage_api(request: Request) -> Response:
    """What was used on a day."""
    return JSONResponse(queries.usage_of_day(read_day(request.query_params.get("day", ""))))


def stats_api(request: Request) -> Response:
    """What each day of a month cost."""
    month = request.path_params["month"]
    if re.fullmatch(r"[0-9]{6}", month) is None or not 1 <= int(month[4:]) <= 12 or month < "000101":
        raise HTTPException(400, detail=f"month: found {month[:40]!r}, expected a month YYYYMM such as 202611")
    return JSONResponse(queries.costs_of_month(month))


def _field(request: Request, allowed: tuple[Field, ...]) -> Field:
    text = request.path_params["field"]
    for name in allowed:
        if name == text:
            return name
    raise HTTPException(404, detail=f"tokens by: found {text[:40]!r}, expected one of {', '.join(allowed)}")


def _place(text: str | None) -> tuple[int, int] | None:
    """A line's place, as links to older lines have it."""
    if not text:
        return None
    match = re.fullmatch(r"([0-9]{8})-([0-9]{1,18})", text)
    if match is None:
        raise HTTPException(400, detail=f"before: found {text[:40]!r}, expected a line's place such as 20261103-4096")
    return int(match[1]), int(match[2])


def _csv(name: str, rows: Iterator[str]) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{name}.csv"', "Cache-Control": "no-store"}
    return StreamingResponse(rows, media_type="text/csv; charset=utf-8", headers=headers)


ROUTES = [
    Route("/by/{field}", group_page),
    Route("/lines", lines_page),
    Route("/line/{day}/{at:int}", line_page),
    Route("/progress", progress_part),
    Route("/csv/lines", lines_csv),
    Route("/csv/{field}", sums_csv),
    Route("/api/usage", usage_api),
    Route("/api/stats/{month}", stats_api),
    Route("/{day}", day_page),
]
