"""What the command lines of all commands have in common: kinds of arguments, options, ends; it knows none of them."""

from __future__ import annotations

import argparse

from muse.cli._terminal import terminal
from muse.journal import paths

FAILED, MISUSED, INTERRUPTED = 1, 2, 128 + 2
"""Exit statuses; 0 is done."""


def parser_for(name: str, description: str, epilog: str) -> argparse.ArgumentParser:
    """The parser of a command `muse <name>` of another package; `parsed` adds the options that every command has."""
    return argparse.ArgumentParser(
        prog=f"muse {name}",
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def parsed(
    parser: argparse.ArgumentParser,
    argv: list[str] | None,
    *,
    as_json: bool = True,
    verbose: str = "say more of what is done",
) -> argparse.Namespace | int:
    """The arguments; the exit status where argparse would end the process (after --help and wrong usage)."""
    if as_json:
        parser.add_argument("--json", action="store_true", help="print the result as JSON, and nothing else")
    parser.add_argument("-v", "--verbose", action="store_true", help=verbose)
    parser.add_argument("-d", "--debug", action="store_true", help="log everything")
    try:
        args = parser.parse_args(argv)
        said = [text for text in (vars(args).get("named"), vars(args).get("day")) if text]
        if len(set(said)) > 1:
            parser.error(f"{said[0]} and --day {said[1]} are two; give one")
    except SystemExit as exc:
        return exc.code if isinstance(exc.code, int) else MISUSED
    return args


def usage_error(name: str, what: str) -> int:
    """Say what is wrong with the words of a command; its exit status."""
    print_error(name, f"{what} (muse {name} --help)")
    return MISUSED


def print_error(name: str, what: str) -> None:
    """Say on standard error what went wrong."""
    terminal.print_error(f"muse {name}: {what}")


def add_day(parser: argparse.ArgumentParser, told: str, *, or_file: bool = False) -> None:
    """Add the day that a command works on (or a file), by its place or as `--day`; `day_of` has it then."""
    kind, reads = ("DAY|FILE", str) if or_file else ("DAY", day)
    parser.add_argument("named", nargs="?", metavar=kind, type=reads, help=told)
    parser.add_argument("--day", metavar="DAY", type=day, help="the same, as an option")


def day_of(args: argparse.Namespace) -> str | None:
    """The day (or file) that was named; None if none was."""
    named: str | None = args.day or args.named
    return named


def day(text: str) -> str:
    """A day `YYYYMMDD`, for `type=` of argparse, which makes of anything else wrong usage."""
    if not paths.is_day(text):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a date of the form YYYYMMDD, such as 20261103")
    return text


def count(text: str) -> int:
    """A whole number from 1 on, for `type=`."""
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number, 1 or more")
    return int(text)


def seconds(text: str) -> float:
    """Seconds from 0 on, for `type=`."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected seconds, 0 or more")
    return number
