"""Two Ray nodes on this machine and what runs on them, in a process of its own; it prints JSON and knows no claim.

`python -m tests.ray_nodes batch|pipeline ITEMS AT_ONCE [--kill]`; with `--kill` a node is killed (SIGKILL) when a
third of the calls have been made, which a line on standard input says.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster

from muse.batch import Batch
from muse.batching.ray.actor import DriverSession, MuseActor

CONTEXT = "app.tides"


def main() -> int:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("batch", "pipeline"))
    parser.add_argument("items", type=int)
    parser.add_argument("at_once", type=int)
    parser.add_argument("--kill", action="store_true")
    options = parser.parse_args()
    texts = [f"Question {number}?" for number in range(options.items)]
    with _nodes(kill=options.kill) as session:
        found = asyncio.run(_batch(texts, options.at_once)) if options.what == "batch" else _pipeline(texts)
    sys.stdout.write(json.dumps({"results": found, "session": str(session)}) + "\n")
    return 0


@contextmanager
def _nodes(*, kill: bool) -> Iterator[Path]:
    """Two nodes; the folder where Ray keeps its logs."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    second = cluster.add_node(num_cpus=2)
    ray.init(address=cluster.address, include_dashboard=False, log_to_driver=False)
    if kill:
        threading.Thread(target=_kill_when_told, args=(cluster, second), daemon=True).start()
    try:
        yield Path(cluster.head_node.get_session_dir_path())
    finally:
        ray.shutdown()
        cluster.shutdown()


def _kill_when_told(cluster: Cluster, node: Any) -> None:
    sys.stdin.readline()
    cluster.remove_node(node, allow_graceful=False)


async def _batch(texts: list[str], at_once: int) -> list[dict[str, Any]]:
    batch = Batch(max_concurrent=at_once, engine="ray", ledger="on-ray")
    batch.feed(batch.create(contents=text, context=CONTEXT) for text in texts)
    found = [
        {
            "asked": request.contents,
            "response": request.response,
            "error": request.error,
            "kind": type(request.exception).__name__,
            "attempts": len(request.attempts),
            "tokens": request.usage.total_tokens,
            "cost_usd": request.cost_usd,
        }
        async for request in batch.drain_batch()
    ]
    batch.close()
    return found


def _pipeline(texts: list[str]) -> list[dict[str, Any]]:
    ray.data.DataContext.get_current().enable_progress_bars = False
    with DriverSession(workers=2) as host:
        asked = ray.data.from_items([{"asked": text} for text in texts], override_num_blocks=8)
        answered = asked.map_batches(
            MuseActor,
            fn_constructor_kwargs={"host": host, "context": CONTEXT, "template": "{asked}", "at_once": 10},
            compute=ray.data.ActorPoolStrategy(size=2),
            batch_format="pyarrow",
        )
        return list(answered.iter_rows())


if __name__ == "__main__":
    sys.exit(main())
