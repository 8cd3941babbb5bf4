"""Pages out of templates: what every template is given, and `render`; it knows no app's content."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PrefixLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from apps.host import static_files
from apps.host.discovery import App
from apps.host.formatting import FILTERS
from apps.host.waiting import LOOK
from muse.journal import paths

HOST = Path(__file__).resolve().parent
STATIC = HOST / "static"
SCRIPTS = ("htmx.min.js", "chart.js")
"""What an installation copies out of its packages into static/vendor."""
CSRF_FIELD, CSRF_HEADER = "csrf_token", "X-CSRF-Token"


class Pages:
    """The templates of the host (by their names) and of every app (`<app>/<file>`)."""

    def __init__(self, apps: tuple[App, ...], *, asks_password: bool = False) -> None:
        self._asks_password = asks_password
        self.apps = {app.name: app for app in apps}
        by_name = {app.name: FileSystemLoader(app.folder) for app in apps}
        self._templates = Environment(
            loader=ChoiceLoader([FileSystemLoader(HOST / "templates"), PrefixLoader(by_name)]),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters.update(FILTERS)
        self._templates.globals.update(
            apps=apps,
            static_url=self._static_url,
            csrf_field=_csrf_field,
            htmx_config=_HTMX_CONFIG,
            most_prompt_chars=MOST_PROMPT_CHARS,
            waiting_runs=LOOK.waiting,
            journal_folder=paths.journal_path,
            missing_scripts=[name for name in SCRIPTS if not (STATIC / "vendor" / name).is_file()],
        )
        self._templates.globals["parts"] = self._templates.get_template("_parts.html").module

    def _static_url(self, name: str) -> str:
        """The address of a host's file (`host.css`) or of an app's (`tokens/tokens.css`)."""
        app_name, _, file = name.partition("/")
        app = self.apps.get(app_name)
        if app is None or not file or (STATIC / app_name).is_dir():  # an app may be called as a folder of ours
            return static_files.address("/static", STATIC, name)
        return static_files.address(f"/app/{app_name}/static", app.folder / "static", file)

    def text(self, request: Request, template: str, context: Mapping[str, Any]) -> str:
        """A template filled in; `here` in it is the app that the address belongs to, None outside of any."""
        signed_in = bool(request.scope.get("signed_in"))
        given = {
            "request": request,
            "here": self.apps.get(app_name(request.url.path)),
            "csrf_token": csrf_token(request),
            "signed_in": signed_in,
            "may_enter": signed_in or not (self._asks_password or request.scope.get("turned_away")),
        }
        return self._templates.get_template(template).render({**given, **context})


def render(request: Request, template: str, status: int = 200, **context: Any) -> Response:
    """A page, or a part of one, as an answer: `render(request, "tokens/day.html", day=day)`."""
    pages: Pages = request.app.state.pages
    text = pages.text(request, template, context).encode("utf-8", errors="replace")  # a lone surrogate has no bytes
    return HTMLResponse(text, status, headers={"Cache-Control": "no-store"})


def app_name(path: str) -> str:
    """The app that an address belongs to; empty if to none.

    >>> app_name("/app/tokens/20261103"), app_name("/static/host.css")
    ('tokens', '')
    """
    parts = path.split("/", 3)
    return parts[2] if len(parts) > 2 and parts[1] == "app" else ""


def own_path(wanted: object, otherwise: str = "/") -> str:
    """A path of this server to lead on to; `otherwise` for anything that would lead elsewhere.

    >>> own_path("/app/tokens/?day=1"), own_path("//elsewhere.example"), own_path("https://elsewhere.example")
    ('/app/tokens/?day=1', '/', '/')
    """
    if not isinstance(wanted, str) or not wanted.isprintable() or "\\" in wanted:
        return otherwise
    return wanted if wanted.startswith("/") and not wanted.startswith("//") else otherwise


def here(request: Request) -> str:
    """Where a request went, as a path of this server."""
    return request.url.path + (f"?{request.url.query}" if request.url.query else "")


def came_from(request: Request, otherwise: str = "/") -> str:
    """The page of this server that a request was sent from; `otherwise` if it does not say, or was another's."""
    try:
        said = urlsplit(request.headers.get("Referer", ""))
    except ValueError:  # no address at all
        return otherwise
    if said.netloc != request.url.netloc:
        return otherwise
    return own_path(said.path + (f"?{said.query}" if said.query else ""), otherwise)


def csrf_token(request: Request) -> str:
    """The token that proves a request comes from one of our pages; empty where no session is open."""
    session = request.scope.get("session")
    if session is None:
        return ""
    token = session.get("csrf")
    if not isinstance(token, str):
        token = session["csrf"] = secrets.token_urlsafe(32)
    return token


@pass_context
def _csrf_field(context: Context) -> Markup:
    return Markup('<input type="hidden" name="{}" value="{}">').format(CSRF_FIELD, context["csrf_token"])


# What htmx must not do under our Content-Security-Policy, and no copies of pages in the browser's storage.
MOST_PROMPT_CHARS = 100_000
"""How long a question to a model may be that is typed into a page."""

_HTMX_CONFIG = json.dumps(
    {
        "includeIndicatorStyles": False,
        "allowEval": False,
        "allowScriptTags": False,
        "selfRequestsOnly": True,
        "attributesToSettle": ["class"],
        "historyCacheSize": 0,
        "refreshOnHistoryMiss": True,
    }
)
