"""Patterns of schemas: matched in place if that takes few steps, else with a time limit and off the event loop."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muse import testing
from muse.types.json_schema import patterns
from muse.types.json_schema.patterns import MOST_STEPS, has_patterns, may_take_long, most_steps
from muse.types.json_schema.validation import validate
from tests.agent_run import replay
from tests.raw_server import calls_in, one, stdio, tool

HARMLESS = [
    r"^[a-z0-9_-]{1,64}$",
    r"^\d{4}-\d{2}-\d{2}(T\d{2}:\d{2})?$",
    r"^https?://",
    r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{12}$",
    r"^(?:draft|sent|read)$",
    r"^[^@]+@[^@]+\.[^@]+$",
    r"^\S+$",
]
HARMFUL = [
    r"^(a+)+$",
    r"(x+x+)+y",
    r"^(a|aa)+$",
    r"^(a*)*$",
    r"(.*)*b",
    r"^(?:a?){30}a{30}$",
    r"^((a{1,9}){1,9}){1,9}$",
]
HARMFUL += [r"(a+)\1", r"^(?=(a+)+$)", r".*.*.*.*.*=.*"]
STUCK = "a" * 40 + "!"


@pytest.mark.parametrize("pattern", HARMLESS)
def test_usual_patterns_are_matched_in_place(pattern: str) -> None:
    assert not may_take_long({"q": "2026-11-03"}, {"properties": {"q": {"pattern": pattern}}})


@pytest.mark.parametrize("pattern", HARMFUL)
@pytest.mark.parametrize("form", ["pattern", "patternProperties", "nested"])
def test_patterns_that_go_back_over_a_text_are_not(pattern: str, form: str) -> None:
    forms: dict[str, dict[str, Any]] = {
        "pattern": {"properties": {"q": {"pattern": pattern}}},
        "patternProperties": {"patternProperties": {pattern: {}}, "additionalProperties": False},
        "nested": {"$defs": {"a": [{"anyOf": [{"items": {"propertyNames": {"pattern": pattern}}}]}]}},
    }
    assert may_take_long({STUCK: STUCK}, forms[form])
    assert has_patterns(forms[form])


def test_a_check_ends_with_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "TIMEOUT_S", 0.5)
    said = patterns.find_mismatch_isolated({"q": STUCK}, {"properties": {"q": {"pattern": r"^(a+)+$"}}}, 0.5)
    assert said == "a pattern of the schema was not matched within 0.5 s"


@pytest.mark.parametrize(("text", "fits"), [("1.2.3", True), ("x.2.3", False)])
def test_a_pattern_that_may_take_long_is_still_checked(text: str, fits: bool) -> None:
    schema = {"type": "object", "properties": {"q": {"pattern": r"^(\d+\.)+\d+$"}}}
    assert may_take_long({"q": text}, schema)
    if fits:
        validate({"q": text}, schema)
    else:
        with pytest.raises(ValueError, match="does not match"):
            validate({"q": text}, schema)


def test_a_schema_that_refers_to_itself_twice_at_each_step_is_checked_apart() -> None:
    defs = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(30)} | {"d30": {"type": "null"}}
    assert may_take_long("x", {"$defs": defs, "$ref": "#/$defs/d0"})
    assert not may_take_long({}, {"$defs": {"a": {"properties": {"next": {"$ref": "#/$defs/a"}}}}, "$ref": "#/$defs/a"})


_atoms = st.sampled_from(["a", "b", r"\d", "[ab]", "[^a]", ".", r"\.", r"\w"])
_repeats = st.sampled_from(["", "", "*", "+", "?", "{2}", "{1,3}", "{2,}", "*?"])
_pieces = st.tuples(_atoms, _repeats).map("".join)
_flat = st.lists(_pieces | st.just("|") | st.builds("(?:{})".format, _pieces), min_size=1, max_size=6).map("".join)


@given(_flat, st.text("ab1.", max_size=60), st.booleans())
def test_what_is_taken_in_place_takes_no_long_time(pattern: str, text: str, anchored: bool) -> None:
    pattern = f"^{pattern}$" if anchored else pattern
    if most_steps(pattern, len(text)) > MOST_STEPS:
        return
    compiled = re.compile(pattern)
    began_s = time.process_time()
    compiled.search(text)
    assert time.process_time() - began_s < 1.0


@pytest.mark.usefixtures("journal")
@pytest.mark.parametrize("of", ["arguments", "result"])
async def test_a_servers_pattern_holds_neither_the_loop_nor_the_run(
    of: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patterns.find_mismatch_isolated, "__defaults__", (1.0,))
    schema = {"type": "object", "properties": {"q": {"type": "string", "pattern": r"^(a+)+$"}}}
    content = {"content": [{"type": "text", "text": "42"}], "structuredContent": {"q": STUCK}}
    listed = tool("find", schema) if of == "arguments" else tool("find", outputSchema=schema)
    servers = {"a": stdio({**one(listed), "call": {"result": content}}, tmp_path / "seen")}
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.02)
            ticks += 1

    args = {"q": STUCK} if of == "arguments" else {}
    script, run = replay(testing.calls(("find", args)), "Told.", mcp_servers=servers)
    ticking = asyncio.create_task(tick())
    with script:
        assert await run.answer() == "Told."
    ticking.cancel()
    assert "was not matched within" in run.result()["error"]
    assert len(calls_in(tmp_path / "seen")) == (0 if of == "arguments" else 1)
    assert ticks > 5
