"""Shows how an app joins the site by standing there, what it may bring, and that a broken one stands alone."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from apps.host import app_factory as site_module
from apps.host import templating as page_module
from apps.host.app_factory import make_site
from apps.host.discovery import App, find_apps
from tests.journal_folder import JournalFolder
from tests.pages import client

PAGE = '{% extends "page.html" %}{% block main %}<h1>{{ word }}</h1>{% endblock %}'


def write_app(folder: Path, name: str, *, page: str = "<h1>{{ here.title }}</h1>", **files: str) -> Path:
    """An app below `folder`; `files` are its further files by name, with `__` for the dot."""
    app = folder / name
    app.mkdir(parents=True)
    (app / "workspace.html").write_text(page, encoding="utf-8")
    for file, text in files.items():
        (app / file.replace("__", ".")).write_text(text, encoding="utf-8")
    return app


def further(folder: Path) -> dict[str, App]:
    """The apps of a folder, without those of the house."""
    return {app.name: app for app in find_apps((folder,)) if app.folder.parent == folder}


@pytest.fixture(name="folder")
def _folder(journal: JournalFolder, tmp_path: Path) -> Path:
    """A folder of apps that the journal names."""
    journal.write({"descriptors": {"apps": [str(tmp_path / "more")]}})
    (tmp_path / "more").mkdir()
    return tmp_path / "more"


def test_a_folder_with_a_page_is_an_app(journal: JournalFolder, folder: Path) -> None:
    write_app(folder, "garden_plan")
    pages = client(journal)
    assert pages.get("/app/garden_plan/").text == "<h1>Garden Plan</h1>"
    led = pages.get("/app/garden_plan?day=1", follow_redirects=False)
    assert (led.status_code, led.headers["Location"]) == (307, "/app/garden_plan/?day=1")
    assert 'href="/app/garden_plan/"' in pages.get("/").text


@pytest.mark.parametrize("name", ["_draft", ".hidden", "with space", "ümlaut", "a%2fb"])
def test_other_names_are_no_apps(folder: Path, name: str) -> None:
    write_app(folder, name)
    (folder / "no_page").mkdir()
    assert further(folder) == {}


def test_a_card_says_title_order_and_icon(folder: Path) -> None:
    card = {"title": "Second", "order": 2, "description": "what for", "icon": "★"}
    write_app(folder, "b", app__json=json.dumps({"title": "First", "order": 1}))
    write_app(folder, "a", app__json=json.dumps(card))
    found = further(folder)
    assert list(found) == ["b", "a"]
    assert (found["a"].title, found["a"].description, found["a"].icon) == ("Second", "what for", "★")


def test_a_drawing_takes_the_place_of_the_icon(journal: JournalFolder, folder: Path) -> None:
    write_app(folder, "drawn", app__json='{"icon": "★"}', icon__svg="<svg><path d='M1 1h1'/></svg>")
    page = client(journal).get("/").text
    assert "<path d='M1 1h1'/>" in page
    assert "★" not in page


def test_a_later_folder_wins_a_name(tmp_path: Path, journal: JournalFolder) -> None:
    write_app(tmp_path / "one", "same", app__json='{"title": "One"}')
    write_app(tmp_path / "two", "same", app__json='{"title": "Two"}')
    found = [app for app in find_apps((tmp_path / "one", tmp_path / "two")) if app.name == "same"]
    assert [app.title for app in found] == ["Two"]


def test_routes_bring_addresses_and_the_words_of_the_page(journal: JournalFolder, folder: Path) -> None:
    code = (
        "from starlette.responses import JSONResponse\n"
        "from starlette.routing import Route\n"
        "def answer(request):\n    return JSONResponse({'n': int(request.path_params['n'])})\n"
        "def workspace(request):\n    return {'word': request.query_params.get('word', 'nothing')}\n"
        "ROUTES = [Route('/api/{n:int}', answer)]\n"
    )
    app = write_app(folder, "words", page=PAGE, routes__py=code)
    (app / "static").mkdir()
    (app / "static" / "words.js").write_text("export const word = 1;")
    pages = client(journal)
    assert pages.get("/app/words/api/7").json() == {"n": 7}
    assert "<h1>&lt;b&gt;</h1>" in pages.get("/app/words/?word=<b>").text
    assert pages.get("/app/words/static/words.js").text == "export const word = 1;"
    assert pages.get("/app/words/static/../routes.py").status_code == 404
    assert pages.get("/app/words/routes.py").status_code == 404


def test_a_workspace_may_be_asynchronous(journal: JournalFolder, folder: Path) -> None:
    write_app(folder, "later", page=PAGE, routes__py="async def workspace(request):\n    return {'word': 'later'}\n")
    assert "<h1>later</h1>" in client(journal).get("/app/later/").text


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"app__json": "{"}, "app.json"),
        ({"app__json": '{"order": "first"}'}, "order"),
        ({"app__json": '{"titel": "x"}'}, "titel"),
        ({"app__json": "[]"}, "app.json"),
        ({"icon__svg": "<script>"}, "icon.svg"),
        ({"routes__py": "import nowhere_to_be_found"}, "nowhere_to_be_found"),
        ({"routes__py": "def ("}, "SyntaxError"),
        ({"routes__py": "1 / 0"}, "ZeroDivisionError"),
        ({"routes__py": "import sys; sys.exit('no key')"}, "no key"),
        ({"routes__py": "ROUTES = ['/x']"}, "ROUTES"),
        ({"routes__py": "workspace = 3"}, "workspace"),
        ({"routes__py": "MOST_BODY_BYTES = '1 MB'"}, "MOST_BODY_BYTES"),
    ],
)
def test_a_broken_app_says_why_and_the_others_work(
    journal: JournalFolder, folder: Path, files: dict[str, str], reason: str
) -> None:
    write_app(folder, "broken", **files)
    write_app(folder, "sound")
    pages = client(journal)
    answer = pages.get("/app/broken/")
    assert answer.status_code == 503
    assert reason in answer.text
    assert "broken" in pages.get("/").text
    assert pages.get("/app/sound/").status_code == 200


def test_a_page_that_breaks_while_it_is_filled_in_is_one_error(journal: JournalFolder, folder: Path) -> None:
    write_app(folder, "gap", page=PAGE)
    answer = client(journal).get("/app/gap/")
    assert answer.status_code == 500
    assert "Traceback" not in answer.text


def test_a_broken_journal_leaves_the_pages_open(journal: JournalFolder) -> None:
    journal.write("{")
    answer = client(journal).get("/")
    assert answer.status_code == 200
    assert "journal.json" in answer.text


def test_an_app_is_warmed_up_beside_the_first_requests(
    journal: JournalFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    warmed, failed = threading.Event(), threading.Event()

    def fail() -> None:
        failed.set()
        raise RuntimeError("no index")

    folders = [write_app(tmp_path / "more", name) for name in ("one", "two")]
    apps = (App("one", folders[0], "One", warm=warmed.set), App("two", folders[1], "Two", warm=fail))
    with TestClient(make_site(apps=apps), base_url="http://localhost"):
        assert warmed.wait(180)
        assert failed.wait(180)
        for thread in threading.enumerate():
            if thread.name.startswith("warm-"):
                thread.join(180)
    assert "app two: warming up failed" in caplog.text
    assert site_module.log.name in {record.name for record in caplog.records}


LIFESPAN = """
from contextlib import asynccontextmanager

@asynccontextmanager
async def lifespan():
    {first}
    yield
"""


def test_an_app_that_cannot_begin_stands_alone(
    journal: JournalFolder, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_app(folder, "lame", routes__py=LIFESPAN.format(first="raise RuntimeError('no index')"))
    write_app(folder, "sound", routes__py=LIFESPAN.format(first=f"open({str(folder / 'begun')!r}, 'x').close()"))
    with TestClient(make_site(apps=tuple(further(folder).values())), base_url="http://localhost") as pages:
        assert pages.get("/app/sound/").status_code == pages.get("/app/lame/").status_code == 200
        assert (folder / "begun").exists()
    assert "app lame: its lifespan cannot begin" in caplog.text


# --- static files


def test_a_file_asked_for_by_its_hash_is_kept_for_good(journal: JournalFolder) -> None:
    pages = client(journal)
    address = pages.get("/").text.partition('rel="stylesheet" href="')[2].partition('"')[0]
    kept, asked = pages.get(address), pages.get("/static/host.css")
    assert "immutable" in kept.headers["Cache-Control"]
    assert asked.headers["Cache-Control"] == "no-cache"
    assert pages.get("/static/host.css?v=old").headers["Cache-Control"] == "no-cache"
    again = pages.get("/static/host.css", headers={"If-None-Match": asked.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert asked.headers["Content-Encoding"] == "gzip"


def test_an_app_called_as_a_folder_of_the_host_does_not_take_its_files(
    journal: JournalFolder, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_module, "STATIC", tmp_path / "static")
    (tmp_path / "static" / "vendor").mkdir(parents=True)
    (tmp_path / "static" / "vendor" / "htmx.min.js").touch()
    write_app(folder, "vendor")
    assert 'src="/static/vendor/htmx.min.js' in client(journal).get("/").text


@pytest.mark.parametrize("path", ["../site.py", "%2e%2e/site.py", "..%2fsite.py", "vendor", "", "host.css%00"])
def test_nothing_beside_the_static_folder_is_served(journal: JournalFolder, path: str) -> None:
    assert client(journal).get(f"/static/{path}").status_code in {404, 400}


def test_the_start_page_offers_to_save_a_key_only_where_a_key_is_missing(journal: JournalFolder) -> None:
    journal.route(default={"provider": "google"})
    assert "Save a key" in client(journal).get("/").text
    journal.route(default={"provider": "azure"})  # it has a model at no tier
    page = client(journal).get("/").text
    assert "Open the settings" in page
    assert "Save a key" not in page
