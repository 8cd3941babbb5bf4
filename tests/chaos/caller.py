"""`python -m tests.chaos.caller DONE FIRST COUNT AT_ONCE TIMEOUT JUMPS`: calls through muse, and how each went.

Each answer is a line in DONE: number, provider, seconds. What stands there already is not asked for again, so a caller
that was killed is started anew with the same words.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from pathlib import Path

import anthropic  # noqa: F401 - loaded before the first call is timed
import openai  # noqa: F401

from muse import models
from muse.errors import MuseError
from muse.policies import rate_limiter

WINDOW_S = 2.0


async def main() -> None:
    """Make the calls, so many at once, and write down how each went."""
    path, first, count, at_once, timeout_s = Path(sys.argv[1]), *map(int, sys.argv[2:5]), float(sys.argv[5])
    if sys.argv[6] == "jumps":
        _let_the_clock_jump()
    rate_limiter._MINUTE_S = WINDOW_S
    rate_limiter._STOCK_S = 0.2
    done = _done(path)
    left = iter([number for number in range(first, first + count) if number not in done])
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    async def work() -> None:
        for number in left:
            os.write(handle, (json.dumps(await _ask(number, timeout_s)) + "\n").encode())

    await asyncio.gather(*(work() for _ in range(at_once)))


def _done(path: Path) -> set[int]:
    if not path.exists():
        return set()
    lines = path.read_bytes().split(b"\n")[:-1]
    return {row["number"] for row in map(json.loads, lines)}


async def _ask(number: int, timeout_s: float) -> dict[str, object]:
    """One call, whole or streamed."""
    began_s = time.monotonic()
    row: dict[str, object] = {"number": number}
    try:
        if number % 4:
            reply = await models.areply(f"When does tide {number} turn?", "app.tides", timeout_s=timeout_s)
        else:
            async with await models.astream(
                f"When does tide {number} turn?", "app.tides", timeout_s=timeout_s
            ) as stream:
                reply = await stream.reply()
        row |= {"provider": reply.provider, "attempts": len(reply.attempts)}
    except MuseError as exc:
        tries = [f"{one.provider} {one.duration_s:.1f} s {one.error}" for one in exc.attempts]
        others = [f"then {type(other).__name__}: {other}" for other in exc.others]
        row |= {"error": f"{type(exc).__name__}: {exc}", "tries": tries + others}
    return row | {"seconds": round(time.monotonic() - began_s, 4)}


def _let_the_clock_jump() -> None:
    """Have the wall clock be wrong by up to a day, another time at each look."""
    real, luck = time.time, random.Random(7)
    time.time = lambda: real() + luck.uniform(-86_400, 86_400)


if __name__ == "__main__":
    asyncio.run(main())
