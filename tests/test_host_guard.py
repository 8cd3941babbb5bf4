"""Shows what the host turns away before any app sees it: foreign names and pages, missing tokens, large bodies."""

from __future__ import annotations

import asyncio
import errno
import io
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send

from apps.host.app_factory import Access, make_site
from apps.host.discovery import App
from apps.host.security import middleware
from apps.host.uploads import read_images
from muse.errors import BudgetExceeded, ConfigError, ProviderDown
from muse.journal.config_loader import ConflictError
from tests.journal_folder import JournalFolder
from tests.pages import client

HOSTILE = "<script>alert(1)</script>"
OURS = "http://127.0.0.1:5005"


async def _echo(request: Request) -> Response:
    async with request.form() as form:
        return JSONResponse({"form": {name: str(value) for name, value in form.items()}, "method": request.method})


async def _length(request: Request) -> Response:
    return JSONResponse({"length": len(await request.body())})


async def _pictures(request: Request) -> Response:
    return JSONResponse([[file.name, file.media_type] for file in await read_images(request, "pictures", most_files=2)])


def _raise(request: Request) -> Response:
    errors: dict[str, Exception] = {
        "config": ConfigError("providers.default", HOSTILE, "a provider"),
        "conflict": ConflictError("changed on disk"),
        "provider": ProviderDown("does not answer", provider="openai"),
        "limit": BudgetExceeded("spent"),
        "missing": FileNotFoundError("no run of that name"),
        "refused": HTTPException(422, detail=f"name: found {HOSTILE}, expected a word"),
        "nowhere": FileNotFoundError(errno.ENOENT, "No such file", "/srv/secret place/run.jsonl"),
        "unwritable": PermissionError(errno.EACCES, "Permission denied", "/srv/secret place/index"),
        "full": OSError(errno.ENOSPC, "No space left on device"),
        "timeout": TimeoutError("a secret of the inside"),
        "unknown": RuntimeError("a secret of the inside"),
    }
    raise errors[request.path_params["kind"]]


def _stream(request: Request) -> Response:
    def chunks() -> Iterator[str]:
        yield "data: first\n\n"
        raise RuntimeError("half way")

    return StreamingResponse(chunks(), media_type="text/event-stream")


def _site(folder: Path, access: Access | None = None) -> Starlette:
    (folder / "workspace.html").write_text('{% extends "page.html" %}{% block main %}<h1>Try</h1>{% endblock %}')
    routes = (
        Route("/api/echo", _echo, methods=["POST", "GET", "PUT", "DELETE"]),
        Route("/api/length", _length, methods=["POST"]),
        Route("/api/pictures", _pictures, methods=["POST"]),
        Route("/api/raise/{kind}", _raise),
        Route("/raise/{kind}", _raise),
        Route("/stream", _stream),
    )
    app = App("try", folder, "Try", routes=routes, most_body_bytes=300_000)
    return make_site(access, apps=(app,))


@pytest.fixture(name="pages")
def _pages(journal: JournalFolder, tmp_path: Path) -> TestClient:
    return client(journal, site=_site(tmp_path))


# --- names and origins


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "127.0.0.1.evil.example", "", "10.0.0.1:5005", "[::1", "a@localhost.b"),
        *("a@localhost", "localhost/x", "localhost?x", "localhost#x", "localhost:x", "localhost.", "127.1", ":5005"),
    ],
)
def test_a_foreign_name_is_turned_away(pages: TestClient, host: str) -> None:
    answer = pages.get("/", headers={"Host": host})
    assert answer.status_code == 400
    assert "Host: found" in answer.text


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:5005", "127.0.0.1:80", "[::1]:5005"])
def test_a_name_of_this_machine_is_served_at_any_port(pages: TestClient, host: str) -> None:
    assert pages.get("/", headers={"Host": host}).status_code == 200


def test_a_server_on_all_addresses_takes_addresses_and_no_unknown_name(journal: JournalFolder, tmp_path: Path) -> None:
    site = _site(tmp_path, Access(frozenset({"muse.example"}), any_address=True))
    pages = TestClient(site, base_url="http://192.168.1.7:5005")
    assert pages.get("/").status_code == 200
    assert pages.get("/", headers={"Host": "muse.example"}).status_code == 200
    assert pages.get("/", headers={"Host": "rebound.example"}).status_code == 400


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:1", "http://localhost:5005", "", OURS + "/x"]
)
def test_another_page_cannot_send_requests_here(pages: TestClient, origin: str) -> None:
    assert pages.post("/app/try/api/echo", headers={"Origin": origin}).status_code == 403


def test_our_own_page_can(pages: TestClient) -> None:
    sent = {"Origin": "http://127.0.0.1:5005", "Sec-Fetch-Site": "same-origin"}
    assert pages.post("/app/try/api/echo", headers=sent).status_code == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_what_another_page_embeds_is_turned_away(pages: TestClient, site: str) -> None:
    sent = {"Sec-Fetch-Site": site, "Sec-Fetch-Dest": "image"}
    assert pages.get("/app/try/api/echo", headers=sent).status_code == 403
    assert pages.post("/app/try/api/echo", headers={**sent, "Sec-Fetch-Dest": "document"}).status_code == 403


def test_a_link_from_another_page_opens_no_session_of_its_own(pages: TestClient) -> None:
    pages.cookies.clear()
    answer = pages.get("/", headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document"})
    assert answer.status_code == 200
    assert 'http-equiv="refresh"' in answer.text
    assert "set-cookie" not in answer.headers


def test_what_leads_on_within_this_server_names_no_scheme(pages: TestClient) -> None:
    led = pages.get("/app/try/stream/?day=1", follow_redirects=False)
    assert (led.status_code, led.headers["Location"]) == (307, "/app/try/stream?day=1")


# --- tokens


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_what_changes_something_needs_the_token(pages: TestClient, method: str) -> None:
    token = pages.headers.pop("X-CSRF-Token")
    assert pages.request(method, "/app/try/api/echo").status_code == 403
    assert pages.request(method, "/app/try/api/echo", headers={"X-CSRF-Token": "x" + token}).status_code == 403
    assert pages.request(method, "/app/try/api/echo", headers={"X-CSRF-Token": token}).json()["method"] == method


def test_a_token_of_another_session_is_none(pages: TestClient) -> None:
    pages.cookies.clear()
    assert pages.post("/app/try/api/echo").status_code == 403


@pytest.mark.parametrize("files", [None, {"file": ("a.txt", b"abc")}], ids=["urlencoded", "multipart"])
def test_a_form_may_bear_the_token_in_a_field(pages: TestClient, files: dict[str, tuple[str, bytes]] | None) -> None:
    token = pages.headers.pop("X-CSRF-Token")
    sent = {"csrf_token": token, "name": "Zoë"}
    assert pages.post("/app/try/api/echo", data=sent, files=files).json()["form"]["name"] == "Zoë"
    assert pages.post("/app/try/api/echo", data={**sent, "csrf_token": "no"}, files=files).status_code == 403


def test_a_forged_session_is_an_empty_one(pages: TestClient) -> None:
    name = next(iter(pages.cookies))
    pages.cookies.clear()
    pages.cookies.set(name, "eyJjc3JmIjogIngifQ==.aaaaaa.bbbbbbbbbbbbbbbbbbbbbbbbbbb")
    assert pages.post("/app/try/api/echo", headers={"X-CSRF-Token": "x"}).status_code == 403


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(journal: JournalFolder, tmp_path: Path) -> None:
    cookie = TestClient(_site(tmp_path), base_url="http://127.0.0.1").get("/").headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "max-age=" in cookie


# --- bodies


def test_a_body_beyond_the_bound_is_turned_away_by_its_length(pages: TestClient) -> None:
    assert pages.post("/app/try/api/length", content=b"x" * 300_000).json() == {"length": 300_000}
    answer = pages.post("/app/try/api/length", content=b"x" * 300_001)
    assert (answer.status_code, answer.json()) == (413, {"error": answer.json()["error"]})
    assert "300,000 bytes" in answer.json()["error"]


def test_a_body_without_a_length_is_counted_as_it_comes(pages: TestClient) -> None:
    sent = 0

    def chunks() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 1
            yield b"x" * 100_000

    assert pages.post("/app/try/api/length", content=chunks()).status_code == 413


@pytest.mark.parametrize("length", ["-1", "²", "9" * 6000, "1e3"])
def test_a_false_length_is_turned_away(pages: TestClient, length: str) -> None:
    sent = {b"Content-Length": length.encode("latin-1")}
    assert pages.post("/app/try/api/length", content=b"x", headers=sent).status_code == 413


async def _send_nothing(message: Message) -> None:
    """For what answers nobody."""
    raise AssertionError(message)


def test_a_body_that_does_not_come_is_not_waited_for(pages: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "_PATIENCE_S", 0.05)

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError("nothing comes")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()

    bound = middleware.BodyBound(app, len)
    scope: Scope = {"type": "http", "path": "/", "headers": []}
    with pytest.raises(HTTPException) as caught:
        asyncio.run(asyncio.wait_for(bound(scope, receive, _send_nothing), 20))
    assert caught.value.status_code == 408


def test_a_stream_is_not_held_to_the_time_for_a_body(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "_PATIENCE_S", 0.0)
    gone = asyncio.Event()

    async def receive() -> Message:
        if not gone.is_set():
            gone.set()
            return {"type": "http.request", "body": b""}
        await asyncio.sleep(0)
        return {"type": "http.disconnect"}

    seen = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend([await receive(), await receive()])

    asyncio.run(middleware.BodyBound(app, len)({"type": "http", "path": "/", "headers": []}, receive, _send_nothing))
    assert [message["type"] for message in seen] == ["http.request", "http.disconnect"]


@pytest.mark.parametrize("charset", ["undefined", "utf-7", "idna", "UTF-16"])
@pytest.mark.parametrize("kind", ["multipart/form-data; boundary=x", "application/x-www-form-urlencoded"])
def test_a_form_in_another_charset_is_turned_away(pages: TestClient, kind: str, charset: str) -> None:
    body = b"--x\r\nContent-Disposition: form-data; name=name\r\n\r\n+2AA-\r\n--x--\r\n"
    answer = pages.post("/app/try/api/echo", content=body, headers={"Content-Type": f"{kind}; charset={charset}"})
    assert (answer.status_code, "utf-8" in answer.json()["error"]) == (415, True)


def test_a_form_may_say_that_it_is_utf_8(pages: TestClient) -> None:
    sent = {"Content-Type": "application/x-www-form-urlencoded; charset=UTF-8"}
    assert pages.post("/app/try/api/echo", content="name=Zo%C3%AB", headers=sent).json()["form"] == {"name": "Zoë"}


# --- uploads


def _picture(kind: str, size: tuple[int, int] = (4, 3)) -> bytes:
    out = io.BytesIO()
    Image.new("1", size).convert("P" if kind == "GIF" else "RGB").save(out, kind)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_a_picture_is_known_by_its_content(pages: TestClient, kind: str) -> None:
    sent = [("pictures", ("../a.exe", _picture(kind), "text/html"))]
    assert pages.post("/app/try/api/pictures", files=sent).json() == [["a.exe", f"image/{kind.lower()}"]]


@pytest.mark.parametrize("data", [b"", b"<svg onload=alert(1)>", b"\x89PNG\r\n\x1a\n", b"GIF89a", _picture("BMP")])
def test_what_is_no_picture_is_turned_away(pages: TestClient, data: bytes) -> None:
    answer = pages.post("/app/try/api/pictures", files=[("pictures", ("a.png", data, "image/png"))])
    assert answer.status_code == 415
    assert answer.json()["error"].startswith("a.png: found")


def test_a_picture_with_odd_exif_data_is_a_picture(pages: TestClient) -> None:
    out = io.BytesIO()
    Image.new("RGB", (4, 3)).save(out, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x09\0\x12\1")
    sent = [("pictures", ("a.jpg", out.getvalue()))]
    assert pages.post("/app/try/api/pictures", files=sent).json() == [["a.jpg", "image/jpeg"]]


def test_a_picture_of_too_many_points_is_not_unpacked(pages: TestClient) -> None:
    out = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(out, "PNG")
    answer = pages.post("/app/try/api/pictures", files=[("pictures", ("bomb.png", out.getvalue()))])
    assert answer.status_code in {413, 415}
    assert "bomb.png: found" in answer.json()["error"]


def test_more_files_than_allowed_are_turned_away(pages: TestClient) -> None:
    sent = [("pictures", (f"{number}.png", _picture("PNG"))) for number in range(3)]
    assert pages.post("/app/try/api/pictures", files=sent).status_code == 400


# --- errors


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        *(("config", 400), ("conflict", 409), ("provider", 502), ("limit", 429), ("missing", 404), ("refused", 422)),
        *(("nowhere", 404), ("unwritable", 503), ("full", 503)),
    ],
)
def test_a_known_error_is_told_in_its_own_words(pages: TestClient, kind: str, status: int) -> None:
    told = pages.get(f"/app/try/api/raise/{kind}")
    page = pages.get(f"/app/try/raise/{kind}", headers={"Accept": "text/html"})
    part = pages.get(f"/app/try/raise/{kind}", headers={"HX-Request": "true", "Accept": "text/html"})
    assert (told.status_code, page.status_code, part.status_code) == (status, status, status)
    assert ("path" in told.json()) == (kind == "config")
    assert "<main" in page.text
    assert "<main" not in part.text
    assert 'role="alert"' in part.text
    assert HOSTILE not in page.text + part.text
    assert "secret place" not in page.text + part.text + told.text


def test_a_journal_that_cannot_be_written_is_said_with_what_to_do(
    pages: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    told = pages.get("/app/try/api/raise/unwritable").json()["error"]
    assert told.startswith("index: Permission denied. See that the journal can be written to")
    assert "/srv/secret place/index" in caplog.text


@pytest.mark.parametrize("kind", ["unknown", "timeout"])
def test_an_unknown_error_stays_in_the_log(pages: TestClient, caplog: pytest.LogCaptureFixture, kind: str) -> None:
    with caplog.at_level(logging.ERROR):
        told, page = pages.get(f"/app/try/api/raise/{kind}"), pages.get(f"/app/try/raise/{kind}")
    assert (told.status_code, page.status_code) == (500, 500)
    assert "secret" not in told.text + page.text
    assert "a secret of the inside" in caplog.text
    assert page.headers["Content-Security-Policy"].startswith("default-src 'self'")


def test_a_stream_that_breaks_off_is_no_second_answer(pages: TestClient) -> None:
    with pytest.raises(RuntimeError, match="half way"):
        pages.get("/app/try/stream")


def test_every_answer_has_the_headers(pages: TestClient) -> None:
    answers = [
        pages.get("/"),
        pages.get("/none"),
        pages.get("/static/host.css"),
        pages.get("/", headers={"Host": "evil.example"}),
        pages.post("/app/try/api/length", content=b"x" * 400_000),
    ]
    for answer in answers:
        assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
