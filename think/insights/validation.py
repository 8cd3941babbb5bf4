"""Occurrences of a topic: the form of a reply, and that each quotation stands in its source; it asks nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

from think.entries.transcripts import UNSPACED, Part, Utterance, plain

_LEAST_WORDS = 2
_SIGNS_A_WORD = 2
_SPACED = rf"(?!{UNSPACED.pattern})\w"
_DOUBLE, _SINGLE, _DASHES = "\u201c\u201d\u201e\u00ab\u00bb", "\u2018\u2019\u201a\u201b", "\u2013\u2014\u2011"
_SAME = str.maketrans({**dict.fromkeys(_DOUBLE, '"'), **dict.fromkeys(_SINGLE, "'"), **dict.fromkeys(_DASHES, "-")})


class Occurrence(Struct, frozen=True):
    """One occurrence: `fields` fit the topic's schema, `quote` stands word for word in `source`.

    `source` is a path relative to the day, `time` is `HH:MM` (of a week's insights the date).
    """

    fields: Mapping[str, Any]
    quote: str
    source: str
    time: str = ""
    speaker: str = ""


class Checked(Struct, frozen=True):
    """What a reply held: the occurrences that are borne out, and how many were dropped because theirs is invented."""

    occurrences: tuple[Occurrence, ...]
    dropped: int = 0


def reply_schema(schema: Mapping[str, Any], sources: Sequence[str]) -> dict[str, Any]:
    """The JSON Schema of a reply: a list of occurrences, each with its quotation and one of `sources`."""
    item = {name: value for name, value in schema.items() if name not in ("$defs", "definitions", "$schema", "$id")}
    item["properties"] = {
        **schema["properties"],
        "quote": {"type": "string", "description": "The words of the journal that bear it out, copied exactly."},
        "source": {"type": "string", "enum": list(dict.fromkeys(sources)), "description": "Where the quote stands."},
    }
    item["required"] = [*schema.get("required", ()), "quote", "source"]
    item["additionalProperties"] = False
    whole = {
        "type": "object",
        "properties": {"occurrences": {"type": "array", "items": item}},
        "required": ["occurrences"],
        "additionalProperties": False,
    }
    return whole | {name: schema[name] for name in ("$defs", "definitions") if name in schema}


def check_reply(text: str, parts: Sequence[Part], schema: Mapping[str, Any]) -> Checked:
    """The occurrences of a reply that fits `schema`, that of `reply_schema`, their fields in its order.

    One whose quotation stands in no part is dropped and counted.
    """
    evidence = Evidence(parts)
    order = list(schema["properties"]["occurrences"]["items"]["properties"])
    found: list[Occurrence] = []
    dropped = 0
    for raw in json.loads(text)["occurrences"]:
        occurrence = evidence.bear_out({name: raw[name] for name in order if name in raw})
        dropped += occurrence is None
        if occurrence is not None:
            found.append(occurrence)
    return Checked(tuple(found), dropped)


def merge(found: Iterable[Occurrence]) -> tuple[Occurrence, ...]:
    """Each occurrence once, in order of time; two are the same if what they say first is the same."""
    kept: dict[str, Occurrence] = {}
    for one in found:
        kept.setdefault(headline_of(one).casefold(), one)
    return tuple(sorted(kept.values(), key=lambda one: (one.time, one.source)))


def headline_of(occurrence: Occurrence) -> str:
    """What an occurrence says first: the text of its first field, else its quotation."""
    return text_of(next(iter(occurrence.fields.values()), "")) or occurrence.quote


def text_of(value: object) -> str:
    """A field's value as text on one line, lists with commas; what cannot be printed (an escape code, say) is not."""
    if isinstance(value, list):
        return ", ".join(text_of(item) for item in value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return plain(text)


class Evidence:
    """The parts that were read, to look quotations up in."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = {part.source: part for part in parts}
        self._folded = {part.source: [_fold(said.text) for said in part.utterances] for part in parts}

    def bear_out(self, raw: Mapping[str, Any]) -> Occurrence | None:
        """The occurrence with the words of its source, in the source that has them; None if none has."""
        wanted = _fold(" ".join(str(raw["quote"]).split())).strip(" \"'.…")
        words = _words_of(wanted)
        for source in (str(raw["source"]), *(name for name in self._parts if name != raw["source"])):
            for said, folded in self._said_in(source):
                place = words.search(folded)
                if place and wanted and _tells(wanted, folded):
                    return self._found(raw, source, said, _whole(said.text, *place.span()))
        return None

    def _found(self, raw: Mapping[str, Any], source: str, said: Utterance, quote: str) -> Occurrence:
        fields = {name: value for name, value in raw.items() if name not in ("quote", "source")}
        speaker = said.speaker if self._parts[source].segment else ""  # elsewhere it names a field, not a person
        return Occurrence(fields, quote, source, said.at or self._parts[source].at, speaker)

    def _said_in(self, source: str) -> Iterator[tuple[Utterance, str]]:
        part = self._parts.get(source)
        return zip(part.utterances, self._folded[source], strict=True) if part else iter(())


def _fold(text: str) -> str:
    """`text` with one form of quotation mark, dash and blank; as long as before."""
    return text.translate(_SAME)


def _words_of(wanted: str) -> re.Pattern[str]:
    """What finds a quotation where it begins and ends with whole words, as far as its script has blanks."""
    begin = rf"(?<!{_SPACED})" if re.match(_SPACED, wanted) else ""
    end = rf"(?!{_SPACED})" if re.match(_SPACED, wanted[-1:]) else ""
    return re.compile(begin + re.escape(wanted) + end)


def _tells(wanted: str, whole: str) -> bool:
    """Whether a quotation is more than a word that may stand anywhere."""
    words = max(len(wanted.split()), len(UNSPACED.findall(wanted)) // _SIGNS_A_WORD)
    return words >= _LEAST_WORDS or len(wanted) * 2 >= len(whole)


def _whole(text: str, begin: int, end: int) -> str:
    """The words from `begin` to `end`, with the sign that ends the sentence if it stands there."""
    return text[begin : end + 1] if text[end : end + 1] in set(".!?…") else text[begin:end]
