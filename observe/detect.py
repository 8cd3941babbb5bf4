"""What a pasted transcript or document is; its segments, utterances or date are printed, and nothing is kept."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from muse.cli._terminal.arguments import FAILED, parsed, parser_for, print_error
from muse.cli._terminal.terminal import Column, draw, print_json, say
from muse.errors import ConfigError
from observe.documents import segmentation
from observe.documents.creation_date import Created
from observe.documents.creation_date import created as created_on
from observe.documents.normalization import Normalised
from observe.documents.normalization import normalise as normalised
from observe.documents.segmentation import Divided, divide
from observe.llm.vision import require_key
from observe.transcripts.parser import Transcript, read_transcript

_EPILOG = """\
  created   the day on which a document was made: text, Markdown, HTML, mail, PDF, Office, pictures. The dates in its
            metadata, name and text are offered to a model, which chooses; where there is but one, nobody is asked.
  segment   where one conversation ends and another begins in a transcript.
  json      a transcript as lines of JSON {start_s, speaker, text}, the form of transcript.jsonl. Where its form says
            who speaks (Name: words, SRT, VTT, JSON of common recorders) nobody is asked.

Who is asked says journal.json, for detect.created, observe.detect.segment and observe.detect.json.

For example:
  muse detect created letter.md
  muse detect segment monday.vtt
  muse detect json otter.txt > transcript.jsonl
"""


def main(argv: list[str] | None = None) -> int:
    """Run `muse detect`; 0 done, 1 something could not be read, 2 used wrongly.

    Raises:
        MuseError: nothing could be made: no such file, no key, no model, no reply that fits.
    """
    parser = parser_for("detect", "Find out what a transcript or document is.", _EPILOG)
    parser.add_argument("what", choices=sorted(_KINDS), help="what to find out")
    parser.add_argument("file", metavar="FILE", help="the file to look at")
    args = parsed(parser, argv)
    if isinstance(args, int):
        return args
    path = Path(args.file)
    if not path.is_file():
        raise ConfigError("FILE", repr(args.file), "a file that exists")
    return _KINDS[args.what](path, args)


def _created(path: Path, args: argparse.Namespace) -> int:
    found: Created = asyncio.run(created_on(path))
    if args.json:
        print_json(msgspec.to_builtins(found))
        return 0
    say(found.date or "The document does not say when it was made.", "bold")
    if found.date:
        say(f"{found.where}, by {found.by}", "dim")
    if found.candidates:
        say("")
        draw(
            [Column("date"), Column("where"), Column("words")],
            [(one.date, one.where, one.snippet) for one in found.candidates],
        )
    say(f"The file was last written at {found.file_time}.", "dim")
    return 0


def _segment(path: Path, args: argparse.Namespace) -> int:
    transcript = read_transcript(path)
    require_key(segmentation.CONTEXT)
    found: Divided = asyncio.run(divide(transcript.utterances))
    if args.json:
        print_json(msgspec.to_builtins(found))
    else:
        draw(
            [Column("lines"), Column("from"), Column("to"), Column("begins by"), Column("title")],
            [
                (f"{one.first}-{one.last}", _clock(one.start_s), _clock(one.end_s), one.why, one.title)
                for one in found.parts
            ],
        )
        say(f"by {found.by}", "dim")
    return _complete(transcript)


def _json(path: Path, args: argparse.Namespace) -> int:
    transcript = read_transcript(path)
    found: Normalised = asyncio.run(normalised(transcript))
    if args.json:
        print_json(msgspec.to_builtins(found))
    else:
        for one in found.utterances:
            say(msgspec.json.encode({"start_s": one.start_s, "speaker": one.speaker, "text": one.text}).decode())
    return _complete(transcript)


def _complete(transcript: Transcript) -> int:
    """The exit status; what could not be read is said on standard error."""
    if not transcript.passed_over:
        return 0
    print_error("detect", f"{transcript.passed_over} entries have no words or cannot be read, and are left out")
    return FAILED


def _clock(at_s: float | None) -> str:
    return "–" if at_s is None else f"{int(at_s) // 3600}:{int(at_s) // 60 % 60:02}:{int(at_s) % 60:02}"


_KINDS: Mapping[str, Callable[[Path, argparse.Namespace], int]] = {
    "created": _created,
    "segment": _segment,
    "json": _json,
}
