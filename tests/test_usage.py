"""Token counts: every provider's spelling becomes the same inclusive numbers, and they add up."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muse.types.usage import Usage, estimate_usage, merge_counts, normalize_usage, parse_usage

counts = st.integers(min_value=0, max_value=10**9)
usages = st.builds(
    Usage,
    input_tokens=counts,
    output_tokens=counts,
    cached_tokens=counts,
    cache_write_tokens=counts,
    reasoning_tokens=counts,
    requests=st.integers(0, 100),
    estimated=st.booleans(),
)
FIELDS = ("input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens", "requests")


@given(usages, usages, usages)
def test_addition_is_associative_and_commutative(one: Usage, two: Usage, three: Usage) -> None:
    assert (one + two) + three == one + (two + three)
    assert one + two == two + one


@given(usages)
def test_the_empty_usage_is_the_zero_of_addition(usage: Usage) -> None:
    assert usage + Usage() == usage == Usage() + usage


@given(st.lists(usages))
def test_parts_sum_to_the_total(parts: list[Usage]) -> None:
    whole = sum(parts, Usage())
    for field in FIELDS:
        assert getattr(whole, field) == sum(getattr(part, field) for part in parts)
    assert whole.total_tokens == sum(part.total_tokens for part in parts)
    assert whole.estimated == any(part.estimated for part in parts)


@given(usages)
def test_the_unified_dict_leaves_out_zero_counts_and_sums_up(usage: Usage) -> None:
    unified = usage.as_dict()
    assert unified["total_tokens"] == unified["input_tokens"] + unified["output_tokens"]
    assert all(unified[name] for name in unified if name not in {"input_tokens", "output_tokens", "total_tokens"})


@given(usages)
def test_a_usage_normalises_to_its_own_dict(usage: Usage) -> None:
    assert normalize_usage(usage) == normalize_usage(usage.as_dict()) == usage.as_dict()


_Form = Callable[[int, int, int, int, int], tuple[dict[str, Any], Usage]]


@st.composite
def reported(draw: st.DrawFn) -> tuple[dict[str, Any], Usage]:
    """A usage in some provider's own form, and what it means."""
    uncached, cached, written, spoken, thought = (draw(st.integers(0, 10**6)) for _ in range(5))
    forms: list[_Form] = [_openai, _chat, _anthropic, _gemini, _older]
    return draw(st.sampled_from(forms))(uncached, cached, written, spoken, thought)


def _openai(uncached: int, cached: int, written: int, spoken: int, thought: int) -> tuple[dict[str, Any], Usage]:
    raw = {
        "input_tokens": uncached + cached,
        "output_tokens": spoken + thought,
        "input_tokens_details": {"cached_tokens": cached},
        "output_tokens_details": {"reasoning_tokens": thought},
        "total_tokens": uncached + cached + spoken + thought,
    }
    return raw, Usage(uncached + cached, spoken + thought, cached, 0, thought, requests=1)


def _chat(uncached: int, cached: int, written: int, spoken: int, thought: int) -> tuple[dict[str, Any], Usage]:
    raw = {
        "prompt_tokens": uncached + cached,
        "completion_tokens": spoken + thought,
        "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": thought},
    }
    return raw, Usage(uncached + cached, spoken + thought, cached, 0, thought, requests=1)


def _anthropic(uncached: int, cached: int, written: int, spoken: int, thought: int) -> tuple[dict[str, Any], Usage]:
    raw = {
        "input_tokens": uncached,
        "output_tokens": spoken,
        "cache_read_input_tokens": cached,
        "cache_creation_input_tokens": written,
    }
    return raw, Usage(uncached + cached + written, spoken, cached, written, 0, requests=1)


def _gemini(uncached: int, cached: int, written: int, spoken: int, thought: int) -> tuple[dict[str, Any], Usage]:
    raw = {
        "promptTokenCount": uncached + cached,
        "candidatesTokenCount": spoken,
        "thoughtsTokenCount": thought,
        "cachedContentTokenCount": cached,
        "totalTokenCount": uncached + cached + spoken + thought,
    }
    return raw, Usage(uncached + cached, spoken + thought, cached, 0, thought, requests=1)


def _older(uncached: int, cached: int, written: int, spoken: int, thought: int) -> tuple[dict[str, Any], Usage]:
    details = {"input": {"cached_tokens": cached}, "output": {"reasoning_tokens": thought}}
    raw = {"input": uncached + cached, "output": spoken + thought, "details": details}
    return raw, Usage(uncached + cached, spoken + thought, cached, 0, thought, requests=1)


@given(reported())
def test_every_providers_form_means_the_same_inclusive_counts(case: tuple[dict[str, Any], Usage]) -> None:
    raw, expected = case
    assert parse_usage(raw) == expected


@given(reported())
def test_normalising_twice_is_normalising_once(case: tuple[dict[str, Any], Usage]) -> None:
    once = normalize_usage(case[0])
    assert normalize_usage(once) == once


@given(st.dictionaries(st.sampled_from([*FIELDS, "total_tokens", "prompt_tokens", "cache_read_input_tokens"]), counts))
def test_cached_and_written_input_never_exceed_the_input(raw: dict[str, int]) -> None:
    usage = parse_usage(raw)
    assert usage.cached_tokens + usage.cache_write_tokens <= usage.input_tokens


@given(reported())
def test_objects_are_read_like_dicts(case: tuple[dict[str, Any], Usage]) -> None:
    raw, expected = case
    assert parse_usage(_as_object(raw)) == expected


def _as_object(raw: dict[str, Any]) -> SimpleNamespace:
    return SimpleNamespace(**{k: _as_object(v) if isinstance(v, dict) else v for k, v in raw.items()})


def test_a_whole_gemini_response_is_read_by_its_metadata() -> None:
    metadata = {"prompt_token_count": 10, "candidates_token_count": 5, "thoughts_token_count": 2}
    expected = {"input_tokens": 10, "output_tokens": 7, "total_tokens": 17, "reasoning_tokens": 2}
    assert normalize_usage({"usage_metadata": metadata}) == expected
    assert normalize_usage(SimpleNamespace(usage_metadata=SimpleNamespace(**metadata))) == expected


def test_an_object_that_has_every_attribute_is_read_to_an_end() -> None:
    response = MagicMock()
    response.usage_metadata.prompt_token_count = 10
    response.usage_metadata.candidates_token_count = 5
    assert normalize_usage(response) == {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}


def test_metadata_that_contains_itself_is_read_to_an_end() -> None:
    metadata: dict[str, Any] = {"prompt_token_count": 3}
    metadata["usage_metadata"] = metadata
    assert normalize_usage(metadata)["input_tokens"] == 3


def test_a_missing_total_is_input_plus_output_and_empty_counts_are_left_out() -> None:
    raw = {"input_tokens": 7, "output_tokens": 2, "cached_tokens": 0, "reasoning_tokens": None, "total_tokens": None}
    assert normalize_usage(raw) == {"input_tokens": 7, "output_tokens": 2, "total_tokens": 9}


def test_reasoning_tokens_are_kept() -> None:
    raw = {"input_tokens": 7, "output_tokens": 5, "reasoning_tokens": 4}
    assert normalize_usage(raw)["reasoning_tokens"] == 4


def test_any_integer_entries_are_kept_as_they_are_named() -> None:
    assert normalize_usage({"pages": 3, "seconds": 0, "name": "x", "flag": True}) == {"pages": 3, "seconds": 0}
    assert normalize_usage(SimpleNamespace(pages=3, _secret=9)) == {"pages": 3}


@pytest.mark.parametrize("raw", [None, "", "12", b"34", 56, 1.5, [], [1], (), {}, object()])
def test_what_has_no_counts_gives_none(raw: object) -> None:
    assert normalize_usage(raw) == {}
    assert parse_usage(raw) == Usage(requests=1)


def test_a_flag_is_not_a_count() -> None:
    assert parse_usage({"input_tokens": True, "output_tokens": 3}) == Usage(0, 3, requests=1)


def test_an_estimate_is_four_characters_a_token_and_says_so() -> None:
    assert estimate_usage(9, 4) == Usage(3, 1, requests=1, estimated=True)
    assert parse_usage({"input_tokens": 1, "estimated": True}).estimated


@pytest.mark.parametrize("as_list", [list, tuple])
@pytest.mark.parametrize("form", ["input_tokens_details", "prompt_tokens_details", "details"])
def test_nested_details_may_be_lists_whose_counts_are_summed(form: str, as_list: type) -> None:
    parts = as_list([{"cached_tokens": 30}, {"cached_tokens": 12}, None, {"cached_tokens": "?"}])
    thoughts = as_list([{"reasoning_tokens": 4}, {"reasoning_tokens": 3}])
    raw: dict[str, Any] = {"input_tokens": 100, "output_tokens": 20, "total_tokens": 120}
    if form == "details":
        raw["details"] = {"input": parts, "output": thoughts}
    else:
        raw |= {form: parts, form.replace("input", "output").replace("prompt", "completion"): thoughts}
    counts = normalize_usage(raw)
    assert (counts["cached_tokens"], counts["reasoning_tokens"]) == (42, 7)


# Where a count lies, and what a stream adds to it


@st.composite
def told_with_a_total(draw: st.DrawFn) -> tuple[dict[str, Any], Usage]:
    """Counts whose parts stand within or beside the input and output, with the total that says which."""
    plain_in, cached, written, spoken, thought, used = (draw(st.integers(1, 10**5)) for _ in range(6))
    has_cache, has_written, has_thought, has_used = (draw(st.booleans()) for _ in range(4))
    cached, written, thought, used = cached * has_cache, written * has_written, thought * has_thought, used * has_used
    inputs = plain_in + cached + written + used
    outputs = spoken + thought
    is_cache_beside, is_written_beside, is_thought_beside, is_used_beside = (draw(st.booleans()) for _ in range(4))
    raw = {
        draw(st.sampled_from(["prompt_tokens", "input_tokens"])): inputs
        - cached * is_cache_beside
        - written * is_written_beside
        - used * is_used_beside,
        "completion_tokens": outputs - thought * is_thought_beside,
        "cache_read_input_tokens": cached,
        "cache_creation_input_tokens": written,
        "toolUsePromptTokenCount": used,
        "total_tokens": inputs + outputs,
    }
    place = {"reasoning_tokens": thought}
    raw |= place if draw(st.booleans()) else {"completion_tokens_details": place}
    return raw, Usage(inputs, outputs, cached, written, thought, requests=1)


@given(told_with_a_total())
def test_a_total_decides_whether_counts_lie_within_or_beside_each_other(case: tuple[dict[str, Any], Usage]) -> None:
    raw, expected = case
    usage = parse_usage(raw)
    assert usage.total_tokens == expected.total_tokens == raw["total_tokens"]
    assert (usage.cached_tokens, usage.reasoning_tokens) == (expected.cached_tokens, expected.reasoning_tokens)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        # xAI: reasoning stands beside the completion, and the total has both.
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "total_tokens": 115,
                "completion_tokens_details": {"reasoning_tokens": 100},
            },
            Usage(10, 105, reasoning_tokens=100, requests=1),
        ),
        (
            {"prompt_tokens": 10, "completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 100}},
            Usage(10, 105, reasoning_tokens=100, requests=1),
        ),
        # Bedrock: cached and written input stand beside the input.
        (
            {
                "inputTokens": 10,
                "outputTokens": 5,
                "totalTokens": 315,
                "cacheReadInputTokens": 200,
                "cacheWriteInputTokens": 100,
            },
            Usage(310, 5, 200, 100, requests=1),
        ),
        # Gemini: the tokens of its own tools' answers stand beside the prompt.
        (
            {
                "promptTokenCount": 10,
                "toolUsePromptTokenCount": 50,
                "candidatesTokenCount": 5,
                "thoughtsTokenCount": 7,
                "totalTokenCount": 72,
            },
            Usage(60, 12, reasoning_tokens=7, requests=1),
        ),
        ({"promptTokenCount": 10, "totalTokenCount": 15}, Usage(10, 5, requests=1)),
        ({"completion_tokens": 5, "total_tokens": 15}, Usage(10, 5, requests=1)),
        ({"prompt_tokens": 1000, "completion_tokens": 9, "cached_tokens": 900}, Usage(1000, 9, 900, requests=1)),
        (
            {"prompt_tokens": 1000, "completion_tokens": 9, "prompt_cache_hit_tokens": 900},
            Usage(1000, 9, 900, requests=1),
        ),
        (
            {
                "prompt_tokens": 1000,
                "completion_tokens": 9,
                "cached_tokens": 0,
                "prompt_tokens_details": {"cached_tokens": 900, "cache_creation_tokens": 50},
            },
            Usage(1000, 9, 900, 50, requests=1),
        ),
        ({"prompt_tokens": 10, "completion_tokens": 5, "cache_read_input_tokens": 90}, Usage(100, 5, 90, requests=1)),
        (
            {
                "input_tokens": 10,
                "output_tokens": 5,
                "cache_creation": {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 30},
            },
            Usage(60, 5, 0, 50, requests=1),
        ),
    ],
)
def test_spellings_and_places_of_counts(raw: dict[str, Any], expected: Usage) -> None:
    assert parse_usage(raw) == expected
    assert parse_usage(_as_object(raw)) == expected


nested_counts = st.dictionaries(
    st.sampled_from(["a", "b", "c"]),
    st.none() | st.integers(0, 5) | st.dictionaries(st.sampled_from(["x", "y"]), st.none() | st.integers(0, 5)),
)


@given(st.lists(nested_counts, max_size=5))
def test_a_later_zero_or_null_replaces_no_count(told: list[dict[str, Any]]) -> None:
    merged: dict[str, Any] = {}
    for counts_told in told:
        before = merged
        merged = merge_counts(merged, counts_told)
        for name, count in before.items():
            assert not count or merged[name]
        for name, count in counts_told.items():
            assert not count or isinstance(count, dict) or merged[name] == count
    assert merge_counts(merged, None) == merged
    assert merge_counts(merged, dict.fromkeys(merged, 0)) == merged


@pytest.mark.parametrize("written", [str, float])
def test_counts_may_be_written_as_text_or_with_a_fraction_of_zero(written: Any) -> None:
    raw = {"prompt_tokens": written(10), "completion_tokens": written(5), "total_tokens": written(15)}
    assert parse_usage(raw | {"prompt_tokens_details": {"cached_tokens": written(4)}}) == Usage(10, 5, 4, requests=1)


@pytest.mark.parametrize("count", ["n/a", "-5", "2.5", 1.5, float("nan"), float("inf"), "9" * 30, True])
def test_what_is_no_whole_count_is_none(count: Any) -> None:
    assert parse_usage({"prompt_tokens": count, "completion_tokens": 5}).input_tokens == 0


@pytest.mark.parametrize(
    "details",
    [
        {"input_token_details": {"cache_read": 6}},
        {"promptTokensDetails": {"cachedTokens": 6}},
        {"prompt_tokens_details": {"cached_read_tokens": 6}},
        {"prompt_tokens_details": {"cache_tokens": 6}},
        {"cached_prompt_tokens": 6},
    ],
)
def test_cached_counts_are_found_under_further_spellings(details: dict[str, Any]) -> None:
    assert parse_usage({"prompt_tokens": 10, "completion_tokens": 5, **details}) == Usage(10, 5, 6, requests=1)
