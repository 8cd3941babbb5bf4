"""`python -m benchmarks [TABLE ...] [--quick] [--write FILE]`: run the measurements and print their tables."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from benchmarks.report import Table
from benchmarks.world import World, world

NAMES: Mapping[str, str] = {
    "calls": "calls",
    "flight": "flight",
    "proxies": "proxies",
    "routing": "routing",
    "log": "token_log",
    "policies": "policies",
    "import": "importing",
    "first": "first_answer",
    "stream": "streaming",
    "memory": "memory",
    "batch": "batch",
    "search": "search",
    "agents": "agents",
    "cortex": "cortex",
    "pages": "pages",
    "idle": "idle",
}
_SLOW = frozenset({"idle"})
_SDKS = ("openai", "anthropic", "google.genai")
_BEGIN, _END = "<!-- figures -->", "<!-- end of figures -->"


def main() -> int:
    """Measure what is named, or everything."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="TABLE", help=f"any of {', '.join(NAMES)}; all if none is named")
    parser.add_argument("--quick", action="store_true", help="fewer blocks, and without the 40 s of `idle`")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the tables between the markers of a page")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(NAMES))
    missing = [name for name in _SDKS if find_spec(name) is None]
    if unknown:
        parser.error(f"found {', '.join(unknown)}, expected any of {', '.join(NAMES)}")
    if missing:
        parser.error(f"no module {', '.join(missing)} to compare with: pip install 'muse-router[all]'")
    wanted = options.names or [name for name in NAMES if not (options.quick and name in _SLOW)]
    text = "\n".join(_report(wanted, quick=options.quick))
    if options.write:
        _write(options.write, text)
    return 0


def _report(wanted: list[str], *, quick: bool) -> Iterator[str]:
    """Each table as text, printed when it is there."""
    started_s = time.monotonic()
    yield _said(_surroundings(quick=quick))
    with world(quick=quick) as made:
        for name in wanted:
            tables: Callable[[World], Iterator[Table]] = import_module(f"benchmarks.{NAMES[name]}").tables
            for table in tables(made):
                yield _said(table.text())
    print(f"{time.monotonic() - started_s:.0f} s")


def _said(text: str) -> str:
    print(text, flush=True)
    return text


def _surroundings(*, quick: bool) -> str:
    """What the figures depend on: machine, Python, SDKs, and how busy the machine is."""
    load = f", load {os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else ""
    sdks = ", ".join(f"{name} {version(name)}" for name in ("openai", "anthropic", "google-genai"))
    how = " Quick run: fewer blocks." if quick else ""
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores{load}"
    return f"Python {platform.python_version()}, {machine}; {sdks}.{how}\n"


def _write(path: Path, text: str) -> None:
    page = path.read_text(encoding="utf-8")
    before, begin, rest = page.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"{path}: found no {_BEGIN!r} ... {_END!r}, expected both markers on it")
    path.write_text(f"{before}{begin}\n\n{text}\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
