"""Shows the password's way: kept as a hash, asked for at the gate, slow to guess, and its sessions ended for good."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sse_starlette import EventSourceResponse
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.types import Message

from apps.host.app_factory import Access, make_site
from apps.host.discovery import App
from apps.host.security import password as password_module
from apps.host.security.auth import Lock
from apps.host.security.password import SignIns, Tries, is_right, kept_hash, password_path, session_key, set_password
from muse.errors import ConfigError
from tests.journal_folder import JournalFolder
from tests.pages import token_of

PASSWORD = "four plain words here"


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture(name="locked")
def _locked(journal: JournalFolder) -> TestClient:
    """A site that asks for the password."""
    set_password(PASSWORD)
    return TestClient(make_site(Access(password=True)), base_url="http://127.0.0.1", follow_redirects=False)


def _sign_in(pages: TestClient, password: str = PASSWORD, wanted: str = "/") -> int:
    page = pages.get("/login", params={"next": wanted})
    sent = {"csrf_token": token_of(page.text), "password": password, "next": wanted}
    answer = pages.post("/login", data=sent)
    pages.headers["X-Went-To"] = answer.headers.get("Location", "")
    return answer.status_code


# --- what is kept


def test_only_a_hash_is_kept_and_only_for_its_owner(journal: JournalFolder) -> None:
    path = set_password(PASSWORD)
    assert path == password_path()
    assert path.stat().st_mode & 0o777 == 0o600
    assert PASSWORD not in path.read_text()
    assert kept_hash().startswith("$argon2id$")
    assert is_right(PASSWORD)
    assert not is_right(PASSWORD + " ")


@pytest.mark.parametrize("password", ["", "short", "x" * 1001])
def test_a_password_that_is_easy_to_guess_or_endless_is_refused(journal: JournalFolder, password: str) -> None:
    set_password(PASSWORD)
    with pytest.raises(ConfigError, match="password: found"):
        set_password(password)
    assert is_right(PASSWORD)


def test_without_a_password_nothing_is_right(journal: JournalFolder) -> None:
    assert not is_right("")


def test_a_spoilt_hash_opens_nothing_and_says_where_it_is(journal: JournalFolder) -> None:
    set_password(PASSWORD).write_text("spoilt")
    with pytest.raises(ConfigError, match="set-password"):
        is_right(PASSWORD)


def test_the_key_of_the_cookies_is_made_once_and_only_for_its_owner(journal: JournalFolder) -> None:
    key = session_key()
    path = journal.path / "config" / "session.key"
    assert session_key() == key == path.read_text().strip()
    assert len(key) >= 48
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text("short")
    assert len(session_key()) >= 48


def test_where_nothing_can_be_kept_the_key_holds_for_this_process(
    journal: JournalFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("JOURNAL_PATH", str(tmp_path / "file"))
    assert session_key() != session_key()
    assert "after a restart" in caplog.text


def test_bytes_that_are_no_text_are_no_password(journal: JournalFolder) -> None:
    with pytest.raises(ConfigError, match="UTF-8"):
        set_password("\udcff" * 12)
    assert kept_hash() == ""


# --- the gate


@pytest.mark.parametrize("path", ["/", "/app/tokens/", "/app/none/x?y=1"])
def test_a_page_leads_to_the_gate_and_back(locked: TestClient, path: str) -> None:
    answer = locked.get(path)
    assert answer.status_code == 303
    assert answer.headers["Location"].startswith("/login?next=/")
    shown = locked.get(answer.headers["Location"])
    assert f'name="next" value="{path}"' in shown.text
    assert "/app/" not in shown.text.replace(f'value="{path}"', "")


def test_programs_and_fragments_are_told_to_sign_in(locked: TestClient) -> None:
    told = locked.get("/app/tokens/api/usage")
    assert (told.status_code, told.json()) == (401, {"error": "Sign in first, at /login."})
    part = locked.get("/app/tokens/", headers={"HX-Request": "true", "Accept": "text/html"})
    assert (part.status_code, part.headers["HX-Redirect"]) == (401, "/login")


def test_with_the_password_everything_opens_and_a_new_session_begins(locked: TestClient) -> None:
    before = token_of(locked.get("/login").text)
    assert _sign_in(locked, wanted="/static/host.css?v=1") == 303
    assert locked.headers["X-Went-To"] == "/static/host.css?v=1"
    page = locked.get("/")
    assert page.status_code == 200
    assert token_of(page.text) != before
    assert "Sign out" in page.text


@pytest.mark.parametrize("wanted", ["//evil.example", "https://evil.example", "/\\evil.example", "evil", "/login", ""])
def test_nobody_is_led_elsewhere(locked: TestClient, wanted: str) -> None:
    assert _sign_in(locked, wanted=wanted) == 303
    assert locked.headers["X-Went-To"] == "/"


def test_signing_out_ends_the_session_also_for_who_kept_its_cookie(locked: TestClient) -> None:
    _sign_in(locked)
    stolen = dict(locked.cookies)
    token = token_of(locked.get("/").text)
    assert locked.post("/logout", data={"csrf_token": token}).status_code == 303
    assert locked.get("/").status_code == 303
    locked.cookies.clear()
    for name, value in stolen.items():
        locked.cookies.set(name, value)
    assert locked.get("/").status_code == 303


def test_a_new_password_ends_every_session(locked: TestClient) -> None:
    _sign_in(locked)
    assert locked.get("/").status_code == 200
    set_password("another four plain words")
    assert locked.get("/").status_code == 303


def test_a_wrong_password_says_nothing_more(locked: TestClient) -> None:
    assert _sign_in(locked, "wrong") == 403
    assert locked.get("/").status_code == 303


def test_the_gate_needs_the_token_too(locked: TestClient) -> None:
    assert locked.post("/login", data={"password": PASSWORD}).status_code == 403
    assert locked.get("/").status_code == 303


@pytest.mark.parametrize("content", [b"spoilt", b"\xff\xfe"])
def test_a_spoilt_hash_keeps_the_gate_shut_and_tells_strangers_nothing(
    locked: TestClient, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    token = token_of(locked.get("/login").text)
    password_path().write_bytes(content)
    answers = [
        locked.get("/"),
        locked.get("/login"),
        locked.post("/login", data={"csrf_token": token, "password": PASSWORD}),
    ]
    assert [answer.status_code for answer in answers] == [303, 200, 503]
    assert "config/password" not in "".join(answer.text for answer in answers)
    assert str(password_path()) in caplog.text


def test_before_the_gate_only_small_requests_are_read(locked: TestClient) -> None:
    sent = {"csrf_token": token_of(locked.get("/login").text), "password": "\U0001f426" * 1000}
    assert locked.post("/login", data=sent).status_code == 403
    assert locked.post("/login", data={**sent, "next": "/" * 30_000}).status_code == 413


@pytest.mark.parametrize(("kind", "arrives"), [("events", False), ("rows", True)])
def test_a_stream_of_events_ends_with_its_session_and_any_other_answer_is_whole(
    journal: JournalFolder, tmp_path: Path, kind: str, arrives: bool
) -> None:
    set_password(PASSWORD)
    (tmp_path / "workspace.html").write_text("<h1>Ticks</h1>")
    closed = []

    async def ticks() -> AsyncIterator[str]:
        try:
            yield "one"
            set_password("another four plain words")
            yield "two"
        finally:
            closed.append(kind)

    async def stream(request: Request) -> Response:
        return EventSourceResponse(ticks()) if kind == "events" else StreamingResponse(ticks())

    app = App("ticks", tmp_path, "Ticks", routes=(Route("/stream", stream),))
    pages = TestClient(make_site(Access(password=True), apps=(app,)), base_url="http://127.0.0.1")
    _sign_in(pages)
    answer = pages.get("/app/ticks/stream")
    assert (answer.status_code, "one" in answer.text, "two" in answer.text) == (200, True, arrives)
    assert closed == [kind]


def test_a_script_that_is_under_way_when_one_signs_out_arrives_whole(journal: JournalFolder) -> None:
    set_password(PASSWORD)
    sign_ins = SignIns()
    sent: list[Message] = []

    async def receive() -> Message:
        return await asyncio.get_running_loop().create_future()  # the browser stays

    async def send(message: Message) -> None:
        sent.append(message)
        sign_ins.end(name)

    name = sign_ins.add(kept_hash())
    scope = {"type": "http", "method": "GET", "path": "/x.js", "headers": [], "session": {"signed_in": name}}
    path = journal.path / "x.js"
    path.write_bytes(b"a" * 300_000)  # several pieces
    asyncio.run(Lock(FileResponse(path), sign_ins)(scope, receive, send))
    assert sum(len(message.get("body", b"")) for message in sent) == 300_000


def test_guessing_is_slowed_down_and_the_right_password_has_to_wait_too(locked: TestClient) -> None:
    statuses = [_sign_in(locked, f"guess {number}") for number in range(6)]
    assert statuses == [403] * 5 + [429]
    answer = locked.post("/login", data={"csrf_token": token_of(locked.get("/login").text), "password": PASSWORD})
    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) >= 1
    assert re.search(r"wait \d+ s", answer.text)


def test_strangers_behind_a_proxy_cannot_lock_everybody_out_for_long(journal: JournalFolder) -> None:
    set_password(PASSWORD)
    pages = TestClient(
        make_site(Access(password=True)),
        base_url="http://127.0.0.1",
        follow_redirects=False,
        client=("127.0.0.1", 50_000),
    )
    assert [_sign_in(pages, f"guess {number}") for number in range(20)] == [403] * 20
    assert _sign_in(pages) == 303


@pytest.mark.parametrize(
    ("referer", "leads_to"),
    [
        ("http://127.0.0.1/app/todos/?state=all", "/login?next=/app/todos/%3Fstate%3Dall"),
        ("http://elsewhere.example/app/todos/", "/login?next=/"),
        ("http://[", "/login?next=/"),
        (None, "/login?next=/"),
    ],
)
def test_after_a_form_that_came_too_late_one_comes_back_to_its_page(
    locked: TestClient, referer: str | None, leads_to: str
) -> None:
    sent = {"csrf_token": token_of(locked.get("/login").text)}
    headers = {"Referer": referer} if referer else {}
    answer = locked.post("/app/todos/add", data=sent, headers=headers)
    assert (answer.status_code, answer.headers["Location"]) == (303, leads_to)


# --- counting


def test_each_failure_doubles_the_wait_up_to_a_limit() -> None:
    clock = Clock()
    tries = Tries(clock)
    waits = []
    for _ in range(20):
        assert tries.begin("a") == 0
        waits.append(tries._wait_s("a"))
        clock.now_s += waits[-1]
    assert waits[:7] == [0, 0, 0, 0, 2, 4, 8]
    assert max(waits) == 900
    assert tries.begin("b") == 0
    tries.passed("a")
    assert [tries.begin("a") for _ in range(5)] == [0] * 5


def test_many_tries_at_once_are_no_way_around_the_wait() -> None:
    tries = Tries(Clock())
    assert [tries.begin("a") > 0 for _ in range(8)] == [False] * 5 + [True] * 3


def test_a_try_that_must_wait_makes_the_wait_no_longer() -> None:
    tries = Tries(Clock())
    for _ in range(5):
        tries.begin("a")
    assert [tries.begin("a") for _ in range(10)] == [2.0] * 10


def test_guesses_from_many_addresses_slow_down_all() -> None:
    clock = Clock()
    tries = Tries(clock)
    for number in range(31):
        tries.begin(f"10.0.0.{number}")
    assert 0 < tries.begin("192.168.0.1") <= 60
    clock.now_s += 4000
    assert tries.begin("192.168.0.1") == 0
    assert tries.begin("192.168.0.2") == 0


def test_signing_in_again_and_again_slows_down_nobody() -> None:
    tries = Tries(Clock())
    for number in range(100):
        assert tries.begin(f"10.0.0.{number}") == 0
        tries.passed(f"10.0.0.{number}")


def test_what_is_remembered_of_guesses_is_bounded() -> None:
    clock = Clock()
    tries = Tries(clock)
    for number in range(password_module._KEPT_ADDRESSES + 50):
        tries.begin(str(number))
        clock.now_s += 61
    assert len(tries._by_address) == password_module._KEPT_ADDRESSES


def test_a_session_ends_with_its_time() -> None:
    clock = Clock()
    sign_ins = SignIns(clock)
    name = sign_ins.add("hash")
    assert sign_ins.holds(name, "hash")
    assert not sign_ins.holds(name, "another")
    assert not sign_ins.holds(None, "hash")
    assert not sign_ins.holds(name, "")
    clock.now_s += password_module.SESSION_S
    assert not sign_ins.holds(name, "hash")
