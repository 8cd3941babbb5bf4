"""`python -m tests.chaos.server SHARE SEED`: the loopback server, a share of whose answers go wrong.

On closing stdin it prints what arrived when, by provider.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections import defaultdict

from tests.loopback.behaviours import Answer, Close, CloseHalfway, Drip, Hang, HangHalfway, Raw, Step
from tests.loopback.events import Json
from tests.loopback.request import Request
from tests.loopback.scenarios import Asked
from tests.loopback.server import LoopbackServer

_BUSY: Json = {"error": {"message": "Rate limit reached", "type": "rate_limit_error", "code": "rate_limit_exceeded"}}
_HTML = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 17\r\n\r\n<html>oops</html>"
_SHORT = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 5000\r\n\r\n{"id": "resp_1"'
FAILURES: tuple[tuple[Step, int], ...] = (
    (Answer(_BUSY, 429), 4),
    (Answer(_BUSY, 429, {"retry-after": "0.2"}), 4),
    ("error_500", 4),
    ("error_529", 4),
    (Close(), 4),
    (CloseHalfway(), 3),
    (Raw(_HTML), 3),
    (Raw(_SHORT), 3),
    ("malformed", 3),
    (Drip(interval_s=0.002), 3),
    (Hang(), 1),
    (HangHalfway(), 1),
)


class ChaosServer(LoopbackServer):
    """Answers as ever, but for a share of requests."""

    def __init__(self, share: float, seed: int) -> None:
        super().__init__(record=False, latency_s=0.01)
        self._share = share
        self._random = random.Random(seed)
        self._under_way: set[int] = set()
        self.arrived: defaultdict[str, list[float]] = defaultdict(list)
        self.most_at_once = 0

    def choose(self, request: Request, asked: Asked) -> Step:
        """An answer, or one of the failures."""
        step = super().choose(request, asked)
        self.arrived[asked.provider].append(time.monotonic())
        if self._random.random() < self._share:
            step = self._random.choices(*zip(*FAILURES, strict=True))[0]
        self._under_way.add(request.connection)
        self.most_at_once = max(self.most_at_once, len(self._under_way))
        return step

    def answered(self, number: int) -> None:
        """A request is in flight until it has its answer, or its connection ends."""
        self._under_way.discard(number)

    def closed(self, number: int) -> None:
        """Forget a connection."""
        super().closed(number)
        self._under_way.discard(number)


def main() -> int:
    """Serve until stdin closes."""
    with ChaosServer(float(sys.argv[1]), int(sys.argv[2])) as server:
        sys.stdout.write(json.dumps({"url": server.url}) + "\n")
        sys.stdout.flush()
        sys.stdin.buffer.read()
        seen = {"arrived": server.arrived, "most_at_once": server.most_at_once}
        sys.stdout.write(json.dumps(seen) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
