"""A loopback server in OpenAI's wire form whose model sees: it answers by what it is asked; it knows no test."""

from __future__ import annotations

import copy
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.journal_folder import JournalFolder
from tests.loopback.behaviours import Answer, Step
from tests.loopback.request import Request
from tests.loopback.scenarios import Asked, load, names
from tests.loopback.server import LoopbackServer

Answerer = Callable[[str, str], str | Step | None]
KEY = "sk-openai-0123456789abcdef-secret"


class SeeingServer(LoopbackServer):
    """Tells frames apart, chooses the first that is open, reads.

    Attributes:
        category: what every frame is said to be.
        answer: called with the kind of question and its prompt; what it gives, if anything, is answered instead: text,
            or a scenario or behaviour of the server.
        asked: how often each kind of question came: "frame", "selection", "read" (with a picture), "text".
        prompts: the text of each question, in order of arrival.
        pictures: the data URLs that came with the frames to be told apart.
    """

    def __init__(self, *, latency_s: float = 0.0) -> None:
        super().__init__(latency_s=latency_s)
        self.category = "code"
        self.answer: Answerer = lambda _kind, _prompt: None
        self.asked: Counter[str] = Counter()
        self.prompts: list[str] = []
        self.pictures: list[str] = []

    def choose(self, request: Request, asked: Asked) -> Step:
        """Answer by the prompt."""
        super().choose(request, asked)
        prompt, pictures = _said(request.body)
        kind = _kind(prompt, has_picture=bool(pictures))
        self.asked[kind] += 1
        self.prompts.append(prompt)
        if kind == "frame":
            self.pictures += pictures
        own = self.answer(kind, prompt)
        if own is None:
            own = self._usual(kind, prompt)
        return said(own) if isinstance(own, str) and own not in names("openai") else own

    def _usual(self, kind: str, prompt: str) -> str:
        if kind == "frame":
            return frame(self.category)
        if kind == "selection":
            open_ones = [int(number) for number in re.findall(r"^(\d+)\.(?![^:]*\[)", prompt, re.MULTILINE)]
            return json.dumps({"chosen": [{"frame": number, "why": "new content"} for number in open_ones[:1]]})
        return json.dumps({"read": "off"}) if "one JSON object" in prompt else "**Read** off"


def frame(category: str, description: str = "A file is edited.") -> str:
    """An answer about a frame."""
    return json.dumps({"why": "by its look", "category": category, "description": description})


def said(text: str) -> Answer:
    """An answer with this text."""
    body = copy.deepcopy(load("openai", "text")["body"])
    body["output"][0]["content"][0]["text"] = text
    return Answer(body)


def _kind(prompt: str, *, has_picture: bool) -> str:
    if has_picture:
        return "frame" if "which of these categories" in prompt else "read"
    return "selection" if "worth it" in prompt and "recording" in prompt else "text"


def _said(body: dict[str, Any]) -> tuple[str, list[str]]:
    """The text and the pictures of a request in the form of the Responses API."""
    texts: list[str] = []
    pictures: list[str] = []
    for item in body.get("input", []):
        content = item.get("content", [])
        for part in [{"text": content}] if isinstance(content, str) else content:
            if part.get("type") == "input_image":
                pictures.append(part["image_url"])
            else:
                texts.append(str(part.get("text", "")))
    return "\n".join(texts), pictures


@pytest.fixture
def seeing(journal: JournalFolder, monkeypatch: pytest.MonkeyPatch) -> Iterator[SeeingServer]:
    """The server, with everything routed to it; each call is tried once."""
    with SeeingServer() as server:
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
        journal.route(default={"provider": "openai", "model": "gpt-5-mini", "retries": 0})
        yield server
