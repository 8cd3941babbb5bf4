"""`muse docs`: writes the generated tables of README.md and docs/ anew, or says which are out of step."""

from __future__ import annotations

import argparse
from pathlib import Path

from muse.cli import COMMANDS, further
from muse.cli._docs.module_map import PACKAGES
from muse.cli._docs.tables import renew
from muse.cli._terminal import terminal
from muse.diagnostics import check

HELP = "Write the tables between <!-- muse:NAME --> markers in README.md and docs/ anew from the code."
_HOUSE = Path(__file__).resolve().parent.parent.parent


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Write or only look, and where."""
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 if a file is out of step")
    parser.add_argument("folder", metavar="FOLDER", nargs="?", type=Path, default=_HOUSE, help="default: the checkout")


def run(args: argparse.Namespace) -> int:
    """Write the files that changed; 1 if `--check` finds one out of step, 2 if there is nothing to look at."""
    folder: Path = args.folder
    files = [path for path in (folder / "README.md", *sorted(folder.glob("docs/**/*.md"))) if path.is_file()]
    if not files:
        terminal.print_error(f"muse docs: {folder}: found neither README.md nor docs/, expected a checkout of muse")
        return 2
    commands = {name: (row.help, row.example) for name, row in COMMANDS.items()}
    commands |= {name: (text, f"muse {name} --help") for name, text in further(PACKAGES)}
    stale: list[str] = []
    for path in files:
        text = path.read_text(encoding="utf-8")
        written = renew(text, commands, where=check.shown(str(path)))
        if written != text:
            stale.append(check.shown(str(path)))
            if not args.check:
                path.write_text(written, encoding="utf-8")
    for name in stale:
        terminal.say(f"{name}: {'found tables out of step, run: muse docs' if args.check else 'written'}")
    if not stale:
        terminal.say(f"The tables are in step ({len(files)} files).", "green")
    return int(args.check and bool(stale))
