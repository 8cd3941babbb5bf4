"""Batches on two Ray nodes of this machine, one of which is killed: each item has one result, each call one line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from muse.batching.store.store import Store
from tests.desk import Desk
from tests.journal_folder import ROOT, environment
from tests.loopback.server import LoopbackServer
from tests.provider_cases import Case

pytest.importorskip("ray", reason="needs muse-router[ray]: make test-ray")

OPENAI = Case("openai", "openai", "gpt-5-mini")
TIMEOUT_S = 100


def on_nodes(server: LoopbackServer, *arguments: str, kill_after: int = 0) -> dict[str, Any]:
    """What the program on two nodes found and said; a node is killed after so many calls."""
    command = [sys.executable, "-m", "tests.ray_nodes", *arguments, *(["--kill"] if kill_after else [])]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(PYTHONWARNINGS=""), text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:  # fmt: skip
        try:
            if kill_after:
                assert child.stdin is not None
                assert server.wait_until(lambda at: len(at.requests) >= kill_after, 60)
                child.stdin.write("now\n")
                child.stdin.flush()
            out, err = child.communicate(timeout=TIMEOUT_S)
        finally:
            child.kill()
    assert child.returncode == 0, err
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return {**found, "said": err}


def asked(server: LoopbackServer) -> Counter[str]:
    """How often the server was asked what."""
    return Counter(json.loads(request.content)["input"][0]["content"][0]["text"] for request in server.requests)


def texts(count: int) -> set[str]:
    return {f"Question {number}?" for number in range(count)}


def files_with(text: str, *folders: Path) -> list[Path]:
    files = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    return [path for path in files if text.encode() in path.read_bytes()]


def test_a_node_that_is_killed_costs_no_result_and_doubles_none(desk: Desk, server: LoopbackServer) -> None:
    desk.use(OPENAI)
    server.latency_s = 0.1
    found = on_nodes(server, "batch", "600", "20", kill_after=200)
    assert "is lost with" in found["said"]
    results = found["results"]
    assert Counter(row["asked"] for row in results) == Counter(texts(600))
    assert {row["error"] for row in results} == {None}
    assert asked(server).keys() == texts(600)
    assert 600 <= len(server.requests) <= 600 + 20  # those that were under way on the node
    lines = desk.journal.lines()
    assert len(lines) == sum(row["attempts"] for row in results) == 600
    assert sum(line["usage"]["total_tokens"] for line in lines) == sum(row["tokens"] for row in results)
    assert sum(line["cost_usd"] for line in lines) == pytest.approx(sum(row["cost_usd"] for row in results))
    kept = Store("on-ray", must_exist=True)
    assert [(one.state, one.items) for one in kept.sums()] == [("done", 600)]
    kept.close()
    assert files_with(OPENAI.key, desk.journal.path, Path(found["session"])) == []


def test_errors_come_back_as_they_were_raised(desk: Desk, server: LoopbackServer) -> None:
    desk.use(OPENAI)
    desk.play(OPENAI, "error_401")
    found = on_nodes(server, "batch", "10", "4")
    kinds = Counter(row["kind"] for row in found["results"])
    assert kinds == {"NoneType": 9, "AuthError": 1}
    assert len(desk.journal.lines()) == sum(row["attempts"] for row in found["results"]) == 10


def test_a_limit_on_calls_in_flight_holds_on_all_nodes_together(desk: Desk, server: LoopbackServer) -> None:
    desk.use(OPENAI)
    desk.journal.write({"providers": {**OPENAI.providers(server.url), "limits": [{"in_flight": 4}]}})
    server.latency_s = 0.25
    found = on_nodes(server, "batch", "24", "24")
    assert len(found["results"]) == 24
    arrived = sorted(request.arrived_s for request in server.requests)
    most = max(sum(at <= other < at + server.latency_s * 0.95 for other in arrived) for at in arrived)
    assert 2 < most <= 4  # both nodes, each with its half


def test_a_pipeline_has_one_row_for_each_item_when_a_node_is_killed(desk: Desk, server: LoopbackServer) -> None:
    desk.use(OPENAI)
    server.latency_s = 0.1
    found = on_nodes(server, "pipeline", "400", "10", kill_after=130)
    rows = found["results"]
    assert Counter(row["asked"] for row in rows) == Counter(texts(400))
    assert {row["error"] for row in rows} == {None}
    assert {row["provider"] for row in rows} == {"openai"}
    assert asked(server).keys() == texts(400)
    lines = desk.journal.lines()
    assert 400 <= len(lines) <= len(server.requests)  # what a killed worker had not reported is not known
    assert all(row["input_tokens"] and row["cost_usd"] and row["duration_s"] for row in rows)
    assert files_with(OPENAI.key, desk.journal.path, Path(found["session"])) == []
