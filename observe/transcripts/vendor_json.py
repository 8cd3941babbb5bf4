"""The JSON that recorders and speech services write, as rows with words, speaker and start; it reads no file.

Whisper and whisper.cpp (`segments`, `transcription`), Deepgram (`results.utterances`, `results.channels`), AssemblyAI
(`utterances`, times in milliseconds), Amazon Transcribe (`results.audio_segments`), Rev (`monologues`), Otter
(`transcripts`), and any list of objects with a text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

Row = dict[str, Any]
_TEXTS = ("text", "transcript", "punctuated_word", "content", "words", "body", "message")
_SPEAKERS = ("speaker", "speaker_label", "speaker_name", "name", "participant", "author", "user")
_STARTS = ("start_s", "start", "start_time", "startTime", "ts", "begin", "offset", "timestamp", "time")
_LISTS = (
    "utterances",
    "segments",
    "transcription",
    "audio_segments",
    "monologues",
    "transcripts",
    "sentences",
    "entries",
    "messages",
    "results",
)
_MILLISECONDS = "_muse_ms"
_MOST_DEPTH = 5


def rows_of(value: Any) -> list[Row]:
    """The rows in a recorder's JSON; none where there are none, an empty one for each that is no row."""
    if isinstance(value, Mapping):
        paragraphs = _paragraphs(value)
        if paragraphs:
            return paragraphs
    found = _find(value, 0)
    rows = [_row(row) for row in found]
    if isinstance(value, Mapping) and "utterances" in value and _is_in_milliseconds(value):
        rows = [{**row, _MILLISECONDS: True} for row in rows]
    if not any(rows) and isinstance(value, Mapping) and text_of(value):
        return [dict(value)]
    return rows


def _row(value: Any) -> Row:
    if isinstance(value, Mapping):
        return dict(value)
    return {"text": value} if isinstance(value, str) else {}


def text_of(row: Mapping[str, Any]) -> str:
    """The words of a row."""
    for name in _TEXTS:
        said = row.get(name)
        if isinstance(said, str) and said.strip():
            return said
    elements = row.get("elements")
    if isinstance(elements, list):
        return "".join(str(one.get("value") or "") for one in elements if isinstance(one, Mapping))
    return ""


def speaker_of(row: Mapping[str, Any]) -> str:
    """Who says a row; a number or letter becomes `Speaker 2`."""
    for name in _SPEAKERS:
        said = row.get(name)
        if isinstance(said, Mapping):
            named = said.get("name")
            said = said.get("id") if named is None or named == "" else named
        if not isinstance(said, str | int) or isinstance(said, bool) or said == "":
            continue
        label = str(said)
        number = re.fullmatch(r"(?:spk|speaker)?[_ -]?(\d+)|([A-Z])", label, re.IGNORECASE)
        return f"Speaker {number[1] or number[2]}" if number else label
    return ""


def start_of(row: Mapping[str, Any]) -> float | None:
    """When a row begins, in seconds; None where it does not say."""
    offsets = row.get("offsets")
    if isinstance(offsets, Mapping) and (from_ms := _number(offsets.get("from"))) is not None:
        return round(from_ms / 1000, 3)
    elements = row.get("elements")
    if isinstance(elements, list):
        row = next((one for one in elements if isinstance(one, Mapping) and "ts" in one), row)
    for name in _STARTS:
        found = _number(row.get(name))
        if found is not None:
            return round(found / 1000 if row.get(_MILLISECONDS) else found, 3)
    return None


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return float(value) if 0 <= value < 1e9 else None
    text = str(value).removesuffix("s")
    if re.fullmatch(r"\d{1,9}(?:\.\d+)?", text):
        return float(text)
    clock = re.fullmatch(r"(?:(\d{1,2}):)?(\d{1,2}):(\d{2}(?:[.,]\d+)?)", text)
    return int(clock[1] or 0) * 3600 + int(clock[2]) * 60 + float(clock[3].replace(",", ".")) if clock else None


def _paragraphs(value: Mapping[str, Any]) -> list[Row]:
    """Deepgram without utterances: paragraphs, each a list of sentences; else its words, one row a speaker's run."""
    results = value.get("results")
    channels = results.get("channels") if isinstance(results, Mapping) and not results.get("utterances") else None
    if not isinstance(channels, list):
        return []
    rows: list[Row] = []
    for channel in channels:
        best = _first(channel.get("alternatives")) if isinstance(channel, Mapping) else {}
        parts = _mapping(best.get("paragraphs")).get("paragraphs")
        if isinstance(parts, list):
            rows += [_paragraph(part) for part in parts if isinstance(part, Mapping)]
        elif best:
            rows.append({"text": best.get("transcript", ""), "start": _first(best.get("words")).get("start")})
    return rows


def _paragraph(part: Mapping[str, Any]) -> Row:
    sentences = part.get("sentences")
    said = [text_of(one) for one in sentences if isinstance(one, Mapping)] if isinstance(sentences, list) else []
    return {"text": " ".join(said), "speaker": part.get("speaker"), "start": part.get("start")}


def _first(value: Any) -> Mapping[str, Any]:
    return _mapping(value[0]) if isinstance(value, list) and value else {}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _find(value: Any, depth: int) -> list[Any]:
    """The list that holds the rows: the value itself, or the first that a known name leads to."""
    if isinstance(value, list):
        return value
    if not isinstance(value, Mapping) or depth > _MOST_DEPTH:
        return []
    for name in _LISTS:
        if name in value:
            found = _find(value[name], depth + 1)
            if found:
                return found
    return next(
        (found for child in value.values() if isinstance(child, Mapping) and (found := _find(child, depth + 1))), []
    )


def _is_in_milliseconds(value: Mapping[str, Any]) -> bool:
    """AssemblyAI counts whole milliseconds, with an `audio_duration` in seconds or starts no conversation reaches."""
    said = value["utterances"]
    rows = [row for row in said if isinstance(row, Mapping)] if isinstance(said, list) else []
    starts = [row["start"] for row in rows if row.get("start") is not None]
    whole = [start for start in starts if isinstance(start, int)]
    if not whole or len(whole) < len(starts):
        return False
    return "audio_duration" in value or "words" in rows[0] or max(whole) > 86_400
