"""A client for the tests of pages: the site in this process, with the token of its session; it knows no browser."""

from __future__ import annotations

import re
from typing import Any

from starlette.applications import Starlette
from starlette.testclient import TestClient

from apps.host.app_factory import make_site
from tests.journal_folder import JournalFolder

_TOKEN = re.compile(r'<meta name="csrf-token" content="([^"]*)">')


def client(journal: JournalFolder, *, site: Starlette | None = None, **options: Any) -> TestClient:
    """A client of the site over `journal` (which `JOURNAL_PATH` names), whose requests bear the CSRF token.

    `site` is another site than that of every app there is; `options` are those of Starlette's TestClient.
    """
    assert journal.path.is_dir()
    found = TestClient(site or make_site(), base_url="http://127.0.0.1:5005", **options)
    found.headers["X-CSRF-Token"] = token_of(found.get("/").text)
    return found


def token_of(page: str) -> str:
    """The CSRF token in a page."""
    match = _TOKEN.search(page)
    assert match is not None, "the page has no CSRF token"
    return match[1]
