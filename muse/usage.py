"""Token counts, inclusive and addable; it knows the spellings that providers use, and no prices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

from msgspec import Struct
from msgspec.structs import replace

# The unified name first, then what providers and older logs call the same thing.
_INPUT = ("input_tokens", "prompt_tokens", "prompt_token_count", "promptTokenCount", "inputTokens", "input")
_OUTPUT = (
    "output_tokens",
    "completion_tokens",
    "candidates_token_count",
    "candidatesTokenCount",
    "outputTokens",
    "output",
)
_TOTAL = ("total_tokens", "total_token_count", "totalTokenCount", "totalTokens", "total")
_CACHED = ("cached_tokens", "cached_content_token_count", "cachedContentTokenCount")
_REASONING = ("reasoning_tokens",)
# Counts that stand beside the count they belong to and have to be added to make it inclusive.
_THOUGHTS = ("thoughts_token_count", "thoughtsTokenCount")
_CACHE_READ = ("cache_read_input_tokens",)
_CACHE_WRITE = ("cache_creation_input_tokens",)
_WRITTEN = ("cache_write_tokens",)
# Where OpenAI-shaped usage nests its details.
_INPUT_DETAILS = ("input_tokens_details", "prompt_tokens_details")
_OUTPUT_DETAILS = ("output_tokens_details", "completion_tokens_details")
_KNOWN = {*_INPUT, *_OUTPUT, *_TOTAL, *_CACHED, *_REASONING, *_THOUGHTS, *_CACHE_READ, *_CACHE_WRITE, *_WRITTEN}


# A larger count is none: no call has as many, and beyond it JSON numbers are not exact.
MOST_TOKENS = 2**53 - 1


class Usage(Struct, frozen=True):
    """Tokens of one or more requests; `a + b` sums them, `Usage()` is the zero.

    Counts are inclusive: `cached_tokens` and `cache_write_tokens` are part of `input_tokens`, `reasoning_tokens` is
    part of `output_tokens`. `estimated` says that the provider sent no counts and they were estimated.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    requests: int = 0
    estimated: bool = False

    @property
    def total_tokens(self) -> int:
        """Input plus output."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        """The sum, count by count; estimated if either is."""
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
            self.cache_write_tokens + other.cache_write_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            self.requests + other.requests,
            self.estimated or other.estimated,
        )

    def as_dict(self) -> dict[str, int]:
        """The unified dict of the token log: optional counts that are zero are left out."""
        counts = {
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "total_tokens": self.input_tokens + self.output_tokens,
        }
        if self.cached_tokens:
            counts["cached_tokens"] = self.cached_tokens
        if self.cache_write_tokens:
            counts["cache_write_tokens"] = self.cache_write_tokens
        if self.reasoning_tokens:
            counts["reasoning_tokens"] = self.reasoning_tokens
        return counts


def estimate_usage(prompt_chars: int, reply_chars: int) -> Usage:
    """A stand-in where a provider sends no counts: four characters a token, rounded up, marked `estimated`."""
    return Usage(-(-prompt_chars // 4), -(-reply_chars // 4), requests=1, estimated=True)


def usage_of(raw: object) -> Usage:
    """Any provider's usage as `Usage` (one request); see `normalize_usage` for the forms that are understood.

    Cached and written input never exceed the input they are part of, whatever was reported.
    """
    counts = normalize_usage(raw)
    counted_in = counts.get("input_tokens", 0)
    cached = min(counts.get("cached_tokens", 0), counted_in)
    usage = Usage(
        counted_in,
        counts.get("output_tokens", 0),
        cached,
        min(counts.get("cache_write_tokens", 0), counted_in - cached),
        counts.get("reasoning_tokens", 0),
        requests=1,
    )
    estimated = isinstance(raw, Mapping) and raw.get("estimated") is True
    return replace(usage, estimated=True) if estimated else usage


def normalize_usage(raw: object) -> dict[str, int]:
    """The unified token dict of any usage form: `{input_tokens, output_tokens, total_tokens, cached_tokens?, ...}`.

    Understood are the unified dict, OpenAI's two shapes with nested details, Anthropic's (whose input excludes cache
    reads and writes: they are added), Gemini's (whose candidates exclude thoughts: they are added; dict, object, or a
    response with `usage_metadata`), and any mapping or object with integer entries, which are kept as they are named.
    """
    entries = _entries(raw)
    if not entries:
        return {}
    counts = {name: n for name, n in entries.items() if _is_count(n) and name not in _KNOWN}
    known = _known_counts(entries)
    return {**{name: n for name, n in counts.items() if n}, **known} if known else counts


def _known_counts(entries: Mapping[str, Any]) -> dict[str, int]:
    """The unified counts among `entries`; empty if neither input nor output nor total is there."""
    inputs, outputs = _details(entries, "input"), _details(entries, "output")
    written = _first(entries, _CACHE_WRITE) or _nested(inputs, "cache_write_tokens")
    read = _first(entries, _CACHE_READ)
    thoughts = _first(entries, _THOUGHTS)
    given = [_first(entries, names) for names in (_INPUT, _OUTPUT, _TOTAL)]
    if all(count is None for count in given):
        return {}
    beside = (read or 0) + (_first(entries, _CACHE_WRITE) or 0)
    counted_in = (given[0] or 0) + beside
    counted_out = (given[1] or 0) + (thoughts or 0)
    total = given[2] if given[2] and not (beside or thoughts) else counted_in + counted_out
    counts = {"input_tokens": counted_in, "output_tokens": counted_out, "total_tokens": total or 0}
    optional = {
        "cached_tokens": _first(entries, _CACHED) or read or _nested(inputs, "cached_tokens"),
        "cache_write_tokens": written or _first(entries, _WRITTEN),
        "reasoning_tokens": _first(entries, _REASONING)
        or thoughts
        or _nested(outputs, "reasoning_tokens")
        or _nested(outputs, "thinking_tokens"),
    }
    return counts | {name: count for name, count in optional.items() if count}


def _details(entries: Mapping[str, Any], side: str) -> list[Mapping[str, Any]]:
    """The `input_tokens_details`-like entries there are, and `details.input`."""
    keys = _INPUT_DETAILS if side == "input" else _OUTPUT_DETAILS
    places = [entries[key] for key in keys if key in entries]
    if "details" in entries:
        places.append(_entries(entries["details"]).get(side))
    return [_entries(place) for place in places]


def _nested(places: list[Mapping[str, Any]], name: str) -> int | None:
    for place in places:
        count = place.get(name)
        if _is_count(count):
            return int(count)
    return None


def _first(entries: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    for name in names:
        if name in entries and _is_count(count := entries[name]):
            return int(count)
    return None


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS


def _entries(raw: object, *, whole: bool = True) -> Mapping[str, Any]:
    """`raw` as a mapping: itself, its attributes, or those of a `whole` Gemini response's `usage_metadata`."""
    if raw is None or isinstance(raw, (str, bytes, int, float, list, tuple)):
        return {}
    if isinstance(raw, Mapping):
        inner = raw.get("usage_metadata", raw.get("usageMetadata")) if whole else None
        return _entries(inner, whole=False) if inner is not None else raw
    inner = getattr(raw, "usage_metadata", None) if whole else None
    if inner is not None:
        return _entries(inner, whole=False)
    names = (*_KNOWN, *_INPUT_DETAILS, *_OUTPUT_DETAILS, "details")
    found = {name: getattr(raw, name, None) for name in names}
    return {name: value for name, value in found.items() if value is not None} or _attributes(raw)


def _attributes(raw: object) -> Mapping[str, Any]:
    """The plain integer attributes of an object of unknown make."""
    own = vars(raw) if hasattr(raw, "__dict__") else {}
    return {name: value for name, value in own.items() if not name.startswith("_")}
