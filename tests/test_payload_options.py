"""Conformance: thinking, temperature, limits and options by model family; `Reply.dropped` says what was left out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.desk import Desk
from tests.provider_cases import GATEWAYS, WIRES, Case

OPENAI, ANTHROPIC, GOOGLE, COMPATIBLE = WIRES
AZURE = next(case for case in GATEWAYS if case.name == "azure")
LOBECHAT = next(case for case in GATEWAYS if case.name == "lobechat")
LIMIT = 8192 * 2


def _thinking(case: Case, body: dict[str, Any]) -> Any:
    """What a body says of thinking."""
    match case.wire:
        case "openai":
            return body.get("reasoning")
        case "anthropic":
            effort = (body.get("output_config") or {}).get("effort")
            return (body.get("thinking"), effort) if "thinking" in body else None
        case "google":
            return body["generationConfig"].get("thinkingConfig")
    return body.get("reasoning_effort")


_AUTO = {"summary": "auto"}
_ADAPTIVE = {"type": "adaptive", "display": "summarized"}
_OFF = {"type": "disabled"}

THINKING: list[tuple[Case, str, int, Any]] = [
    (OPENAI, "gpt-5-mini", 0, {"effort": "minimal"}),
    (OPENAI, "gpt-5-mini", 1_024, {"effort": "low"} | _AUTO),
    (OPENAI, "gpt-5-mini", 50_000, {"effort": "high"} | _AUTO),
    (OPENAI, "gpt-6.1-sol", 0, {"effort": "low"}),
    (OPENAI, "gpt-6.1-sol", 8_192, {"effort": "medium"} | _AUTO),
    (OPENAI, "gpt-6-luna", 0, {"effort": "none"}),
    (OPENAI, "gpt-6-luna", 50_000, {"effort": "xhigh"} | _AUTO),
    (OPENAI, "o3", 0, {"effort": "low"}),
    (OPENAI, "gpt-4.1", 1_024, None),
    (ANTHROPIC, "claude-haiku-4-5", 0, (_OFF, None)),
    (ANTHROPIC, "claude-haiku-4-5", 500, ({"type": "enabled", "budget_tokens": 1_024}, None)),
    (ANTHROPIC, "claude-haiku-4-5", 2_048, ({"type": "enabled", "budget_tokens": 2_048}, None)),
    (ANTHROPIC, "claude-sonnet-4-6", 2_048, (_ADAPTIVE, "medium")),
    (ANTHROPIC, "claude-sonnet-4-6", 50_000, (_ADAPTIVE, "high")),
    (ANTHROPIC, "claude-opus-4-8", 50_000, (_ADAPTIVE, "xhigh")),
    (ANTHROPIC, "claude-sonnet-5-5", 0, ({"type": "between_tools"}, None)),
    (ANTHROPIC, "claude-haiku-5-5", 0, (_OFF, None)),
    (ANTHROPIC, "claude-opus-5-5", 0, (_ADAPTIVE, "low")),
    (ANTHROPIC, "claude-3-5-haiku-latest", 2_048, None),
    (GOOGLE, "gemini-2.5-flash", 0, {"thinkingBudget": 0, "includeThoughts": False}),
    (GOOGLE, "gemini-2.5-flash", 2_048, {"thinkingBudget": 2_048, "includeThoughts": True}),
    (GOOGLE, "gemini-2.5-pro", 0, {"thinkingBudget": 128, "includeThoughts": True}),
    (GOOGLE, "gemini-2.5-flash-lite", 100, {"thinkingBudget": 512, "includeThoughts": True}),
    (GOOGLE, "gemini-3.5-flash-lite", 0, {"thinkingLevel": "MINIMAL", "includeThoughts": False}),
    (GOOGLE, "gemini-3.8-flash", 0, {"thinkingLevel": "LOW", "includeThoughts": False}),
    (GOOGLE, "gemini-3.8-flash", 8_192, {"thinkingLevel": "MEDIUM", "includeThoughts": True}),
    (GOOGLE, "gemini-4-argon", 50_000, {"thinkingLevel": "HIGH", "includeThoughts": True}),
    (GOOGLE, "gemini-2.0-flash", 2_048, None),
    (COMPATIBLE, "openai/gpt-4o-mini", 0, "none"),
    (COMPATIBLE, "openai/gpt-4o-mini", 2_048, "medium"),
    (AZURE, "gpt-5-nano-deployment", 2_048, "medium"),
    (LOBECHAT, "gpt-4o-mini", 2_048, None),
]
"""Provider, model, budget, and what is sent of it."""


@pytest.mark.parametrize(("case", "model", "budget", "sent"), THINKING, ids=str)
def test_a_thinking_budget_is_sent_as_the_family_takes_it(
    desk: Desk, case: Case, model: str, budget: int, sent: Any
) -> None:
    desk.use(replace(case, model=model))
    assert _thinking(case, desk.sent().body) is None
    reply = desk.ask("sync", thinking_budget=budget)
    assert _thinking(case, desk.server.requests[-1].body) == sent
    assert ("thinking_budget" in reply.dropped) == (sent is None)


@pytest.mark.parametrize("case", WIRES, ids=str)
def test_thinking_comes_on_top_of_the_text(desk: Desk, case: Case) -> None:
    desk.use(case)
    body = desk.sent(max_output_tokens=1_000, thinking_budget=2_048).body
    limits = {**body, **body.get("generationConfig", {})}
    found = [limits[name] for name in ("max_output_tokens", "max_tokens", "maxOutputTokens") if name in limits]
    assert found == [3_048]


@pytest.mark.parametrize(
    ("case", "model", "name", "cap"),
    [
        (GOOGLE, "gemini-2.5-flash", "maxOutputTokens", 65_535),
        (GOOGLE, "gemini-2.0-flash", "maxOutputTokens", 8_192),
        (ANTHROPIC, "claude-haiku-4-5", "max_tokens", 64_000),
        (ANTHROPIC, "claude-3-5-haiku-latest", "max_tokens", 8_192),
        (AZURE, "gpt-5-nano-deployment", "max_completion_tokens", 100_000),
    ],
    ids=str,
)
def test_an_output_limit_stays_within_the_familys_cap(desk: Desk, case: Case, model: str, name: str, cap: int) -> None:
    desk.use(replace(case, model=model))
    body = desk.sent(max_output_tokens=100_000).body
    assert (body.get("generationConfig") or body)[name] == cap


@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_long_answer_is_streamed_underneath_where_it_must_be(desk: Desk, way: str) -> None:
    desk.use(ANTHROPIC)
    assert desk.sent(way, max_output_tokens=64_000).body["stream"] is True
    assert "stream" not in desk.sent(way, max_output_tokens=20_000).body


TEMPERATURE = [
    (OPENAI, "gpt-4.1", True),
    (OPENAI, "gpt-5-mini", False),
    (OPENAI, "gpt-6.1-sol", False),
    (OPENAI, "o3", False),
    (ANTHROPIC, "claude-haiku-4-5", True),
    (ANTHROPIC, "claude-opus-4-8", False),
    (ANTHROPIC, "claude-sonnet-5-5", False),
    (GOOGLE, "gemini-2.5-flash", True),
    (GOOGLE, "gemini-3.8-flash", True),
    (COMPATIBLE, "openai/gpt-4o-mini", True),
    (AZURE, "gpt-4o-deployment", True),
    (AZURE, "gpt-5-nano-deployment", False),
]


@pytest.mark.parametrize(("case", "model", "is_taken"), TEMPERATURE, ids=str)
def test_a_temperature_is_sent_or_reported_as_dropped(desk: Desk, case: Case, model: str, is_taken: bool) -> None:
    desk.use(replace(case, model=model))
    reply = desk.ask("sync", temperature=0.7)
    body = desk.server.requests[-1].body
    sent = (body.get("generationConfig") or body).get("temperature")
    assert (sent, reply.dropped) == ((0.7, ()) if is_taken else (None, ("temperature",)))


def test_a_temperature_beside_a_thinking_budget_is_dropped_and_said(desk: Desk) -> None:
    desk.use(ANTHROPIC)
    reply = desk.ask("sync", temperature=0.7, thinking_budget=2_048)
    assert "temperature" not in desk.server.requests[-1].body
    assert reply.dropped == ("temperature",)


OPTIONS: list[tuple[Case, str, dict[str, Any]]] = [
    (OPENAI, "gpt-4.1", {"top_p": 0.5}),
    (OPENAI, "gpt-5-mini", {}),
    (ANTHROPIC, "claude-haiku-4-5", {"stop_sequences": ["END"]}),
    (
        GOOGLE,
        "gemini-2.5-flash",
        {"topP": 0.5, "stopSequences": ["END"], "seed": 7, "cachedContent": "cachedContents/tides"},
    ),
    (COMPATIBLE, "openai/gpt-4o-mini", {"top_p": 0.5, "stop": ["END"], "seed": 7}),
    (AZURE, "gpt-5-nano-deployment", {"stop": ["END"], "seed": 7}),
]


@pytest.mark.parametrize(("case", "model", "sent"), OPTIONS, ids=str)
def test_an_option_the_model_does_not_take_is_dropped_and_said(
    desk: Desk, case: Case, model: str, sent: dict[str, Any]
) -> None:
    desk.use(replace(case, model=model))
    given = {"top_p": 0.5, "stop": ["END"], "seed": 7, "cached_content": "cachedContents/tides", "flavour": "salt"}
    reply = desk.ask("sync", **given)
    body = desk.server.requests[-1].body
    flat = {**body, **body.get("generationConfig", {})}
    plain = {"topP": "top_p", "stopSequences": "stop", "stop_sequences": "stop", "cachedContent": "cached_content"}
    assert {name: flat.get(name) for name in sent} == sent
    assert sorted(reply.dropped) == sorted(given.keys() - {plain.get(name, name) for name in sent})
    assert b"flavour" not in desk.server.requests[-1].content
