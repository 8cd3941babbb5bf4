"""Agent runs carried out as long as a site is up, within its own process tree; it knows no page.

Any number of cortexes share a journal, so this one gets along with a `muse cortex` beside it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from muse.cortex.supervisor import Cortex

log = logging.getLogger(__name__)

_GRACE_S = 2.0
_at_work: set[int] = set()


@asynccontextmanager
async def carrying_out() -> AsyncIterator[None]:
    """Carry out what waits in the journal and what is asked for meanwhile; once for each event loop.

    At the end runs under way have a moment to end by themselves, then they are ended; what waits goes on waiting.
    """
    loop = id(asyncio.get_running_loop())
    if loop in _at_work:
        yield
        return
    cortex = Cortex(grace_s=_GRACE_S)
    task = asyncio.create_task(cortex.serve(), name="cortex")
    task.add_done_callback(_say_why)
    _at_work.add(loop)
    try:
        yield
    finally:
        _at_work.discard(loop)
        cortex.stop()
        await asyncio.wait([task])


def _say_why(task: asyncio.Task[None]) -> None:
    """An end that nobody asked for: pages go on, runs wait for another cortex."""
    if not task.cancelled() and (fault := task.exception()) is not None:
        log.error("no agent runs are carried out here any more (%s); start muse cortex", fault)
