"""What `muse enrich` and `muse summarize` have in common: the transcripts of a day, or one file, told of."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from muse.cli._terminal.arguments import FAILED, day_of, parsed, parser_for, print_error, usage_error
from muse.cli._terminal.terminal import print_json
from observe.llm.vision import require_key
from observe.segments.cli import add_choice, chosen, run_day
from observe.segments.results import Work
from observe.summaries.sources import Source, read_file

Made = TypeVar("Made")


class Telling(msgspec.Struct, Generic[Made], frozen=True, kw_only=True):
    """A command: its words, what it works on, and what it makes of a source."""

    name: str
    description: str
    epilog: str
    context: str
    wanted: tuple[str, ...]
    nothing: str
    """What a day lacks that has no segment to work on."""
    of_day: Work
    of_source: Callable[[Source], Coroutine[Any, Any, Made]]
    show: Callable[[Made], None]


def run(telling: Telling[Any], argv: list[str] | None) -> int:
    """Run the command; 0 done, 1 something failed, 2 used wrongly.

    Raises:
        MuseError: nothing could be made: no such day or file, no key, no model.
    """
    parser = parser_for(telling.name, telling.description, telling.epilog)
    add_choice(parser, "YYYYMMDD, or a file; the latest day if left out", or_file=True)
    args = parsed(parser, argv)
    if isinstance(args, int):
        return args
    picked = chosen(day_of(args), telling.wanted)
    if isinstance(picked, str):
        return run_day(telling.name, picked, args, telling.of_day, nothing=telling.nothing)
    if args.segment:
        return usage_error(telling.name, "--segment goes with a DAY")
    return _run_file(telling, picked, args)


def _run_file(telling: Telling[Any], path: Path, args: argparse.Namespace) -> int:
    require_key(telling.context)
    source = read_file(path)
    made = asyncio.run(telling.of_source(source))
    if args.json:
        print_json({**msgspec.to_builtins(made), "made_from": source.mark, "sources": [str(path)]})
    else:
        telling.show(made)
    for problem in source.problems:
        print_error(telling.name, problem)
    return FAILED if source.problems else 0
