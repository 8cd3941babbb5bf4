"""`muse check`: what is wrong, one line each, and exit status 1 if anything is; it mends nothing."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from msgspec.structs import asdict

from muse.cli._terminal import terminal
from muse.cli._terminal.terminal import Column
from muse.diagnostics import check, health
from muse.journal import config_loader, secrets
from muse.types.errors import ConfigError
from muse.types.formatting import pluralize

HELP = "Look for mistakes in journal.json, descriptors, code and keys; exit status 1 if there are any."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where else to look, and in which form to say it."""
    parser.add_argument(
        "folders", metavar="FOLDER", nargs="*", type=Path, help="further folders (or files) of code that calls models"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--live",
        action="store_true",
        help="instead, ask every model that something is routed to for a word (a fraction of a cent each), all at once",
    )


def run(args: argparse.Namespace) -> int:
    """Print the findings; 1 if there are any."""
    missing = [folder for folder in args.folders if not folder.exists()]
    if missing:
        terminal.print_error(f"muse check: {missing[0]}: found nothing there, expected a folder or a file")
        return 2
    if not args.verbose and not args.debug:
        logging.getLogger("muse").setLevel(logging.ERROR)  # what would be warned of is a finding here
    if args.live:
        return _live(as_json=args.json)
    report = _examine(args.folders)
    if args.json:
        rows = [asdict(finding) for finding in report.findings]
        terminal.print_json({"ok": not rows, "findings": rows, "looked_at": dict(report.looked_at)})
        return int(bool(rows))
    for finding in report.findings:
        terminal.say(str(finding).removeprefix(finding.where), lead=finding.where)
    looked_at = ", ".join(_number_of(what, count) for what, count in report.looked_at.items())
    count = len(report.findings)
    if count:
        terminal.say(f"{pluralize(count, 'finding')} ({looked_at})", "bold red")
        return 1
    terminal.say(f"Nothing is wrong ({looked_at}).", "green")
    return 0


def _number_of(what: str, count: int) -> str:
    """Return a count in words; the first word of `what` is in the plural form or goes with both."""
    first, space, rest = what.partition(" ")
    one = {"contexts": "context", "entries": "entry", "providers": "provider", "calls": "call"}
    return f"{count} {one.get(first, first) if count == 1 else first}{space}{rest}"


def _live(*, as_json: bool) -> int:
    """Say of each model how it answered; 1 if one failed. Without a key it is passed over."""
    secrets.fill_from(config_loader.load().config)
    rows = health.probe_routed()
    if as_json:
        terminal.print_json([{**asdict(row), "tier": int(row.tier)} for row in rows])
    else:
        columns = [Column(name) for name in ("provider", "model", "tier", "state", "seconds", "why")]
        cells = [
            [row.provider, row.model, str(int(row.tier)), row.state, f"{row.seconds:.2f}", row.why or "-"]
            for row in rows
        ]
        terminal.draw(columns, cells)
    return int(any(row.state == "failing" for row in rows))


def _examine(folders: list[Path]) -> check.Report:
    """The report; a journal.json that cannot be read at all is its one finding."""
    try:
        secrets.fill_from(config_loader.load().config)
        return check.examine(folders)
    except ConfigError as exc:
        hint = "Mend that file; nothing else can be looked at until then."
        finding = check.Finding("entry", check.shown(exc.path), exc.found, exc.allowed, hint)
        return check.Report((finding,), {})
