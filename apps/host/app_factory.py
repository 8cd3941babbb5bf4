"""The site: every app at its address, behind what guards them; it knows no socket and no command line."""

from __future__ import annotations

import hashlib
import inspect
import logging
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

from msgspec import Struct
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from apps.host.discovery import MOST_BODY_BYTES, WORKSPACE, App, find_apps
from apps.host.error_pages import HANDLERS, Refuge, answer
from apps.host.runs.endpoints import answerer
from apps.host.security import auth
from apps.host.security.middleware import LOOPBACK_NAMES, BodyBound, Csrf, Guard
from apps.host.security.password import SESSION_S, SignIns, Tries, session_key
from apps.host.static_files import Files
from apps.host.templating import STATIC, Pages, app_name, render
from muse.errors import ConfigError
from muse.journal import config_loader

log = logging.getLogger(__name__)

_GZIP_FROM_BYTES, _GZIP_LEVEL = 1_000, 5


class Access(Struct, frozen=True):
    """Who may come: the `hosts` by which the server is known, and whether a password is asked.

    `any_address` takes every IP address for a name of this server: for one that listens on all of them.
    """

    hosts: frozenset[str] = LOOPBACK_NAMES
    any_address: bool = False
    password: bool = False


def make_site(access: Access | None = None, *, apps: tuple[App, ...] | None = None) -> Starlette:
    """The site with every app there is, or with these; the journal is the one in force at each request."""
    apps = find_apps() if apps is None else apps
    access = access or Access()
    sign_ins = SignIns()
    routes: list[BaseRoute] = [
        Route("/", _start),
        Route("/favicon.ico", _icon),
        Route("/waiting", _waiting),
        Mount("/static", Files(directory=STATIC)),
    ]
    if access.password:
        routes += auth.routes(sign_ins, Tries())
    routes += [route for app in apps for route in _routes(app)]
    site = Starlette(
        routes=routes,
        middleware=_middleware(access, {app.name: app.most_body_bytes for app in apps}, sign_ins),
        exception_handlers=HANDLERS,
        lifespan=_lifespan,
    )
    site.state.pages = Pages(apps, asks_password=access.password)
    return site


def _middleware(access: Access, most_bytes: Mapping[str, int], sign_ins: SignIns) -> list[Middleware]:
    """What every request passes, from the outermost; all of it lets streams through as they come."""
    key = session_key()
    cookie = f"muse_{hashlib.sha256(key.encode()).hexdigest()[:8]}"  # browsers share cookies between ports
    lock = [Middleware(auth.Lock, sign_ins=sign_ins)] if access.password else []
    return [
        Middleware(Guard, hosts=access.hosts, any_address=access.any_address),
        Middleware(Refuge),
        Middleware(GZipMiddleware, minimum_size=_GZIP_FROM_BYTES, compresslevel=_GZIP_LEVEL),
        Middleware(BodyBound, most_bytes=lambda path: _most_bytes(path, most_bytes)),
        Middleware(SessionMiddleware, secret_key=key, session_cookie=cookie, max_age=SESSION_S, same_site="strict"),
        *lock,
        Middleware(Csrf),
    ]


def _most_bytes(path: str, of_apps: Mapping[str, int]) -> int:
    """How large the body of a request to this address may be."""
    return auth.MOST_BODY_BYTES if path == auth.LOGIN else of_apps.get(app_name(path), MOST_BODY_BYTES)


def _routes(app: App) -> list[BaseRoute]:
    """An app under `/app/<name>`; a broken one has only the page that says why."""
    base = f"/app/{app.name}"
    door = Route(base, _add_slash)
    if app.problem:
        return [door, Mount(base, routes=[Route("/{path:path}", _broken(app))])]
    inner: list[BaseRoute] = []
    folder = app.folder / "static"
    if folder.is_dir():
        inner.append(Mount("/static", Files(directory=folder)))
    return [door, Mount(base, routes=[*inner, Route("/", _workspace(app)), *app.routes])]


def _add_slash(request: Request) -> Response:
    """Lead on to the app, by its path alone: whoever stands before this server knows its name and scheme."""
    query = f"?{request.url.query}" if request.url.query else ""
    return RedirectResponse(f"{request.url.path}/{query}", 307)


def _workspace(app: App) -> Any:
    """The endpoint of an app's first page; what blocks in its `workspace` does so in a thread."""
    template = f"{app.name}/{WORKSPACE}"

    async def show(request: Request) -> Response:
        if app.workspace is not None and inspect.iscoroutinefunction(app.workspace):
            return render(request, template, **await app.workspace(request))
        return await run_in_threadpool(_show_at_once, request)

    def _show_at_once(request: Request) -> Response:
        return render(request, template, **(app.workspace(request) if app.workspace else {}))

    return show


def _broken(app: App) -> Any:
    async def show(request: Request) -> Response:
        return answer(request, 503, f"{app.title} cannot be shown. {app.problem}. Mend {app.folder}, then start again.")

    return show


def _start(request: Request) -> Response:
    """The first page: every app, what is wrong with journal.json as a whole, and whether the default can answer."""
    try:
        config_loader.load()
    except ConfigError as exc:
        return render(request, "start.html", problem=str(exc), asks=None)
    return render(request, "start.html", problem="", asks=answerer(""))


def _waiting(request: Request) -> Response:
    """The part of the top bar that says how many runs wait for approval."""
    return render(request, "_waiting.html")


async def _icon(request: Request) -> Response:  # noqa: ARG001  an endpoint gets its request
    """The icon at the place where browsers look that were not told of another."""
    return FileResponse(STATIC / "icon.svg")


@asynccontextmanager
async def _lifespan(site: Starlette) -> AsyncIterator[None]:
    """Warm the apps up beside the first requests, and keep open what they hold as long as the site is up."""
    pages: Pages = site.state.pages
    for app in pages.apps.values():
        if app.warm is not None:
            threading.Thread(target=_warm, args=(app,), name=f"warm-{app.name}", daemon=True).start()
    async with AsyncExitStack() as held:
        for app in pages.apps.values():
            if app.lifespan is not None:
                await _hold_open(app.name, app.lifespan(), held)
        yield


async def _hold_open(name: str, context: AbstractAsyncContextManager[None], held: AsyncExitStack) -> None:
    try:
        await held.enter_async_context(context)
    except Exception:
        log.exception("app %s: its lifespan cannot begin; the other apps work", name)


def _warm(app: App) -> None:
    try:
        if app.warm is not None:
            app.warm()
    except Exception:
        log.exception("app %s: warming up failed; its first page takes longer", app.name)
