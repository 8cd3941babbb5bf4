"""A loopback server whose model reads: it answers by the prompt, in any wire form; and topics to ask it about."""

from __future__ import annotations

import json
import re
import shutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.journal_folder import ROOT, JournalFolder
from tests.loopback.behaviours import Answer, Step
from tests.loopback.outcomes import TEXT
from tests.loopback.request import Request
from tests.loopback.scenarios import Asked, load
from tests.loopback.server import LoopbackServer

EXAMPLE = ROOT / "fixtures" / "journal"
DAY = "20261103"
QUOTE = "We decided: firmware 4.2 does not ship on Thursday the fifth."
SOURCE = "140000_2040/transcript.jsonl"
TOPIC = """---
title: Tides
context: insight.tides
schedule: daily
sources: [transcripts, notes]
schema:
  type: object
  properties:
    what: {type: string}
    when: {type: string}
  required: [what]
---
What $preferred heard about the tide on $day.
"""


class ReadingServer(LoopbackServer):
    """Answers each prompt with what `answer` makes of it: text, or a step of the server.

    Attributes:
        prompts: what it was asked, in order of arrival.
    """

    def __init__(self, answer: Callable[[str], str | Step], *, latency_s: float = 0.0) -> None:
        super().__init__(latency_s=latency_s)
        self.answer = answer
        self.prompts: list[str] = []
        self._prompted = threading.Lock()

    def choose(self, request: Request, asked: Asked) -> Step:
        """Answer by the prompt."""
        super().choose(request, asked)
        prompt = "\n".join(_texts(request.body))
        with self._prompted:
            self.prompts.append(prompt)
        said = self.answer(prompt)
        return reply(asked.provider, said) if isinstance(said, str) else said


def reply(wire: str, text: str) -> Answer:
    """A reply of that text in the wire form of a provider."""
    body = json.dumps(load(wire, "text")["body"])
    said = body.replace(json.dumps(TEXT)[1:-1], json.dumps(text)[1:-1])
    assert said != body
    return Answer(json.loads(said))


def found(*occurrences: Mapping[str, Any]) -> str:
    """What a model says that found these."""
    return json.dumps({"occurrences": list(occurrences)})


def one(what: str = "4.2 waits", quote: str = QUOTE, source: str = SOURCE, **more: Any) -> dict[str, Any]:
    """An occurrence as a model gives it."""
    return {"what": what, **more, "quote": quote, "source": source}


def copy_day(journal: JournalFolder, day: str = DAY) -> Path:
    """Put a day of the example into the journal, without its insights."""
    shutil.copytree(EXAMPLE / day, journal.path / day, ignore=shutil.ignore_patterns("insights"))
    return journal.path / day


def add_topic(journal: JournalFolder, text: str = TOPIC, name: str = "tides") -> Path:
    """Put a topic into the folder `topics` of the journal; `config` names it."""
    folder = journal.path / "topics"
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.md"
    path.write_text(text, encoding="utf-8")
    return path


def config(**providers: Any) -> dict[str, Any]:
    """A journal.json that names the folder `topics`, with these providers; the default is echo."""
    sections = {"default": {"provider": "echo"}, **providers}
    identity = {"name": "Maren Tolliver", "preferred": "Maren", "pronouns": "she/her"}
    return {"identity": identity, "descriptors": {"insights": ["../topics"]}, "providers": sections}


def kept(day: Path, topic: str = "tides") -> dict[str, Any]:
    """What is kept of a topic, for programs."""
    state: dict[str, Any] = json.loads((day / "insights" / f"{topic}.json").read_text())
    return state


def links(page: str) -> list[str]:
    """Where a page's links lead."""
    return re.findall(r"\]\((\.\./[^)]+)\)", page)


def _texts(value: Any) -> list[str]:
    """All texts in a request's body."""
    if isinstance(value, str):
        return [value]
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for child in children for text in _texts(child)]
