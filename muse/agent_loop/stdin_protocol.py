"""Lines of standard input while runs are under way: requests, and answers to runs; it parses no request."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

from msgspec import Struct

log = logging.getLogger(__name__)
_END = None


class StdinProtocol:
    """The lines of a text source, read by a thread of their own, so that a run may wait for an answer among them.

    A line `{"approval": "<call id>", "approved": true | false}` answers an `approval` event; all others are requests.
    Runs side by side may call with the same id: an answer with the event's `agent_id` means that run, one without it
    the one that has waited longest.
    """

    def __init__(self, source: Iterable[str]) -> None:
        self._source = source
        self._requests: asyncio.Queue[str | None] = asyncio.Queue()
        self._asked: list[_PendingApproval] = []
        self._is_over = False

    async def requests(self) -> AsyncIterator[str]:
        """The request lines, until the source ends; blank ones are passed over."""
        loop = asyncio.get_running_loop()
        reader = threading.Thread(target=self._read, args=(loop,), name="stdin", daemon=True)
        reader.start()
        while (line := await self._requests.get()) is not _END:
            yield line

    async def answer(self, agent_id: str, call_id: str) -> bool:
        """Wait for the answer to one call of a run; no, if the source ends first."""
        if self._is_over:
            return False
        asked = _PendingApproval(agent_id, call_id, asyncio.get_running_loop().create_future())
        self._asked.append(asked)
        try:
            return await asked.answer
        finally:
            self._asked.remove(asked)

    def _read(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            for line in self._source:
                if line.strip():
                    loop.call_soon_threadsafe(self._take, line)
            loop.call_soon_threadsafe(self._end)
        except RuntimeError:
            log.debug("lines of standard input are left: nobody runs them any more")

    def _take(self, line: str) -> None:
        said = _answer_in(line)
        if said is None:
            self._requests.put_nowait(line)
            return
        for asked in self._asked:
            if asked.is_meant_by(said) and not asked.answer.done():
                asked.answer.set_result(said.get("approved") is True)
                return
        log.warning("an answer to an approval that nobody waits for: %s", line.strip()[:200])

    def _end(self) -> None:
        self._is_over = True
        for asked in self._asked:
            if not asked.answer.done():
                asked.answer.set_result(False)
        self._requests.put_nowait(_END)


class _PendingApproval(Struct, eq=False):
    """A call of a run that waits for somebody's yes or no."""

    agent_id: str
    call_id: str
    answer: asyncio.Future[bool]

    def is_meant_by(self, said: Mapping[str, Any]) -> bool:
        """Whether an answer is for this call."""
        return said["approval"] == self.call_id and said.get("agent_id") in (None, self.agent_id)


def _answer_in(line: str) -> Mapping[str, Any] | None:
    """The line as an answer to an approval; None if it is none."""
    if '"approval"' not in line:
        return None
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        return None
    is_answer = isinstance(said, dict) and isinstance(said.get("approval"), str) and "prompt" not in said
    return said if is_answer else None
