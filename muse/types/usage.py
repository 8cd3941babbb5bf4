"""Token counts, inclusive and addable; it knows the spellings that providers use, and no prices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, TypeGuard

from msgspec import Struct
from msgspec.structs import replace

# The unified name first, then what providers and older logs call the same thing.
_INPUT = (
    *("input_tokens", "prompt_tokens", "prompt_token_count", "promptTokenCount", "inputTokens", "promptTokens"),
    *("input", "prompt_eval_count"),
)
_OUTPUT = (
    *("output_tokens", "completion_tokens", "candidates_token_count", "candidatesTokenCount", "outputTokens"),
    *("completionTokens", "output", "eval_count"),
)
_TOTAL = ("total_tokens", "total_token_count", "totalTokenCount", "totalTokens", "total")
_CACHED = (
    *("cached_tokens", "cached_content_token_count", "cachedContentTokenCount", "prompt_cache_hit_tokens"),
    *("cached_input_tokens", "cachedInputTokens", "num_cached_tokens", "cache_read_tokens", "cachedTokens"),
    *("cached_prompt_tokens", "cached_read_tokens", "cache_hit_tokens", "cache_tokens", "cache_read"),
)
_REASONING = ("reasoning_tokens", "reasoningTokens", "thinking_tokens", "reasoning")
# Counts that stand beside the count they belong to and have to be added to make it inclusive, unless a total says else.
_THOUGHTS = ("thoughts_token_count", "thoughtsTokenCount")
_TOOL_PROMPT = ("tool_use_prompt_token_count", "toolUsePromptTokenCount")
_CACHE_READ = ("cache_read_input_tokens", "cacheReadInputTokens", "cacheReadInputTokenCount")
_CACHE_WRITE = ("cache_creation_input_tokens", "cacheWriteInputTokens", "cacheWriteInputTokenCount")
_WRITTEN = ("cache_write_tokens", "cache_creation_tokens", "cached_creation_tokens")
_CACHED_WITHIN = (*_CACHED, *_CACHE_READ)
# Where the writes of a cache stand by how long they are kept (Anthropic).
_WRITES = "cache_creation"
# Where OpenAI-shaped usage nests its details.
_INPUT_DETAILS = (
    *("input_tokens_details", "prompt_tokens_details", "input_token_details", "prompt_token_details"),
    *("inputTokensDetails", "inputTokenDetails", "promptTokensDetails"),
)
_OUTPUT_DETAILS = (
    *("output_tokens_details", "completion_tokens_details", "output_token_details", "completion_token_details"),
    *("outputTokensDetails", "outputTokenDetails", "completionTokensDetails"),
)
_KNOWN = {
    *(*_INPUT, *_OUTPUT, *_TOTAL, *_CACHED, *_REASONING, *_THOUGHTS, *_TOOL_PROMPT),
    *(*_CACHE_READ, *_CACHE_WRITE, *_WRITTEN),
}


# A larger count is none: no call has as many, and beyond it JSON numbers are not exact.
MOST_TOKENS = 2**53 - 1
_LONGEST_COUNT = 20


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


def parse_usage(raw: object) -> Usage:
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


def merge_counts(known: Mapping[str, Any] | None, told: object) -> dict[str, Any]:
    """The counts of a stream so far with those of its next event: a count that is zero or null replaces none."""
    merged = dict(known or {})
    for name, value in told.items() if isinstance(told, Mapping) else ():
        known_count = merged.get(name)
        if isinstance(value, Mapping) and (isinstance(known_count, Mapping) or not known_count):
            merged[name] = merge_counts(known_count or None, value)
        elif value or name not in merged:
            merged[name] = value
    return merged


# A count that is part of the input (True) or output, and whether it is reported beside it.
_Part = tuple[int, bool, bool]


def _known_counts(entries: Mapping[str, Any]) -> dict[str, int]:
    """The unified counts among `entries`; empty if neither input nor output nor total is there."""
    told_in, told_out, total = _first(entries, _INPUT), _first(entries, _OUTPUT), _first(entries, _TOTAL)
    if told_in is None and told_out is None and total is None:
        return {}
    inputs, outputs = _details(entries, "input"), _details(entries, "output")
    read, written = _first(entries, _CACHE_READ), _first(entries, _CACHE_WRITE) or _writes(entries)
    cached = _first(entries, _CACHED) or read or _nested(inputs, _CACHED_WITHIN)
    thoughts, tool_prompt = _first(entries, _THOUGHTS), _first(entries, _TOOL_PROMPT)
    reasoning = _first(entries, _REASONING) or thoughts or _nested(outputs, _REASONING)
    counted_in, counted_out = told_in or 0, told_out or 0
    parts: list[_Part] = []
    if cached or written:
        is_exclusive = "input_tokens" in entries or "inputTokens" in entries
        is_exclusive = is_exclusive or (read or 0) + (written or 0) > counted_in
        parts += [(cached, True, bool(read) and is_exclusive)] if cached else []
        parts += [(written, True, is_exclusive)] if written else []
    if tool_prompt:
        parts.append((tool_prompt, True, True))
    if reasoning:
        parts.append((reasoning, False, bool(thoughts) or reasoning > counted_out > 0))
    if parts:
        wanted = total if total and told_in is not None and told_out is not None else None
        beside = _beside(parts, counted_in, counted_out, wanted)
        counted_in += sum(count for (count, is_input, _), adds in zip(parts, beside, strict=True) if adds and is_input)
        counted_out += sum(
            count for (count, is_input, _), adds in zip(parts, beside, strict=True) if adds and not is_input
        )
    if total and told_in is None and told_out is not None:
        counted_in = max(counted_in, total - counted_out)
    elif total and told_out is None and told_in is not None:
        counted_out = max(counted_out, total - counted_in)
    is_added = counted_in + counted_out != (told_in or 0) + (told_out or 0)
    counts = {
        "input_tokens": counted_in,
        "output_tokens": counted_out,
        "total_tokens": total if total and not is_added else counted_in + counted_out,
    }
    counts |= {"cached_tokens": cached} if cached else {}
    if written := written or _first(entries, _WRITTEN) or _nested(inputs, _WRITTEN):
        counts["cache_write_tokens"] = written
    return counts | ({"reasoning_tokens": reasoning} if reasoning else {})


def _beside(parts: list[_Part], base_in: int, base_out: int, total: int | None) -> tuple[bool, ...]:
    """Which parts are to be added to make the counts inclusive: as usual, or as a given total has it.

    A total that no reading explains decides nothing; of several readings one counts whose parts find room.
    """
    usual = tuple(is_beside for _, _, is_beside in parts)
    if total is None:
        return usual
    found = None
    for choice in (usual, *product((False, True), repeat=len(parts))):
        room_in, room_out, count = base_in, base_out, base_in + base_out
        for (size, is_input, _), adds in zip(parts, choice, strict=True):
            if adds:
                count += size
            elif is_input:
                room_in -= size
            else:
                room_out -= size
        if count == total:
            if room_in >= 0 and room_out >= 0:
                return choice
            found = found or choice
    return found or usual


def _writes(entries: Mapping[str, Any]) -> int | None:
    """The tokens written into the cache, where they are told by how long they are kept."""
    if _WRITES not in entries:
        return None
    return sum(count for count in _entries(entries[_WRITES]).values() if _is_count(count)) or None


def _details(entries: Mapping[str, Any], side: str) -> list[Mapping[str, Any]]:
    """The `input_tokens_details`-like entries there are, and `details.input`; a list of them counts as their sum."""
    keys = _INPUT_DETAILS if side == "input" else _OUTPUT_DETAILS
    places = [entries[key] for key in keys if key in entries]
    if "details" in entries:
        places.append(_entries(entries["details"]).get(side))
    return [_summed(place) if isinstance(place, (list, tuple)) else _entries(place) for place in places]


def _summed(parts: Sequence[object]) -> Mapping[str, int]:
    """The counts of several entries, name by name."""
    sums: dict[str, int] = {}
    for name, count in (item for part in parts for item in _entries(part).items()):
        if _is_count(count):
            sums[name] = sums.get(name, 0) + count
    return sums


def _nested(places: list[Mapping[str, Any]], names: tuple[str, ...]) -> int | None:
    """The first count above zero under one of `names`; 0 or None if there is none."""
    for place in places:
        if count := _first(place, names):
            return count
    return None


def _first(entries: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    """The first count above zero under one of `names`; 0 if there are only zeros, None without any."""
    zero = None
    for name in names:
        if name in entries and (count := _count_of(entries[name])) is not None:
            if count:
                return count
            zero = 0
    return zero


def _count_of(value: object) -> int | None:
    """A count, also one that is written as text or with a fraction of zero; None if it is none."""
    if isinstance(value, str):
        value = int(value) if value.strip().isdecimal() and len(value) < _LONGEST_COUNT else None
    elif isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if _is_count(value) else None


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
    names = (*_KNOWN, *_INPUT_DETAILS, *_OUTPUT_DETAILS, _WRITES, "details")
    found = {name: getattr(raw, name, None) for name in names}
    return {name: value for name, value in found.items() if value is not None} or _attributes(raw)


def _attributes(raw: object) -> Mapping[str, Any]:
    """The plain integer attributes of an object of unknown make."""
    own = vars(raw) if hasattr(raw, "__dict__") else {}
    return {name: value for name, value in own.items() if not name.startswith("_")}
