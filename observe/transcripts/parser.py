"""Transcripts of any common recorder as utterances: which form a text is in, and what was said; it knows no model.

Forms: our own `transcript.jsonl`, SRT, WebVTT (with `<v Name>`, as Zoom and Teams write it), the JSON of Whisper,
Deepgram, AssemblyAI and their like (`observe.transcripts.vendor_json`), and text: `Name: words`, `[00:12] Name: words`,
`Name  0:12` with the words beneath (Otter), or paragraphs without names.
"""

from __future__ import annotations

import html
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct
from msgspec.structs import replace

from muse.errors import ContentsError
from observe.transcripts import vendor_json

Form = Literal["jsonl", "json", "srt", "vtt", "named", "timed", "plain"]
MOST_BYTES = 16_000_000
TRANSCRIPTS = ("transcript.jsonl", "transcript.json", "transcript.vtt", "transcript.srt", "transcript.txt")
"""The names of a segment's transcript; the first that is there counts."""
LONGEST_NAME = 80
_CUE = re.compile(r"-?\d[\d:.,]{0,20}\s{0,9}-->\s{0,9}-?\d")
_UNSPOKEN = ("NOTE", "STYLE", "REGION")
_VOICE = re.compile(r"<v(?:\.[\w.]+)?[ \t]{1,9}([^<>\n]{1,200})>")
# The markup of captions and no other: somebody may speak of <html>, or of 3 < 5.
_TAG = re.compile(r"</?(?:v|c|i|b|u|s|em|rt|ruby|lang|font|br|span|[\d:.]{5,15})(?:[\s./][^<>\n]*)?>", re.IGNORECASE)
_TIME = r"(?:\d{1,2}:)?\d{1,2}:\d{2}(?:[.,]\d{1,3})?"
_CLOCK = re.compile(r"(?:\d{1,3}:)?\d{1,3}:\d{1,2}(?:[.,]\d{1,9})?")
_LABEL = r"[^\W\d_][^\n:\[\]<>]{0,48}?"
_NAMED = re.compile(
    rf"^[\[(]?(?P<before>{_TIME})?[\])]?\s*[-–]?\s*(?P<name>{_LABEL})\s*[\[(]?(?P<after>{_TIME})?[\])]?\s*:\s+(?P<text>\S.*)$"
)
_HEADED = re.compile(rf"^(?P<name>{_LABEL})\s{{1,}}[\[(]?(?P<at>{_TIME})[\])]?\s*$")
_ONLY_TIMED = re.compile(rf"^[\[(]?(?P<at>{_TIME})[\])]?\s*[-–]?\s*(?P<text>\S.*)$")
_MOST_LABEL_WORDS = 5


class Utterance(Struct, frozen=True, omit_defaults=True):
    """Something said in one go: seconds from the start (None: not known), by whom ("": not known), the words."""

    start_s: float | None
    speaker: str
    text: str


class Transcript(Struct, frozen=True):
    """What was said, and the form it was read from; `passed_over` counts lines or entries that could not be read."""

    form: Form
    utterances: tuple[Utterance, ...]
    passed_over: int = 0

    @property
    def text(self) -> str:
        """The utterances as lines of `Name: words`."""
        return "\n".join(map(said_line, self.utterances))

    @property
    def speakers(self) -> tuple[str, ...]:
        """Who spoke, who spoke most first."""
        words = Counter[str]()
        for utterance in self.utterances:
            words[utterance.speaker] += len(utterance.text.split())
        return tuple(name for name, _ in words.most_common() if name)


def said_line(utterance: Utterance) -> str:
    """An utterance as a line for a prompt."""
    return f"{utterance.speaker}: {utterance.text}" if utterance.speaker else utterance.text


def read_transcript(path: Path, *, may_be_silent: bool = False) -> Transcript:
    """The transcript in a file; one in which nobody says anything only if it `may_be_silent`.

    Raises:
        ContentsError: the file is too large, no text, or has no words in it; file and remedy are said.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ContentsError(f"{path}: found more than {MOST_BYTES:,} bytes, expected less. Cut it into pieces")
    if b"\0" in data[:4096] and data[:2] not in (b"\xff\xfe", b"\xfe\xff"):
        raise ContentsError(f"{path}: found bytes that are no text, expected a transcript: text, SRT, VTT or JSON")
    found = parse_transcript(decode(data))
    if not found.utterances and (found.passed_over or not may_be_silent):
        raise ContentsError(f"{path}: found no words in it, expected a transcript: text, SRT, VTT or JSON")
    return found


def decode(data: bytes) -> str:
    """Bytes as text: by their mark, else UTF-8; what is not is replaced."""
    coding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    return data.decode(coding, errors="replace").replace("\r\n", "\n").replace("\r", "\n")


def parse_transcript(text: str) -> Transcript:
    """The transcript in a text, whatever form it is in."""
    found = _parse(text)
    said = (Utterance(one.start_s, plain(one.speaker)[:LONGEST_NAME], one.text) for one in found.utterances if one.text)
    return Transcript(found.form, tuple(said), found.passed_over)


def _parse(text: str) -> Transcript:
    start = text.lstrip()
    if start.startswith(("{", "[")):
        found = _json(start)
        if found is not None:
            return found
    if start.startswith("WEBVTT"):
        return _captions(start, "vtt")
    if any(_CUE.match(line.strip()) for line in start[:2_000].split("\n")):
        return _captions(start, "srt")
    return _text(start)


def seconds(clock: str) -> float | None:
    """A clock of subtitles and transcripts in seconds; None if it is none.

    >>> seconds("01:02:03,500"), seconds("2:05"), seconds("soon")
    (3723.5, 125.0, None)
    """
    if not _CLOCK.fullmatch(clock):
        return None
    total = 0.0
    for part in clock.replace(",", ".").split(":"):
        total = total * 60 + float(part)
    return total


def plain(words: object) -> str:
    """Words on one line, without tags, escapes and what cannot be printed."""
    text = html.unescape(_TAG.sub("", str(words or "")))
    known = text.encode("utf-8", errors="replace").decode("utf-8")
    return " ".join("".join(char for char in known if char.isprintable() or char.isspace()).split())


def _json(text: str) -> Transcript | None:
    """JSON, whole or a line each; None if it is neither."""
    try:
        rows, form = vendor_json.rows_of(json.loads(text)), "json"
    except (ValueError, RecursionError):
        lines = [line for line in text.splitlines() if line.strip()]
        rows, form = [_object(line) for line in lines], "jsonl"
        if not any(rows):
            return None
    said = [_utterance(row) for row in rows]
    whole = tuple(one for one in said if one is not None)
    return Transcript("json" if form == "json" else "jsonl", whole, len(said) - len(whole))


def _object(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _utterance(row: dict[str, Any]) -> Utterance | None:
    words = plain(vendor_json.text_of(row))
    return Utterance(vendor_json.start_of(row), vendor_json.speaker_of(row), words) if words else None


def _captions(text: str, form: Literal["srt", "vtt"]) -> Transcript:
    """The cues of SRT or WebVTT. In SRT what follows an empty line without a time still belongs to the cue before."""
    said: list[Utterance] = []
    passed_over = 0
    for block in re.split(r"\n\s*\n", text):
        lines = block.strip().split("\n")
        place = next((number for number, line in enumerate(lines) if _CUE.match(line.strip())), None)
        if form == "vtt" and lines[0].startswith(_UNSPOKEN if place is not None else (*_UNSPOKEN, "WEBVTT")):
            continue
        if place is not None:
            start_s = seconds(lines[place].partition("-->")[0].strip())
            voices = _voices("\n".join(lines[place + 1 :]))
            said += [Utterance(start_s, speaker, words) for speaker, words in voices if words]
        elif form == "srt" and said:
            said[-1] = replace(said[-1], text=f"{said[-1].text} {plain(block)}".strip())
        else:
            passed_over += bool(plain(block))
    return Transcript(form, _merged(said), passed_over)


def _voices(payload: str) -> Iterator[tuple[str, str]]:
    """Who says what in a cue: by `<v Name>`, else by `Name: words`, else nobody."""
    pieces = _VOICE.split(payload)
    if len(pieces) > 1:
        yield "", plain(pieces[0])
        for name, words in zip(pieces[1::2], pieces[2::2], strict=True):
            yield name, plain(words)
        return
    words = plain(payload)
    named = re.match(rf"^(?:-\s*)?({_LABEL}):\s+(\S.*)$", words)
    if named and _is_label(named[1]):
        yield named[1].strip(), named[2]
    else:
        yield "", words


def _merged(utterances: Sequence[Utterance]) -> tuple[Utterance, ...]:
    """Without what rolling captions say again."""
    kept: list[Utterance] = []
    for one in utterances:
        if not kept or (one.text, one.speaker) != (kept[-1].text, kept[-1].speaker):
            kept.append(one)
    return tuple(kept)


def _text(text: str) -> Transcript:
    """Lines of text, read in the first way that fits most of them."""
    lines = [" ".join(line.split()) for line in text.split("\n") if line.strip()]
    labels = Counter(match["name"].strip() for line in lines if (match := _NAMED.match(line)))
    known = {name for name, times in labels.items() if _is_label(name) and (times > 1 or len(lines) <= 6)}
    if sum(_label(line) in known for line in lines) * 2 >= len(lines) > 0:
        return Transcript("named", tuple(_joined(_by_label(lines, known))))
    heads = [number for number, line in enumerate(lines) if (match := _HEADED.match(line)) and _is_label(match["name"])]
    if heads and len(heads) * 6 >= len(lines):
        return Transcript("named", tuple(_under_heads(lines, heads)))
    if sum(bool(_ONLY_TIMED.match(line)) for line in lines) * 2 > len(lines):
        return Transcript("timed", tuple(_joined(_by_time(lines))))
    paragraphs = (plain(part) for part in re.split(r"\n\s*\n", text))
    return Transcript("plain", tuple(Utterance(None, "", words) for words in paragraphs if words))


def _is_label(name: str) -> bool:
    words = name.split()
    return 0 < len(words) <= _MOST_LABEL_WORDS and name[:1].isupper()


def _label(line: str) -> str:
    match = _NAMED.match(line)
    return match["name"].strip() if match else ""


def _by_label(lines: Sequence[str], known: set[str]) -> Iterator[Utterance]:
    for line in lines:
        match = _NAMED.match(line)
        if match is not None and match["name"].strip() in known:
            at_s = seconds(match["before"] or match["after"] or "")
            yield Utterance(at_s, match["name"].strip(), plain(match["text"]))
        else:
            yield Utterance(None, "", plain(line))


def _by_time(lines: Sequence[str]) -> Iterator[Utterance]:
    for line in lines:
        match = _ONLY_TIMED.match(line)
        yield Utterance(seconds(match["at"]) if match else None, "", plain(match["text"] if match else line))


def _joined(said: Iterator[Utterance]) -> Iterator[Utterance]:
    """A line without name and time goes on with what was said before it."""
    last: Utterance | None = None
    for one in said:
        if last is not None and not one.speaker and one.start_s is None:
            last = Utterance(last.start_s, last.speaker, f"{last.text} {one.text}")
            continue
        if last is not None:
            yield last
        last = one
    if last is not None:
        yield last


def _under_heads(lines: Sequence[str], heads: Sequence[int]) -> Iterator[Utterance]:
    for place, end in zip(heads, [*heads[1:], len(lines)], strict=True):
        match = _HEADED.match(lines[place])
        words = plain(" ".join(lines[place + 1 : end]))
        if match and words:
            yield Utterance(seconds(match["at"]), match["name"].strip(), words)
