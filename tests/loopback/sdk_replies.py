"""Reads the vendors' reply types into outcomes; it does not know the server or muse."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, TypedDict

from anthropic.types import Message
from google.genai.types import Candidate, GenerateContentResponse
from openai.types import CompletionUsage
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response

from tests.loopback.outcomes import Call, Outcome, call

_CHAT_FINISH = {"tool_calls": "tools", "length": "length", "content_filter": "blocked"}
_MESSAGE_FINISH = {"tool_use": "tools", "max_tokens": "length", "refusal": "blocked"}
_GOOGLE_FINISH = {"MAX_TOKENS": "length", "SAFETY": "blocked"}


def read_openai(response: Response) -> Outcome:
    """Read a Responses API reply."""
    assert response.usage is not None
    items = response.output
    summaries = [part.text for item in items if item.type == "reasoning" for part in item.summary]
    calls = [call(item.name, item.arguments) for item in items if item.type == "function_call"]
    reason = response.incomplete_details.reason if response.incomplete_details else None
    finish = {"max_output_tokens": "length", "content_filter": "blocked"}.get(reason or "", "stop")
    return Outcome(
        text=response.output_text,
        input_tokens=response.usage.input_tokens,
        output_tokens=response.usage.output_tokens,
        finish="tools" if calls else finish,
        cached_tokens=response.usage.input_tokens_details.cached_tokens,
        reasoning_tokens=response.usage.output_tokens_details.reasoning_tokens,
        thinking="".join(summaries),
        calls=tuple(calls),
    )


def read_compatible(completion: ChatCompletion) -> Outcome:
    """Read a Chat Completions reply; its reasoning stands in fields the SDK has no type for."""
    assert completion.usage is not None
    choice = completion.choices[0]
    return Outcome(
        text=choice.message.content or "",
        finish=_CHAT_FINISH.get(choice.finish_reason, "stop"),
        thinking=_reasoning(choice.message.model_extra),
        calls=tuple(
            call(each.function.name, each.function.arguments)
            for each in choice.message.tool_calls or ()
            if each.type == "function"
        ),
        **_counts(completion.usage),
    )


def read_chunks(chunks: Sequence[ChatCompletionChunk]) -> Outcome:
    """Read the chunks of a Chat Completions stream; the last one carries the counts."""
    usage = chunks[-1].usage
    assert usage is not None
    choices = [choice for chunk in chunks for choice in chunk.choices]
    deltas = [choice.delta for choice in choices]
    pieces = [piece for delta in deltas for piece in delta.tool_calls or ()]
    named: dict[int, str] = {}
    arguments: defaultdict[int, str] = defaultdict(str)
    for piece in pieces:
        assert piece.function is not None
        named.setdefault(piece.index, piece.function.name or "")
        arguments[piece.index] += piece.function.arguments or ""
    return Outcome(
        text="".join(delta.content or "" for delta in deltas),
        finish=_CHAT_FINISH.get(choices[-1].finish_reason or "", "stop"),
        thinking="".join(_reasoning(delta.model_extra) for delta in deltas),
        calls=tuple(call(name, arguments[index]) for index, name in named.items()),
        **_counts(usage),
    )


class _Counts(TypedDict):
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    reasoning_tokens: int


def _counts(usage: CompletionUsage) -> _Counts:
    prompt, written = usage.prompt_tokens_details, usage.completion_tokens_details
    return {
        "input_tokens": usage.prompt_tokens,
        "output_tokens": usage.completion_tokens,
        "cached_tokens": (prompt.cached_tokens or 0) if prompt else 0,
        "reasoning_tokens": (written.reasoning_tokens or 0) if written else 0,
    }


def _reasoning(extra: dict[str, Any] | None) -> str:
    fields = extra or {}
    return fields.get("reasoning") or fields.get("reasoning_content") or ""


def read_anthropic(message: Message) -> Outcome:
    """Read a Messages API reply; its input count leaves out what the cache read and wrote."""
    usage, blocks = message.usage, message.content
    cached, written = usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
    details = usage.output_tokens_details
    return Outcome(
        text="".join(block.text for block in blocks if block.type == "text"),
        input_tokens=usage.input_tokens + cached + written,
        output_tokens=usage.output_tokens,
        finish=_MESSAGE_FINISH.get(message.stop_reason or "", "stop"),
        cached_tokens=cached,
        reasoning_tokens=details.thinking_tokens if details else 0,
        thinking="".join(block.thinking for block in blocks if block.type == "thinking"),
        calls=tuple(call(block.name, block.input) for block in blocks if block.type == "tool_use"),
    )


def read_google(replies: Sequence[GenerateContentResponse]) -> Outcome:
    """Read a generateContent reply, or the partial replies of a stream."""
    usage = replies[-1].usage_metadata
    assert usage is not None
    candidates = [candidate for reply in replies for candidate in reply.candidates or ()]
    reasoning = usage.thoughts_token_count or 0
    calls = _google_calls(candidates)
    feedback = replies[-1].prompt_feedback
    reason = candidates[-1].finish_reason if candidates else None
    finish = "blocked" if feedback else _GOOGLE_FINISH.get(reason.value if reason else "", "stop")
    return Outcome(
        text=_google_text(candidates, thought=False),
        input_tokens=usage.prompt_token_count or 0,
        output_tokens=(usage.candidates_token_count or 0) + reasoning,
        finish="tools" if calls else finish,
        cached_tokens=usage.cached_content_token_count or 0,
        reasoning_tokens=reasoning,
        thinking=_google_text(candidates, thought=True),
        calls=calls,
    )


def _google_text(candidates: Sequence[Candidate], *, thought: bool) -> str:
    contents = [candidate.content for candidate in candidates if candidate.content]
    parts = [part for content in contents for part in content.parts or ()]
    return "".join(part.text or "" for part in parts if bool(part.thought) is thought)


def _google_calls(candidates: Sequence[Candidate]) -> tuple[Call, ...]:
    contents = [candidate.content for candidate in candidates if candidate.content]
    made = [part.function_call for content in contents for part in content.parts or ()]
    return tuple(call(each.name or "", each.args) for each in made if each)
