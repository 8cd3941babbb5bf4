"""Which apps there are: folders with a `workspace.html`; it knows no page and no request."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
from markupsafe import Markup
from msgspec import Struct
from msgspec.structs import replace
from starlette.requests import Request
from starlette.routing import BaseRoute

from muse.agent_loop.module_loader import code_claim, module_of
from muse.errors import ConfigError
from muse.journal import config_loader
from muse.journal.trust.consent import TrustError, is_trusted

log = logging.getLogger(__name__)

WORKSPACE, ICON = "workspace.html", "icon.svg"
HOUSE = Path(__file__).resolve().parent.parent
MOST_BODY_BYTES = 1_000_000

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


class App(Struct, frozen=True):
    """One app: what its folder and its `app.json` say, and what its `routes.py` brings.

    `drawing` is its `icon.svg`, which is shown in place of `icon`. `problem` is empty, or why the app cannot be used;
    `most_body_bytes` bounds what one request may send to it. `is_withheld` says that its code needs the user's consent.
    """

    name: str
    folder: Path
    title: str
    order: int = 100
    description: str = ""
    icon: str = ""
    drawing: Markup = Markup()
    problem: str = ""
    routes: tuple[BaseRoute, ...] = ()
    workspace: Callable[[Request], Any] | None = None
    warm: Callable[[], None] | None = None
    lifespan: Callable[[], AbstractAsyncContextManager[None]] | None = None
    most_body_bytes: int = MOST_BODY_BYTES
    is_withheld: bool = False


class _Card(Struct, frozen=True, forbid_unknown_fields=True):
    """What an `app.json` may say."""

    title: str = ""
    order: int = 100
    description: str = ""
    icon: str = ""


def find_apps(further: tuple[Path, ...] | None = None) -> tuple[App, ...]:
    """Every app of the house and of `further` folders (those of journal.json if None), in their order.

    A later folder wins a name. A broken app is there too, with its problem, and so is one of a project whose code needs
    the user's consent, unless another app has its name.
    """
    project, named = _named_folders() if further is None else ("", further)
    found = {app.name: app for app in _apps_of(HOUSE)}
    for folder in named:
        found |= {app.name: app for app in _apps_of(folder, project) if not (app.is_withheld and app.name in found)}
    return tuple(sorted(found.values(), key=lambda app: (app.order, app.title.casefold(), app.name)))


def _named_folders() -> tuple[str, tuple[Path, ...]]:
    """The project whose journal.json is in force, and the folders it names; none while that file cannot be read.

    There is no project where the file is the user's own.
    """
    try:
        snapshot = config_loader.load()
    except ConfigError as exc:
        log.warning("%s; apps of further folders are left out", exc)
        return "", ()
    base, said = os.path.dirname(snapshot.path), snapshot.config.descriptors
    return said.project, tuple(Path(base, path) for path in said.apps)


def _apps_of(folder: Path, project: str = "") -> Iterator[App]:
    try:
        names = sorted(os.listdir(folder))
    except (OSError, ValueError) as exc:
        log.warning("%s: no apps from there (%s)", folder, exc)
        return
    for name in names:
        if name.startswith(("_", ".")) or not (folder / name / WORKSPACE).is_file():
            continue
        if _NAME.fullmatch(name):
            withheld = _withheld(name, folder / name, project) if project else None
            yield withheld or _read(name, folder / name)
        else:
            log.warning("%s: found an app %r, expected a name of letters, digits, - and _", folder, name)


def _withheld(name: str, folder: Path, project: str) -> App | None:
    """The app with what is to be done before its code may be run; None where the user has consented to that."""
    try:
        claim = code_claim(folder, project)
    except OSError as exc:
        return App(name, folder, name, problem=str(exc), is_withheld=True)
    if is_trusted(claim):
        return None
    error = TrustError(claim)
    log.warning("%s", error)
    return App(name, folder, name, problem=str(error), is_withheld=True)


def _read(name: str, folder: Path) -> App:
    """One app as it stands in its folder."""
    app = App(name, folder, name.replace("_", " ").title())
    try:
        card = _card(folder / "app.json")
        drawing = _drawing(folder / ICON)
    except msgspec.DecodeError as exc:
        return replace(app, problem=f"app.json: {exc}")
    except (ValueError, OSError) as exc:
        return replace(app, problem=str(exc))
    title = card.title or app.title
    app = replace(app, title=title, order=card.order, description=card.description, icon=card.icon, drawing=drawing)
    if not (folder / "routes.py").is_file():
        return app
    try:
        return _with_routes(app, _import(app))
    except (Exception, SystemExit) as exc:
        log.exception("app %s: its routes.py cannot be loaded", name)
        return replace(app, problem=f"routes.py: {type(exc).__name__}: {exc}")


def _card(path: Path) -> _Card:
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return _Card()
    return msgspec.json.decode(text, type=_Card)


def _drawing(path: Path) -> Markup:
    """The text of an app's drawing, which becomes part of the page; nothing where there is none.

    Raises:
        ValueError: it is no SVG.
    """
    try:
        text = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return Markup()
    if not text.startswith("<svg"):
        raise ValueError(f"{ICON}: found {text[:20]!r}, expected an SVG that begins with '<svg'")
    return Markup(text)  # noqa: S704  an app's own file, as its templates are


def _import(app: App) -> ModuleType:
    """The module `routes` of an app: by its name in the house, else from its file."""
    if app.folder.parent == HOUSE:
        return import_module(f"{HOUSE.name}.{app.name}.routes")
    return module_of(app.folder / "routes.py", f"muse_app_{app.name}.routes")


def _with_routes(app: App, module: ModuleType) -> App:
    """The app with what its module declares.

    Raises:
        TypeError: a declared name is not of its form.
    """
    declared: Mapping[str, Any] = vars(module)
    routes = tuple(declared.get("ROUTES", ()))
    wrong = next((route for route in routes if not isinstance(route, BaseRoute)), None)
    if wrong is not None:
        raise TypeError(f"ROUTES: found {wrong!r}, expected Starlette routes such as Route('/api/usage', usage)")
    hooks = {name: declared.get(name) for name in ("workspace", "warm", "lifespan")}
    for name, hook in hooks.items():
        if hook is not None and not callable(hook):
            raise TypeError(f"{name}: found {hook!r}, expected a function")
    most = declared.get("MOST_BODY_BYTES", MOST_BODY_BYTES)
    if not isinstance(most, int) or most < 1:
        raise TypeError(f"MOST_BODY_BYTES: found {most!r}, expected a number of bytes, 1 or more")
    return replace(app, routes=routes, most_body_bytes=most, **hooks)
