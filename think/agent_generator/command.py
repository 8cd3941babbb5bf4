"""An agent made from a description, printed or saved as a persona; journal.json says which model writes it."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from muse.cli._terminal.arguments import parsed, parser_for, usage_error
from muse.cli._terminal.terminal import near, print_json, say
from muse.errors import ConfigError
from muse.journal import config_loader, paths
from muse.journal.personas import get_agents
from muse.journal.storage.atomic_files import write_atomic
from think.agent_generator.generate import CONTEXT, Plan, make_plan
from think.agent_generator.rules import NAME

_EPILOG = """\
A model writes the agent: title, instruction, tools (packs that there are),
schedule and limits; the result is checked as personas are. A small model, such
as the embedded one, does not write: it chooses the existing agent that comes
nearest and gives the new one a title; the wish becomes its task, and rules
read the schedule out of its words.

Who is asked says journal.json, for the context planner.generate:
  muse route planner.generate --explain

For example:
  muse plan "Every Friday at 16:00 list what I promised this week and to whom"
  muse plan "Find contradictions between notes and transcripts" --save
  muse plan "Watch the humidity figures" --save humidity_watch --force
"""
_OWN_FOLDER = "personas"


def main(argv: list[str] | None = None) -> int:
    """Run `muse plan`; 0 done, 1 failed, 2 used wrongly.

    Raises:
        MuseError: no agent could be made, or it may not be saved under that name.
        OSError: it cannot be written.
    """
    args = parsed(_parser(), argv)
    if isinstance(args, int):
        return args
    if args.force and args.save is None:
        return usage_error("plan", "--force goes with --save alone")
    if args.save:
        _require_free(args.save, force=args.force)
    plan = make_plan(args.wish)
    name = args.save or plan.name
    saved = _save(plan, name, force=args.force) if args.save is not None else None
    if args.json:
        print_json(_as_json(plan, name, saved))
    else:
        _show(plan, name, saved)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = parser_for(
        "plan", "Make an agent from a description and print it; with --save, keep it as a persona.", _EPILOG
    )
    parser.add_argument("wish", metavar="WISH", help="what the agent is to do, in a sentence or two")
    parser.add_argument(
        "--save", metavar="NAME", nargs="?", const="", help="save it as a persona, by this name or the one it was given"
    )
    parser.add_argument("--force", action="store_true", help="save it even if there is one of that name")
    return parser


def _require_free(name: str, *, force: bool) -> None:
    """See that a persona may be saved under a name.

    Raises:
        ConfigError: the name is none, or taken.
    """
    if not NAME.fullmatch(name):
        raise ConfigError("--save", repr(name), "small letters, digits and _, a letter first, 2 to 40 of them")
    taken = get_agents().get(name)
    if taken is not None and not force:
        raise ConfigError("--save", f"{name!r}, the name of {taken['title']!r}", "another name, or --force as well")


def _save(plan: Plan, name: str, *, force: bool) -> Path:
    """Write the persona into the journal's own folder; the path of its JSON. Its text comes first, whole.

    Raises:
        ConfigError: the name is taken.
    """
    _require_free(name, force=force)
    folder = _folder()
    path = folder / f"{name}.json"
    taken = [one for one in (path, path.with_suffix(".txt")) if one.exists()]
    if taken and not force:
        raise ConfigError("--save", f"{near(str(taken[0]))}, which is there", "another name, or --force as well")
    write_atomic(path.with_suffix(".txt"), plan.instruction)
    write_atomic(path, json.dumps(plan.fields, indent=2, ensure_ascii=False) + "\n")
    return path


def _folder() -> Path:
    """The first folder of agents that journal.json names; it is given one if it names none."""
    snapshot = config_loader.load()
    base = Path(snapshot.path).parent
    named = snapshot.config.descriptors.agents
    folder = base / named[0] if named else paths.journal_path() / _OWN_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    if not named:
        config_loader.update(lambda data: _name_folder(data, os.path.relpath(folder.resolve(), base.resolve())))
    return folder


def _name_folder(data: dict[str, Any], folder: str) -> None:
    data.setdefault("descriptors", {})["agents"] = [folder]


def _as_json(plan: Plan, name: str, saved: Path | None) -> dict[str, Any]:
    facts = {"name": name, "made_by": plan.made_by, "template": plan.template or None}
    return {**facts, "saved": str(saved) if saved else None, "persona": plan.fields, "instruction": plan.instruction}


def _show(plan: Plan, name: str, saved: Path | None) -> None:
    """Print the persona, where it is, and what to type next."""
    say(f"{name}.json", "bold")
    for line in json.dumps(plan.fields, indent=2, ensure_ascii=False).splitlines():
        say(line)
    say("")
    say(f"{name}.txt", "bold")
    for line in plan.instruction.splitlines():
        say(line)
    say("")
    like = f" after the agent {plan.template}, which is the nearest there is" if plan.template else ""
    say(f"Made by {plan.made_by}{like}. Another model: route {CONTEXT} in {near(paths.config_path())}.", "dim")
    if saved is None:
        say(f'Not saved: the same command with --save keeps it ({os.path.basename(sys.argv[0])} plan "..." --save).')
        return
    say(f"Saved as {near(str(saved))} and {saved.stem}.txt; both may be edited.")
    say(f"Run it: muse agent {name} '{_asked(plan)}'")
    if plan.fields.get("schedule"):
        say("It is scheduled: muse daily --only agents --dry-run shows when it is due.")


def _asked(plan: Plan) -> str:
    return str(plan.fields["prompt"]).replace("$day", "today").replace("'", "’")
