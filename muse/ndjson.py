"""Lines of standard input while runs are under way: requests, and answers to runs; it parses no request."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from typing import IO

_END = None


class Lines:
    """The lines of a text source, read by a thread of their own, so that a run may wait for an answer among them.

    A line `{"approval": "<call id>", "approved": true | false}` answers an `approval` event; all others are requests.
    """

    def __init__(self, source: IO[str]) -> None:
        self._source = source
        self._requests: asyncio.Queue[str | None] = asyncio.Queue()
        self._asked: dict[str, asyncio.Future[bool]] = {}
        self._is_over = False

    async def requests(self) -> AsyncIterator[str]:
        """The request lines, until the source ends; blank ones are passed over."""
        loop = asyncio.get_running_loop()
        reader = threading.Thread(target=self._read, args=(loop,), name="stdin", daemon=True)
        reader.start()
        while (line := await self._requests.get()) is not _END:
            yield line

    async def answer(self, call_id: str) -> bool:
        """Wait for the answer to one call; no, if the source ends first."""
        if self._is_over:
            return False
        asked = self._asked[call_id] = asyncio.get_running_loop().create_future()
        try:
            return bool(await asked)
        finally:
            self._asked.pop(call_id, None)

    def _read(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            for line in self._source:
                if line.strip():
                    loop.call_soon_threadsafe(self._take, line)
            loop.call_soon_threadsafe(self._end)
        except RuntimeError:  # the loop is closed: nobody reads any more
            return

    def _take(self, line: str) -> None:
        answer = _answer_in(line)
        if answer is None:
            self._requests.put_nowait(line)
            return
        asked = self._asked.get(answer[0])
        if asked is not None and not asked.done():
            asked.set_result(answer[1])

    def _end(self) -> None:
        self._is_over = True
        for asked in self._asked.values():
            if not asked.done():
                asked.set_result(False)
        self._requests.put_nowait(_END)


def _answer_in(line: str) -> tuple[str, bool] | None:
    """`(call id, yes or no)` if the line is an answer."""
    if '"approval"' not in line:
        return None
    try:
        said = json.loads(line)
    except ValueError:
        return None
    if not isinstance(said, dict) or not isinstance(said.get("approval"), str) or "prompt" in said:
        return None
    return said["approval"], said.get("approved") is True
