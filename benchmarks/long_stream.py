"""`python -m benchmarks.long_stream`: the loopback server, its answers a thousand words long; it measures nothing."""

from __future__ import annotations

import copy
import json
import sys

from benchmarks.world import Json
from tests.loopback.behaviours import Answer, Step
from tests.loopback.request import Request
from tests.loopback.scenarios import PROVIDERS, Asked, load
from tests.loopback.server import LoopbackServer

WORDS = 1_000


class LongServer(LoopbackServer):
    """Answers every call with a text of `WORDS` words, an event a word where it is streamed."""

    def __init__(self) -> None:
        super().__init__(record=False)
        self._answers = {name: Answer(_lengthened(name, load(name, "text")["body"])) for name in PROVIDERS}

    def choose(self, request: Request, asked: Asked) -> Step:
        """The long answer in the wire form that is asked for."""
        super().choose(request, asked)
        return self._answers[asked.provider]


def _lengthened(provider: str, body: Json) -> Json:
    text = " ".join(f"word{n % 10}" for n in range(WORDS))
    long = copy.deepcopy(body)
    part: Json = {
        "openai": lambda: long["output"][0]["content"][0],
        "anthropic": lambda: long["content"][0],
        "google": lambda: long["candidates"][0]["content"]["parts"][0],
        "compatible": lambda: long["choices"][0]["message"],
    }[provider]()
    part["content" if provider == "compatible" else "text"] = text
    return long


def main() -> int:
    """Serve until stdin closes."""
    with LongServer() as server:
        print(json.dumps({"url": server.url}), flush=True)
        sys.stdin.buffer.read()
    return 0


if __name__ == "__main__":
    sys.exit(main())
