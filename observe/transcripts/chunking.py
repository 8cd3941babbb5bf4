"""What was said in pieces that a model holds; it knows no model."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from observe.transcripts.parser import Utterance, said_line

_SHORTEST_PIECE = 40


def chunks(utterances: Sequence[Utterance], most_chars: int) -> list[tuple[Utterance, ...]]:
    """Neighbouring utterances in pieces of about equal length, none longer than `most_chars`."""
    whole = [piece for one in utterances for piece in _pieces(one, most_chars)]
    length = sum(len(said_line(one)) + 1 for one in whole)
    goal = length / max(1, -(-length // most_chars))
    found: list[list[Utterance]] = [[]]
    filled = 0
    for one in whole:
        chars = len(said_line(one)) + 1
        if found[-1] and (filled + chars > most_chars or filled >= goal):
            found.append([])
            filled = 0
        found[-1].append(one)
        filled += chars
    return [tuple(part) for part in found if part]


def _pieces(one: Utterance, most_chars: int) -> list[Utterance]:
    """An utterance, cut at words where it alone is too long."""
    room = max(most_chars - len(one.speaker) - 3, _SHORTEST_PIECE)
    if len(one.text) <= room:
        return [one]
    parts: list[str] = []
    rest = one.text
    while len(rest) > room:
        cut = rest.rfind(" ", 1, room)
        cut = cut if cut > 0 else room
        parts.append(rest[:cut].strip())
        rest = rest[cut:].strip()
    return [replace(one, text=part) for part in (*parts, rest) if part]
