"""The `muse` command: finds the subcommand, runs it, makes an exit status of its end; it knows what none of them does.

A subcommand is a file beside this one with `HELP`, `add_arguments(parser)` and `run(args) -> int`, imported when it is
typed. Further ones come from entry points of the group `muse.commands`: a callable that takes its arguments and returns
a status.
"""

from __future__ import annotations

import argparse
import io
import logging
import os
import sys
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Protocol, TextIO

from msgspec import Struct

from muse import __version__
from muse.cli._terminal import terminal
from muse.cli._terminal.arguments import FAILED, INTERRUPTED, MISUSED
from muse.journal import config_loader, secrets
from muse.journal.entry_points import find_entry_points
from muse.journal.lenient_parser import closest_name
from muse.terminal.text import escape_control, escape_output, escaped_output, log_to_stderr
from muse.types.errors import ConfigError, MuseError

log = logging.getLogger(__name__)

GROUP = "muse.commands"
CLOSED_PIPE = 128 + 13
_HOUSES = ("muse", "think", "observe", "apps")


class Row(Struct, frozen=True):
    """A subcommand as the overview shows it; `fills` says whether the journal's `env` is applied before it runs."""

    help: str
    example: str
    fills: bool = True


COMMANDS: Mapping[str, Row] = {
    "route": Row("who answers a context, and why", "muse route observe.enrich --explain"),
    "routes": Row("every known context with its route", "muse routes 'agent.*'"),
    "check": Row("what is wrong in journal.json, descriptors, code and keys", "muse check", fills=False),
    "providers": Row("what there is to route to, and whether it answers", "muse providers --test openai"),
    "usage": Row("tokens and cost, from the token log", "muse usage --since 7d --by model"),
    "whatif": Row("what another journal.json would have cost", "muse whatif --set 'insight.*=tier:3' --since 7d"),
    "agent": Row("run an agent and watch it", "muse agent default 'What did I decide about the release on Tuesday?'"),
    "agents": Row("the personas, with their routes, tools and schedules", "muse agents"),
    "batch": Row(
        "ask for every row of a file, and go on after a crash", "muse batch run rows.jsonl --context app.rows"
    ),
    "runs": Row("the agent runs of the journal", "muse runs"),
    "run": Row("one run as a page, or resumed", "muse run --resume 1762164000000"),
    "cortex": Row("run the agent requests of the queue", "muse cortex --max-concurrent 4"),
    "local": Row("the embedded model: is it there, get it", "muse local fetch"),
    "trust": Row("let a project's commands, code and addresses count", "muse trust .", fills=False),
    "docs": Row("write the tables in docs/ anew from the code", "muse docs --check", fills=False),
}


class _Module(Protocol):
    """What a subcommand's file holds."""

    HELP: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...
    def run(self, args: argparse.Namespace) -> int: ...


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (that of the process if None).

    Returns the exit status: 0 done, 1 failed, 2 used wrongly, 130 interrupted, 141 if its reader went away.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = not {"-d", "--debug"}.isdisjoint(words)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    if argv is None:  # for good: what the interpreter prints on its way out is escaped too
        escape_output()
    with escaped_output():
        return _run(words, debug)


def _run(words: list[str], debug: bool) -> int:
    try:
        with _logging("-v" in words or "--verbose" in words, debug):
            status = _dispatch(words)
        _flush(sys.stdout)
    except KeyboardInterrupt:
        terminal.print_error("muse: interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the interpreter's last flush is silent
        return CLOSED_PIPE
    except (MuseError, OSError) as exc:
        if debug:
            traceback.print_exception(exc)
        terminal.print_error(f"muse: {exc}")
        return FAILED
    return status


def _flush(stream: TextIO | None) -> None:
    """Write what is left in a standard stream; a closed one is None."""
    if stream is not None:
        stream.flush()


def _dispatch(words: list[str]) -> int:
    flags: list[str] = []
    while words and words[0] in ("-v", "--verbose", "-d", "--debug"):
        flags.append(words.pop(0))
    if words and words[0] == "help":
        words = [*words[1:2], "--help"]
    if not words or words[0] in ("-h", "--help"):
        terminal.write_styled(overview())
        return 0
    name, *rest = words
    if name == "--version":
        print(f"muse {__version__}")
        return 0
    if name in COMMANDS:
        return _run_own(name, flags + rest)
    return _run_further(name, flags + rest)


def _run_own(name: str, words: list[str]) -> int:
    module: _Module = import_module(f"muse.cli.{name}")
    row = COMMANDS[name]
    parser = argparse.ArgumentParser(
        prog=f"muse {name}", description=f"{module.HELP}", epilog=f"For example: {row.example}", allow_abbrev=False
    )
    module.add_arguments(parser)
    parser.add_argument("-v", "--verbose", action="store_true", help="say more of what is done")
    parser.add_argument("-d", "--debug", action="store_true", help="log everything, and show where an error comes from")
    try:
        args = _parsed(parser, words)
    except SystemExit as exc:  # argparse ends the process after --help and wrong usage
        return exc.code if isinstance(exc.code, int) else MISUSED
    if row.fills:
        _fill_environment()
    return module.run(args)


def _parsed(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.Namespace:
    """Parse a command's words; options may stand between its arguments: `muse agent NAME --continue ID PROMPT`."""
    if "--" in words:  # what stands behind it is no option, and only `parse_args` keeps to that
        return parser.parse_args(words)
    try:
        return parser.parse_intermixed_args(words)
    except TypeError:  # a command of several, such as `muse batch run`, takes its options behind its name
        return parser.parse_args(words)


def _fill_environment() -> None:
    from muse.cli._terminal.consent import ask_for_trust

    try:
        ask_for_trust()
        secrets.fill_from(config_loader.load().config)
    except ConfigError as exc:
        log.debug("no variables from journal.json (%s); the command says so itself if it needs that file", exc)


def _run_further(name: str, words: list[str]) -> int:
    """A command of another package, or one line that says what there is."""
    if name.startswith("-"):
        return _misused(f"unknown option {name!r}")
    point = next((point for point in find_entry_points(GROUP) if point.name == name), None)
    if point is None:
        return _misused(f"unknown command {name!r}")
    try:
        command: Callable[[list[str]], int | None] = point.load()
    except (ImportError, AttributeError) as exc:
        log.debug("entry point %s", point, exc_info=True)
        owner = point.dist.name if point.dist else "an unknown package"
        terminal.print_error(f"muse: {name}: {owner} names {point.value}, which cannot be loaded ({exc})")
        return FAILED
    _fill_environment()
    try:
        return command(words) or 0
    except SystemExit as exc:
        return _status(exc.code)


def _status(code: object) -> int:
    """Return the exit status that a `SystemExit` stands for; a message is printed, as the interpreter does."""
    if code is None or isinstance(code, int):
        return code or 0
    terminal.print_error(str(code))
    return FAILED


def _misused(what: str) -> int:
    names = [*COMMANDS, *(name for name, _ in further())]
    near = closest_name(what.split("'")[1], names)
    guess = f"did you mean {near!r}?" if near else f"expected one of {', '.join(names)}"
    terminal.print_error(f"muse: {what}; {guess} (muse --help)")
    return MISUSED


def overview() -> Iterator[tuple[str, str]]:
    """Yield what `muse` alone prints, in `(text, style)` pieces: each command with its help and one example."""
    rows = [(name, row.help, row.example) for name, row in COMMANDS.items()]
    rows += [(name, text, f"muse {name} --help") for name, text in further()]
    width = max(len(name) for name, _, _ in rows)
    yield "muse", "bold"
    yield f" {__version__}: one door for every model call; journal.json says who answers.\n\n", ""
    for name, text, example in rows:
        yield f"  {name.ljust(width)}", "bold"
        yield f"  {escape_control(text)}\n  {' ' * width}  ", ""
        yield f"$ {example}", "dim"
        yield "\n", ""
    yield "\n`muse COMMAND --help` lists a command's options; -v says more, -d shows where an error comes from.", ""


def further(packages: Collection[str] = ()) -> Iterator[tuple[str, str]]:
    """`(name, what it is)` of each command of another package (only of these, if any are named); none is imported."""
    from muse.cli._docs.summary import summary_of

    for point in sorted(set(find_entry_points(GROUP)), key=lambda point: point.name):
        if point.name not in COMMANDS and (not packages or point.module.partition(".")[0] in packages):
            yield point.name, summary_of(point.module) or f"from {point.dist.name if point.dist else point.module}"


@contextmanager
def _logging(verbose: bool, debug: bool) -> Iterator[None]:
    """Log muse's own words to stderr while a command runs: warnings, with -v what is done, with -d everything."""
    level = logging.DEBUG if debug else logging.INFO if verbose else logging.WARNING
    log_to_stderr("muse: %(levelname)s: %(message)s")
    loggers = [logging.getLogger(house) for house in _HOUSES]
    before = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(level)
        yield
    finally:
        for logger, old in zip(loggers, before, strict=True):
            logger.setLevel(old)
