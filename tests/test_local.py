"""The embedded model as a provider, with the real engine and weights; what it says is not looked at, only its form."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from PIL import Image

from muse import models
from muse.errors import ConfigError, ContentsError, ProviderTimeout, RequestError, TruncatedReply, UnavailableError
from muse.providers import local
from tests.desk import CONTEXT, WAYS, Desk
from tests.embedded import WEIGHTS, needs_model

pytestmark = pytest.mark.usefixtures("engine_of_this_file")

every_way = pytest.mark.parametrize("way", WAYS)
SHORT = {"max_output_tokens": 24, "temperature": 0.0}
ONE_WORD = {**SHORT, "grammar": "root ::= [A-Z] [a-z]{1,9}"}


@pytest.fixture(autouse=True)
def _routed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(local.MODEL_ENV, raising=False)
    desk.journal.route(default={"provider": "local"})


@needs_model
@every_way
def test_it_answers_without_a_key_and_at_no_cost(desk: Desk, way: str) -> None:
    reply = desk.ask(way, "What is the capital of France?", **ONE_WORD)
    assert reply.text.isalpha()
    assert (reply.provider, reply.model, reply.finish, reply.cost_usd) == (
        "local",
        local.SPEC.tiers[2],
        "stop",
        0.0,
    )
    (line,) = desk.journal.lines()
    assert line["usage"] == reply.usage.as_dict()
    assert not reply.usage.estimated
    assert (reply.usage.requests, line["cost_usd"], line["provider"]) == (1, 0.0, "local")


@needs_model
def test_every_way_of_asking_gives_the_same_text(desk: Desk) -> None:
    texts = {
        way: desk.ask(way, "Name a colour of the sea.", grammar="root ::= [a-z ]{30}", temperature=0.0).text
        for way in WAYS
    }
    assert len(set(texts.values())) == 1, texts


_SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}, "on_the_coast": {"type": "boolean"}},
    "required": ["city", "on_the_coast"],
    "additionalProperties": False,
}


@needs_model
@every_way
def test_a_schema_binds_what_it_writes(desk: Desk, way: str) -> None:
    reply = desk.ask(way, "Husum is a city on the coast.", json_schema=_SCHEMA, max_output_tokens=80, temperature=0.0)
    Draft202012Validator(_SCHEMA).validate(json.loads(reply.text))


@needs_model
def test_a_grammar_binds_what_it_writes(desk: Desk) -> None:
    reply = desk.ask("sync", "Is the sea wet? Answer yes or no:", grammar='root ::= "yes" | "no"', **SHORT)
    assert reply.text in {"yes", "no"}
    assert reply.dropped == ()


@needs_model
@every_way
def test_a_text_is_continued_where_that_is_asked_for(desk: Desk, way: str) -> None:
    contents = "red, green, blue, red, green, blue, red, green, blue, red, green,"
    reply = desk.ask(way, contents, complete=True, stop=[","], **SHORT)
    assert reply.text.strip().isalpha()
    assert reply.finish == "stop"


@needs_model
def test_history_and_system_text_are_part_of_the_prompt(desk: Desk) -> None:
    turns = [
        {"role": "user", "content": "My name is Fiete."},
        {"role": "assistant", "content": "Nice to meet you, Fiete."},
        {"role": "user", "content": "What is my name?"},
    ]
    counts = [
        desk.ask("sync", "What is my name?", system_instruction="Be short.", **ONE_WORD).usage.input_tokens,
        desk.ask("sync", turns, system_instruction="Be short.", **ONE_WORD).usage.input_tokens,
        desk.ask("sync", turns, system_instruction="Be short, but always friendly.", **ONE_WORD).usage.input_tokens,
    ]
    assert counts == sorted(set(counts))


@needs_model
@every_way
def test_a_cut_answer_says_so_and_keeps_its_text(desk: Desk, way: str) -> None:
    error = desk.fail(way, "Tell me a long story about the sea.", max_output_tokens=5, temperature=0.0)
    assert isinstance(error, TruncatedReply)
    assert error.text
    assert desk.last_line()["usage"]["output_tokens"] == 5


@needs_model
@every_way
def test_a_prompt_that_is_too_long_is_refused_with_the_engines_words(desk: Desk, way: str) -> None:
    error = desk.fail(way, "tide " * 6_000)
    assert isinstance(error, RequestError), repr(error)
    assert (error.provider, error.status) == ("local", 400)
    assert "context" in str(error)
    assert desk.last_line()["error"]["class"] == "RequestError"


@needs_model
@every_way
def test_its_time_is_kept(desk: Desk, way: str) -> None:
    desk.ask("sync", "Hello", complete=True, stop=["\n", " "], max_output_tokens=4, grammar='root ::= "a"')
    started_s = time.monotonic()
    error = desk.fail(
        way, "Once upon a time", complete=True, max_output_tokens=3_900, grammar="root ::= [a-z ]+", timeout_s=0.5
    )
    took_s = time.monotonic() - started_s
    cause = error if isinstance(error, ProviderTimeout) else error.__cause__
    assert isinstance(cause, ProviderTimeout), repr(error)
    assert took_s < 20, "3,900 tokens take longer on any machine"
    assert desk.last_line()["error"]["class"] == "ProviderTimeout"


@needs_model
def test_closing_a_stream_early_frees_the_engine(desk: Desk) -> None:
    options = {"complete": True, "max_output_tokens": 3_900, "grammar": "root ::= [a-z ]+"}
    with models.stream("Once upon a time", CONTEXT, **options) as stream:  # type: ignore[arg-type]
        assert next(stream)
    started_s = time.monotonic()
    desk.ask("sync", "Hello", grammar='root ::= "a"', max_output_tokens=4)
    assert time.monotonic() - started_s < 20, "3,900 tokens take longer on an idle machine"
    assert [line["finish"] for line in desk.journal.lines()] == ["closed", "stop"]


# What needs no engine


@every_way
def test_pictures_and_tools_are_refused_in_words(desk: Desk, way: str) -> None:
    if WEIGHTS is None:
        pytest.skip("needs the weights: muse local fetch")
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2)).save(buffer, "PNG")
    error = desk.fail(way, ["Look.", buffer.getvalue()])
    assert isinstance(error, ContentsError)
    assert "reads no images" in str(error)
    with pytest.raises(ContentsError, match="reads no files"):
        desk.ask(way, ["Read.", b"%PDF-1.7 ..."])


@every_way
def test_a_model_file_that_is_not_there_is_said(desk: Desk, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(local.MODEL_ENV, "/nowhere/model.gguf")
    error = desk.fail(way, "Hello")
    assert isinstance(error, UnavailableError)
    assert "/nowhere/model.gguf" in str(error)
    assert desk.last_line()["error"]["class"] == "UnavailableError"
    monkeypatch.delenv(local.MODEL_ENV)
    desk.journal.route(default={"provider": "local"}, local={"model_path": "/nowhere/else.gguf"})
    assert "/nowhere/else.gguf" in str(desk.fail(way, "Hello"))


def test_a_file_that_is_no_model_is_said(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "not-a-model.gguf"
    fake.write_bytes(b"GIF89a, surely not a model")
    monkeypatch.setenv(local.MODEL_ENV, str(fake))
    assert isinstance(desk.fail("sync", "Hello"), ConfigError)
    assert fake.name in str(desk.fail("sync", "Hello"))


def test_it_never_stands_in_for_another_provider(desk: Desk) -> None:
    desk.journal.route(default={"provider": "openai"})
    for way in WAYS:
        assert "OPENAI_API_KEY" in str(desk.fail(way, "Hello"))
    assert {line["provider"] for line in desk.journal.lines()} == {"openai"}
