"""muse/journal.schema.json and muse.journal.config.parse_config agree on every document, as an editor and muse must."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import muse
from muse.journal import config, policy_config
from muse.journal.config import parse_config

ROOT = Path(muse.__file__).parent
SCHEMA = json.loads((ROOT / "journal.schema.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

text = st.text(min_size=1, max_size=6).filter(lambda text: bool(text.strip()))
tier = st.sampled_from([1, 2, 3])
tier_models = st.dictionaries(st.sampled_from(["1", "2", "3"]), text, max_size=3)
whole, number = st.integers(1, 10**6), st.floats(1e-3, 1e6)
seconds = number | whole
target = st.fixed_dictionaries({"provider": text}, optional={"tier": tier, "model": text})
entry = st.fixed_dictionaries(
    {},
    optional={
        "provider": text,
        "tier": tier,
        "model": text,
        "fallbacks": st.lists(text | target, max_size=2),
        "fallback_on": st.lists(st.sampled_from(["blocked", "truncated"]), max_size=2),
        "allow": st.lists(text, max_size=2),
        "retries": st.integers(0, 20),
        "on_limit": st.sampled_from(["wait", "raise"]),
    }
    | dict.fromkeys(["local_only", "interactive"], st.booleans())
    | dict.fromkeys(["timeout_s", "first_token_s", "stall_s", "hedge_s", "cache_s"], seconds),
)
limit = st.fixed_dictionaries(
    {"requests_per_minute": whole},
    optional=dict.fromkeys(["provider", "model", "context"], text)
    | dict.fromkeys(["tokens_per_minute", "tokens_per_day", "in_flight"], whole)
    | {"usd_per_day": seconds},
)
share = st.floats(0, 1)
budget = st.fixed_dictionaries(
    {"usd": seconds},
    optional={
        "context": text,
        "window": st.sampled_from(["day", "week", "month"]),
        "currency": st.just("USD"),
        "degrade_at": share,
        "unpriced_usd": share,
    },
)
gateway = st.fixed_dictionaries(
    {"base_url": st.sampled_from(["http://127.0.0.1:1/v1", "https://x.example"])},
    optional={"env_key": text, "label": text, "models": tier_models, "images": st.booleans()},
)
local = st.fixed_dictionaries({}, optional={"model_path": text, "context_tokens": st.integers(512, 1_048_576)})
names = st.text(max_size=6)
gateway_names = st.sampled_from(["weir", "W2", "my-own", "a_b"])
providers = st.fixed_dictionaries(
    {},
    optional={
        "default": entry,
        "contexts": st.dictionaries(names, entry, max_size=3),
        "models": st.dictionaries(names, tier_models, max_size=2),
        "compatible": st.dictionaries(gateway_names, gateway, max_size=2),
        "local": local,
        "system_instruction": text,
        "limits": st.lists(limit, max_size=2),
        "budgets": st.lists(budget, max_size=2),
        "breaker": st.fixed_dictionaries({}, optional={"failures": st.integers(0, 99), "cool_down_s": seconds}),
        "cache": st.fixed_dictionaries({}, optional={"max_mb": seconds}),
    },
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**7) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
folders = st.lists(text, max_size=2)
limits = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(["max_turns", "max_tokens", "max_tool_calls", "max_total_tokens"], whole)
    | dict.fromkeys(["max_cost_usd", "timeout_s", "tool_timeout_s"], number | whole),
)
further = {"args": st.lists(st.text(max_size=3), max_size=2), "env": st.dictionaries(names, st.text(max_size=3))}
server = st.fixed_dictionaries({"url": text}, optional=further) | st.fixed_dictionaries(
    {"command": text}, optional=further
)
valid = st.fixed_dictionaries(
    {},
    optional={
        "$schema": text,
        "providers": providers,
        "agents": limits,
        "mcp_servers": st.dictionaries(names, server, max_size=2),
        "identity": st.dictionaries(st.sampled_from(["name", "pronouns", "boat"]), anything, max_size=3),
        "env": st.dictionaries(names, st.text(max_size=3), max_size=3),
        "descriptors": st.fixed_dictionaries(
            {}, optional={"categories": folders, "agents": folders, "apps": folders, "insights": folders}
        ),
    },
)
KEYS = ["$schema", "providers", "default", "contexts", "models", "compatible", "local", "system_instruction", "tier"]
KEYS += ["provider", "model", "base_url", "images", "env", "identity", "1", "4", "context_tokens", "categories", ""]
KEYS += ["fallbacks", "allow", "retries", "limits", "budgets", "usd", "window", "in_flight", "cache_s", "breaker"]
KEYS += ["agents", "max_turns", "max_cost_usd", "mcp_servers", "url", "command", "args"]


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, Any]:
    """A valid document in which one or two places hold something else, are missing, or have a further key."""
    document: dict[str, Any] = copy.deepcopy(draw(valid))
    for _ in range(draw(st.integers(1, 2))):
        node: Any = document
        while isinstance(node, (dict, list)) and node:
            key = draw(st.sampled_from(sorted(node))) if isinstance(node, dict) else draw(st.integers(0, len(node) - 1))
            if not isinstance(node[key], (dict, list)) or not node[key] or draw(st.booleans()):
                break
            node = node[key]
        _mutate(draw, node)
    return document


def _mutate(draw: st.DrawFn, node: Any) -> None:
    if isinstance(node, list):
        node.append(draw(anything))
    elif node and draw(st.booleans()):
        key = draw(st.sampled_from(sorted(node)))
        if draw(st.booleans()):
            del node[key]
        else:
            node[key] = draw(anything)
    else:
        node[draw(st.sampled_from(KEYS))] = draw(anything)


def agree(document: Mapping[str, Any]) -> bool:
    """Whether schema and parser say the same of `document`."""
    problems = parse_config(document)[1]
    errors = [error.message for error in VALIDATOR.iter_errors(document)]
    assert bool(problems) == bool(errors), f"parser: {[str(p) for p in problems]}, schema: {errors}"
    return not problems


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@given(valid)
def test_a_valid_document_is_valid_to_both(document: dict[str, Any]) -> None:
    assert agree(document)


@given(mutated())
@example({"providers": {"contexts": {"a": None}}})
@example({"providers": {"default": {"tier": 1.0}}})
@example({"providers": {"local": {"context_tokens": 4096.0}}})
@example({"providers": {"compatible": {"9": {"base_url": "http://x"}}}})
def test_parser_and_schema_agree_on_damaged_documents(document: dict[str, Any]) -> None:
    agree(document)


WRONG = [None, True, 0, -1, 1.5, 99, "", " ", "x", [], [1], {}, {"x": 1}]
PLACES = [
    ("$schema",),
    ("providers",),
    ("providers", "default"),
    ("providers", "default", "provider"),
    ("providers", "default", "tier"),
    ("providers", "default", "model"),
    ("providers", "contexts"),
    ("providers", "contexts", "a.*"),
    ("providers", "contexts", "a.*", "provider"),
    ("providers", "contexts", "a.*", "tier"),
    ("providers", "contexts", "a.*", "model"),
    *(("providers", "contexts", "a.*", key) for key in policy_config.RULES),
    ("providers", "limits"),
    ("providers", "budgets"),
    ("providers", "breaker"),
    *(("providers", "breaker", key) for key in policy_config.BREAKER),
    ("providers", "cache"),
    ("providers", "cache", "max_mb"),
    ("providers", "models"),
    ("providers", "models", "google"),
    ("providers", "models", "google", "2"),
    ("providers", "compatible"),
    ("providers", "compatible", "weir"),
    *(("providers", "compatible", "weir", key) for key in ("base_url", "env_key", "label", "models", "images")),
    ("providers", "compatible", "weir", "models", "1"),
    ("providers", "local"),
    ("providers", "local", "model_path"),
    ("providers", "local", "context_tokens"),
    ("providers", "system_instruction"),
    ("identity",),
    ("env",),
    ("env", "NAME"),
    ("descriptors",),
    *(("descriptors", key) for key in ("categories", "agents", "apps", "insights")),
]


@pytest.mark.parametrize("place", PLACES, ids=".".join)
def test_every_wrong_value_at_every_key_is_a_problem_to_both_and_never_an_exception(place: tuple[str, ...]) -> None:
    seen = 0
    for value in WRONG:
        document = _nested(place, value)
        seen += not agree(document)
    assert seen >= len(WRONG) // 2


def _nested(place: tuple[str, ...], value: Any) -> dict[str, Any]:
    document = value
    for key in reversed(place):
        document = {key: document}
        if key in {"env_key", "label", "models", "images"} and "weir" in place and "base_url" not in document:
            document["base_url"] = "http://127.0.0.1:1"
    return dict(document)


def test_the_example_journal_is_valid_and_names_the_schema() -> None:
    path = ROOT.parent / "fixtures" / "journal" / "config" / "journal.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    assert agree(document)
    assert (path.parent / document["$schema"]).resolve() == (ROOT / "journal.schema.json").resolve()


TABLES = [
    ((), config._TOP),
    (("$defs", "providers"), config._PROVIDERS),
    (("$defs", "providers", "properties", "default"), config._ENTRY),
    (("$defs", "providers", "properties", "contexts", "additionalProperties"), config._ENTRY),
    (("$defs", "providers", "properties", "local"), config._LOCAL),
    (("$defs", "providers", "properties", "breaker"), policy_config.BREAKER),
    (("$defs", "providers", "properties", "cache"), policy_config.CACHE),
    (("$defs", "target"), policy_config.FALLBACK_TARGET),
    (("$defs", "limit"), policy_config.LIMIT),
    (("$defs", "budget"), policy_config.BUDGET),
    (("$defs", "gateway"), config._GATEWAY),
    (("$defs", "descriptors"), config._DESCRIPTORS),
    (("$defs", "agents"), config._LIMITS),
    (("$defs", "server"), config._SERVER),
]


@pytest.mark.parametrize(("place", "table"), TABLES, ids=lambda value: "-".join(value) if value else "top")
def test_the_schema_completes_exactly_the_keys_that_the_parser_knows(
    place: tuple[str, ...], table: Mapping[str, type]
) -> None:
    node = SCHEMA
    for key in place:
        node = node[key]
    assert set(node["properties"]) == set(table)
    assert node["additionalProperties"] is False


def test_every_key_has_a_title_and_a_description_for_the_editor() -> None:
    bare = [where for where, node in _properties(SCHEMA, "") if not {"title", "description"} <= _said(node)]
    assert bare == []


def _properties(node: Any, where: str) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for key, child in node.items() if isinstance(node, dict) else ():
        if key == "properties":
            found += [(f"{where}.{name}", schema) for name, schema in child.items()]
        if isinstance(child, dict):
            found += _properties(child, f"{where}.{key}")
    return found


def _said(node: dict[str, Any]) -> set[str]:
    """The annotations a property has, its own and those it refers to."""
    referred = SCHEMA["$defs"][node["$ref"].rpartition("/")[2]] if "$ref" in node else {}
    return {*node, *referred}
