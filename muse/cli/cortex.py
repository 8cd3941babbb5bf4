"""`muse cortex`: carries out the agent runs that are asked for, until it is told to stop; it asks for none."""

from __future__ import annotations

import argparse
import asyncio
import signal

from muse.cli._terminal import arguments, terminal
from muse.cortex.supervisor import DEFAULT_GRACE_S, DEFAULT_MAX_CONCURRENT, Cortex
from muse.runs import run_files

HELP = "Carry out the agent runs that wait in the journal, and those asked for later, until SIGINT or SIGTERM."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How many at once, and for how long."""
    parser.add_argument(
        "-n", "--max-concurrent", type=arguments.count, default=DEFAULT_MAX_CONCURRENT, metavar="N",
        help=f"at most so many runs at once ({DEFAULT_MAX_CONCURRENT})",
    )  # fmt: skip
    parser.add_argument("--once", action="store_true", help="carry out what waits now, then end")
    parser.add_argument(
        "--grace", type=arguments.seconds, default=DEFAULT_GRACE_S, metavar="SECONDS",
        help=f"when stopped, let runs under way end by themselves for so long ({DEFAULT_GRACE_S:g})",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Work until stopped; 0."""
    return asyncio.run(_work(Cortex(max_concurrent=args.max_concurrent, grace_s=args.grace), once=args.once))


async def _work(cortex: Cortex, *, once: bool) -> int:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, cortex.stop)
    if once:
        await cortex.drain()
        return 0
    terminal.say(f"carrying out runs of {run_files.folder()}; Ctrl-C stops", "dim")
    await cortex.serve()
    return 0
