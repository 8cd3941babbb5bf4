"""`python -m benchmarks.tool_server`: the loopback server, asking for two tools at a time until it has enough results.

It measures nothing.
"""

from __future__ import annotations

import json
import sys

from tests.loopback.behaviours import Step
from tests.loopback.request import Request
from tests.loopback.scenarios import Asked
from tests.loopback.server import LoopbackServer

TOOL_TURNS = 10
_RESULT = {"openai": b'"function_call_output"', "anthropic": b'"tool_result"', "google": b'"functionResponse"'}
_RESULTS = 2 * TOOL_TURNS


class ToolServer(LoopbackServer):
    """Answers with two tool calls, and with a text once a conversation holds the results of `TOOL_TURNS` turns."""

    def choose(self, request: Request, asked: Asked) -> Step:
        """What follows upon the results that the request brings."""
        super().choose(request, asked)
        return "text" if request.content.count(_RESULT[asked.provider]) >= _RESULTS else "tools"


def main() -> int:
    """Serve until stdin closes."""
    with ToolServer(record=False) as server:
        print(json.dumps({"url": server.url}), flush=True)
        sys.stdin.buffer.read()
    return 0


if __name__ == "__main__":
    sys.exit(main())
