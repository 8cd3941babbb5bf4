"""`muse trust`: say what a project's files would do, and let that count or not."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from muse.cli._terminal import terminal
from muse.cli._terminal.arguments import FAILED
from muse.cli._terminal.consent import ask, is_somebody_there, show
from muse.diagnostics import project_claims
from muse.journal import paths
from muse.journal.trust import consent
from muse.types.errors import ConfigError
from muse.types.trust_claim import Claim, trust_command

HELP = "Let the commands, code and addresses in a project's files count; what they would do is shown before."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which project, and what to do about it."""
    parser.add_argument("path", metavar="PATH", nargs="?", type=Path, help="the project's folder (the working folder)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--yes", action="store_true", help="do not ask (without a terminal nothing is asked either)")
    what.add_argument("--show", action="store_true", help="only say what its files would do, and whether that counts")
    what.add_argument("--revoke", action="store_true", help="take the trust back")
    what.add_argument("--list", action="store_true", help="list the folders with trusted entries")
    parser.add_argument("--json", action="store_true", help="with --show or --list: print JSON")


def run(args: argparse.Namespace) -> int:
    """Do it: 0, or 1 where nothing was trusted that should be."""
    if args.list:
        return _list(as_json=args.json)
    folder = args.path or Path(paths.working_folder())
    if not folder.exists():
        raise ConfigError("PATH", f"{str(args.path)!r}, which is not there", "a project's folder")
    folder = (folder if folder.is_dir() else folder.parent).absolute()
    with contextlib.chdir(folder):
        claims = project_claims.claims(with_makefile=True)
        folders = {os.path.realpath(claim.folder) for claim in claims} | {os.path.realpath(paths.working_folder())}
    if args.revoke:
        taken = [place for place in sorted(folders) if consent.revoke(place)]
        terminal.say(f"Not trusted any more: {', '.join(taken)}" if taken else "Nothing was trusted there.")
        return 0
    if args.show:
        return _show(claims, as_json=args.json)
    return _trust(claims, str(folder), is_sure=args.yes)


def _trust(claims: Sequence[Claim], folder: str, *, is_sure: bool) -> int:
    """Show the claims and record consent; at a terminal only after a yes. To type the command elsewhere is consent."""
    if not claims:
        terminal.say(f"{folder}: its files name no command, code or address; there is nothing to trust.")
        return 0
    show(claims)
    if not is_sure and is_somebody_there() and not ask("Trust these entries, as long as they stay as they are?"):
        terminal.say("Nothing was changed.")
        return FAILED
    consent.record(claims)
    terminal.say(f"Trusted until they change. To take it back: {trust_command(folder)} --revoke", "green")
    return 0


def _show(claims: Sequence[Claim], *, as_json: bool) -> int:
    rows = [
        {"folder": one.folder, "place": one.place, "does": one.does, "trusted": consent.is_trusted(one)}
        for one in claims
    ]
    if as_json:
        terminal.print_json(rows)
    elif rows:
        show(claims)
    else:
        terminal.say("There is nothing to trust.")
    return 0


def _list(*, as_json: bool) -> int:
    found = consent.listed()
    if as_json:
        terminal.print_json({folder: dict(places) for folder, places in found.items()})
        return 0
    for folder, places in sorted(found.items()):
        terminal.say(folder, lead="")
        for place in sorted(places):
            terminal.say(f"  {place}", "dim")
    if not found:
        terminal.say(f"No folder is trusted ({consent.record_path()}).")
    return 0
