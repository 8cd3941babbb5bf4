"""The people of a day: who spoke and who was invited, by their fullest names, without the owner; it asks nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from think.entries.entries import Event
from think.entries.transcripts import Part

_LABEL = re.compile(r"(speaker|participant|unknown)\b.*", re.IGNORECASE)


class Person(Struct, frozen=True):
    """Somebody: the fullest name there is, and the name by which transcripts know them."""

    name: str
    short: str

    def is_in(self, text: str) -> bool:
        """Whether a text names them."""
        return re.search(rf"\b{re.escape(self.short)}\b", text) is not None


def people_of(parts: Sequence[Part], events: Sequence[Event], identity: Mapping[str, Any]) -> tuple[Person, ...]:
    """Who spoke in the parts or took part in the events, in the order in which they come up, each once."""
    invited = list(dict.fromkeys(name for event in events for name in event.participants))
    spoke = dict.fromkeys(said.speaker for part in parts if part.segment for said in part.utterances if said.speaker)
    found = {full_name(name, invited): name.split()[0] for name in (*spoke, *invited) if not _LABEL.fullmatch(name)}
    own = _own_names(identity)
    return tuple(Person(name, short) for name, short in found.items() if name.casefold() not in own)


def full_name(name: str, known: Iterable[str]) -> str:
    """The one of the `known` full names that begins with this name; the name itself if none or several do."""
    longer = [full for full in dict.fromkeys(known) if full.split()[:1] == [name]]
    return longer[0] if len(longer) == 1 else name


def _own_names(identity: Mapping[str, Any]) -> frozenset[str]:
    aliases = identity.get("aliases")
    names = [identity.get("name"), identity.get("preferred"), *(aliases if isinstance(aliases, list) else ())]
    return frozenset(str(name).casefold() for name in names if name)
