"""JSON in what a model says is found: in prose, in fences, beside thinking aloud, with one request, in bounded time."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muse import models
from muse.errors import InvalidReply
from muse.types.json_text import find_json_values
from tests.desk import CONTEXT, QUESTION, Desk
from tests.loopback.server import Answer
from tests.provider_cases import CASES, GATEWAY

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}}, "required": ["a"]}
TEXTS = [
    '{"a": 1}',
    '\ufeff {"a": 1}\n',
    '```json\n{"a": 1}\n```',
    '```\n{"a": 1}\n```',
    '~~~json\n{"a": 1}\n~~~',
    '```JSON\r\n{"a": 1}\r\n```',
    '```json {"a": 1} ```',
    '```json\n{"a": 1}',
    'Here it is: {"a": 1}. Anything {else}?',
    'Sure!\n\n```json\n{"a": 1}\n```\n\nLet me know [if] it helps.',
    'First\n```python\nprint({"a": "no"})\n```\nthen\n```json\n{"a": 1}\n```\n',
    'A draft:\n```json\n{"a": 0}\n```\nBetter:\n```json\n{"a": 1}\n```',
    '```json\n{"a": 1}\n```\n```json\n{"z": 0}\n```',
    '<think>\nhm, {so}\n</think>\n\n{"a": 1}',
    '<think>maybe {"a": 0}</think>{"a": 1}',
    '<think>{"a": 0}</think>\n```json\n{"a": 1}\n```\n',
    'maybe {"a": 0}\n</think>\n{"a": 1}',
    '<think>so the answer is {"a": 1}',
    '{"a": 1}<think>was that right? {"a": 0}',
    '<thinking>x</thinking><reasoning>y</reasoning>{"a": 1}',
    '<THINK>{"a": 0}</THINK> The answer: {"a": 1}',
    'The set {1, 2} and the list [x] give {"a": 1}',
    r'\frac{1}{2} and \boxed{3}: {"a": 1}',
]


@pytest.fixture
def gateway(desk: Desk) -> Desk:
    """A model at an endpoint of journal.json, each call tried once."""
    desk.use(next(case for case in CASES if case.name == GATEWAY))
    return desk


def _say(desk: Desk, text: str, *, times: int = 1) -> None:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    body = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
    desk.server.script("compatible", [Answer(body)] * times)


@pytest.mark.parametrize("text", TEXTS)
def test_the_object_is_found_with_one_request(gateway: Desk, text: str) -> None:
    _say(gateway, text)
    assert models.generate_object(QUESTION, CONTEXT, schema=SCHEMA) == {"a": 1}
    assert len(gateway.server.requests) == 1


@pytest.mark.parametrize("text", ['{"a": 1, "b": "}"}', '{"a": 1, "b": "```"}', '{"a": 1, "b": "<think>{</think>"}'])
@pytest.mark.parametrize("around", ["%s", "So: %s!", "```json\n%s\n```", "<think>{</think>%s"])
def test_braces_fences_and_tags_within_strings_are_text(gateway: Desk, text: str, around: str) -> None:
    _say(gateway, around.replace("%s", text))
    assert models.generate_object(QUESTION, CONTEXT, schema=SCHEMA) == json.loads(text)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [('I think: {"a": "one"}', r"\$\.a: 'one' is not of type 'integer'"), ("I cannot say.", "found no JSON")],
)
def test_what_does_not_fit_is_still_told_with_its_place(gateway: Desk, text: str, complaint: str) -> None:
    _say(gateway, text, times=2)
    with pytest.raises(InvalidReply, match=complaint):
        models.generate_object(QUESTION, CONTEXT, schema=SCHEMA)
    assert len(gateway.server.requests) == 2


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
prose = st.text(st.characters(exclude_characters="{}[]<>`~\\", exclude_categories=["Cs"]), max_size=20)


@given(json_values.filter(lambda value: isinstance(value, (dict, list))), prose, prose)
def test_a_value_between_any_words_is_found_as_it_is(value: Any, before: str, after: str) -> None:
    text = json.dumps(value)
    for whole in (
        f"{before} {text} {after}",
        f"{before}\n```json\n{text}\n```\n{after}",
        f"<think>{before}</think>{text}",
    ):
        assert value in list(find_json_values(whole))


@pytest.mark.parametrize(
    "piece", ["[", "{", '{"', "```", "```json\n", "```json {", "<think>", "</think>", '{"a":', "~~~", "[[{"], ids=repr
)
def test_no_text_takes_long_to_look_through(piece: str) -> None:
    begun = time.process_time()
    assert len(list(find_json_values(piece * (300_000 // len(piece))))) < 2_000
    assert time.process_time() - begun < 10


def test_line_ends_within_strings_may_stand_as_they_are() -> None:
    assert next(find_json_values('{"a": {"b": 1}, "c": "two\nlines"}')) == {"a": {"b": 1}, "c": "two\nlines"}
