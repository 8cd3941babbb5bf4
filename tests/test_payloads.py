"""Conformance: what arrives at the server is each provider's own form of the same request, in full."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from muse.errors import ContentsError
from muse.types.messages import File
from tests.desk import QUESTION, WAYS, Desk
from tests.provider_cases import GATEWAYS, WIRES, Case

OPENAI, ANTHROPIC, GOOGLE, COMPATIBLE = WIRES
AZURE = next(case for case in GATEWAYS if case.name == "azure")
LIMIT = 8192 * 2
PDF = b"%PDF-1.7\n1 0 obj << /Type /Catalog >> endobj\n%%EOF\n"
every_wire = pytest.mark.parametrize("case", WIRES, ids=str)
every_way = pytest.mark.parametrize("way", WAYS)


def _png(color: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2), color).save(buffer, "PNG")
    return buffer.getvalue()


def _text_part(case: Case, text: str) -> dict[str, Any]:
    kinds = {"openai": {"type": "input_text"}, "google": {}}
    return {**kinds.get(case.wire, {"type": "text"}), "text": text}


def _image_part(case: Case, data: bytes, media_type: str = "image/png") -> dict[str, Any]:
    plain = base64.b64encode(data).decode()
    url = f"data:{media_type};base64,{plain}"
    source = {"type": "base64", "media_type": media_type, "data": plain}
    return {
        "openai": {"type": "input_image", "image_url": url, "detail": "auto"},
        "anthropic": {"type": "image", "source": source},
        "google": {"inlineData": {"mimeType": media_type, "data": plain}},
        "compatible": {"type": "image_url", "image_url": {"url": url}},
    }[case.wire]


def _file_part(case: Case, data: bytes, name: str) -> dict[str, Any]:
    plain = base64.b64encode(data).decode()
    url = f"data:application/pdf;base64,{plain}"
    return {
        "openai": {"type": "input_file", "filename": name, "file_data": url},
        "anthropic": {
            "type": "document",
            "source": {"type": "base64", "media_type": "application/pdf", "data": plain},
        },
        "google": {"inlineData": {"mimeType": "application/pdf", "data": plain}},
        "compatible": {"type": "file", "file": {"filename": name, "file_data": url}},
    }[case.wire]


def _user_parts(case: Case, body: dict[str, Any]) -> Any:
    """The parts of the only turn of a request."""
    turns = body["contents" if case.wire == "google" else "input" if case.wire == "openai" else "messages"]
    assert [turn["role"] for turn in turns] == ["user"]
    return turns[0]["parts" if case.wire == "google" else "content"]


# The whole body of the plainest request


_PLAIN: dict[str, dict[str, Any]] = {
    "openai": {
        "model": OPENAI.model,
        "input": [{"role": "user", "content": [{"type": "input_text", "text": QUESTION}]}],
        "max_output_tokens": LIMIT,
        "store": False,
        "include": ["reasoning.encrypted_content"],
    },
    "anthropic": {
        "model": ANTHROPIC.model,
        "messages": [{"role": "user", "content": [{"type": "text", "text": QUESTION}]}],
        "max_tokens": LIMIT,
        "temperature": 0.3,
    },
    "google": {
        "contents": [{"role": "user", "parts": [{"text": QUESTION}]}],
        "generationConfig": {"temperature": 0.3, "maxOutputTokens": LIMIT},
    },
    "compatible": {
        "model": COMPATIBLE.model,
        "messages": [{"role": "user", "content": QUESTION}],
        "max_tokens": LIMIT,
        "temperature": 0.3,
    },
}
_PATHS = {
    "openai": "/v1/responses",
    "anthropic": "/v1/messages",
    "google": f"/models/{GOOGLE.model}:generateContent",
    "compatible": "/v1/chat/completions",
}
_STREAMED: dict[str, dict[str, Any]] = {
    "openai": {"stream": True},
    "anthropic": {"stream": True},
    "google": {},
    "compatible": {"stream": True, "stream_options": {"include_usage": True}},
}


@every_way
@every_wire
def test_a_plain_request_has_nothing_that_was_not_asked_for(desk: Desk, case: Case, way: str) -> None:
    desk.use(case)
    request = desk.sent(way)
    is_stream = way.endswith("stream")
    assert request.body == _PLAIN[case.wire] | (_STREAMED[case.wire] if is_stream else {})
    path = _PATHS[case.wire]
    assert request.path.endswith(path.replace(":generate", ":streamGenerate") if is_stream else path)


@pytest.mark.parametrize("case", GATEWAYS, ids=str)
def test_a_gateway_is_asked_at_its_own_address(desk: Desk, case: Case) -> None:
    desk.use(case)
    request = desk.sent()
    assert request.path == f"{case.path}/chat/completions"
    assert request.headers["authorization"] == f"Bearer {case.key if case.has_key else 'none'}"


# Contents


@every_wire
def test_pictures_of_every_kind_are_sent_as_pictures(desk: Desk, case: Case, tmp_path: Path) -> None:
    desk.use(case)
    path = tmp_path / "blue.png"
    path.write_bytes(_png("blue"))
    contents = ["Compare.", Image.open(io.BytesIO(_png("red"))), _png("green"), path, "Which is the sea?"]
    text, red, *rest = _user_parts(case, desk.sent(contents=contents).body)
    assert text == _text_part(case, "Compare.")
    others = [_image_part(case, _png("green")), _image_part(case, _png("blue"))]
    assert rest == [*others, _text_part(case, "Which is the sea?")]
    data = red.get("image_url") or red.get("source") or red.get("inlineData")
    plain = data["url"] if "url" in data else data if isinstance(data, str) else data["data"]
    with Image.open(io.BytesIO(base64.b64decode(plain.rpartition(",")[2]))) as picture:
        assert (picture.size, picture.getpixel((0, 0))) == ((2, 2), (255, 0, 0))


@every_wire
def test_a_pdf_is_sent_as_a_document(desk: Desk, case: Case, tmp_path: Path) -> None:
    desk.use(case)
    path = tmp_path / "minutes.pdf"
    path.write_bytes(PDF)
    parts = _user_parts(case, desk.sent(contents=["Sum up.", path, File(PDF, "application/pdf", "old.pdf"), PDF]).body)
    named = [_file_part(case, PDF, name) for name in ("minutes.pdf", "old.pdf", "document.pdf")]
    assert parts == [_text_part(case, "Sum up."), *named]


@pytest.mark.parametrize(
    ("case", "model", "what"), [(AZURE, "gpt-4o", PDF), (OPENAI, "gpt-3.5-turbo", _png("red"))], ids=["file", "image"]
)
def test_a_model_that_cannot_read_it_gets_no_request(desk: Desk, case: Case, model: str, what: bytes) -> None:
    desk.use(replace(case, model=model))
    with pytest.raises(ContentsError, match=f"{model} reads no (images|files)"):
        desk.ask("sync", contents=["Look.", what])
    assert not desk.server.requests


def _conversation(case: Case) -> tuple[str, Any]:
    said = [("user", "Moin."), ("assistant", "Moin moin."), ("user", "And now?")]
    match case.wire:
        case "openai":
            kinds = {"user": "input_text", "assistant": "output_text"}
            return "input", [{"role": r, "content": [{"type": kinds[r], "text": text}]} for r, text in said]
        case "google":
            roles = {"user": "user", "assistant": "model"}
            return "contents", [{"role": roles[r], "parts": [{"text": text}]} for r, text in said]
        case "anthropic":
            return "messages", [{"role": r, "content": [{"type": "text", "text": text}]} for r, text in said]
    system = [{"role": "system", "content": "Be short.\n\nBe kind."}]
    return "messages", system + [{"role": r, "content": text} for r, text in said]


@every_wire
def test_roles_and_system_text_stand_where_the_provider_wants_them(desk: Desk, case: Case) -> None:
    desk.use(case)
    contents = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Moin."},
        {"role": "assistant", "content": "Moin moin."},
        {"role": "user", "content": [{"type": "text", "text": "And now?"}]},
    ]
    body = desk.sent(contents=contents, system_instruction="Be short.").body
    field, turns = _conversation(case)
    assert body[field] == turns
    system = "Be short.\n\nBe kind."
    own = {"openai": ("instructions", system), "anthropic": ("system", system)}
    own["google"] = ("systemInstruction", {"parts": [{"text": system}]})  # type: ignore[assignment]
    if case.wire in own:
        name, value = own[case.wire]
        assert body[name] == value


# JSON


@every_wire
def test_json_is_asked_for_in_the_providers_own_way(desk: Desk, case: Case) -> None:
    desk.use(case)
    desk.play(case, "json")
    body = desk.sent(json_output=True).body
    match case.wire:
        case "openai":
            assert body["text"] == {"format": {"type": "json_object"}}
            assert body["input"][-1]["role"] == "developer"
            assert "JSON" in body["input"][-1]["content"]
        case "anthropic":
            assert "JSON" in body["system"]
        case "google":
            assert body["generationConfig"]["responseMimeType"] == "application/json"
        case _:
            assert body["response_format"] == {"type": "json_object"}
            assert "JSON" in body["messages"][-1]["content"]


_SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "minLength": 1},
        "district": {"type": "string"},
        "harbour": {"type": "object", "properties": {"depth_m": {"type": "number"}}, "required": ["depth_m"]},
    },
    "required": ["city", "harbour"],
}
_HARBOUR = {
    "type": "object",
    "properties": {"depth_m": {"type": "number"}},
    "required": ["depth_m"],
    "additionalProperties": False,
}
_STRICT = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "district": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "harbour": _HARBOUR,
    },
    "required": ["city", "district", "harbour"],
    "additionalProperties": False,
}


@every_wire
def test_a_schema_is_sent_in_the_strict_form_of_the_provider(desk: Desk, case: Case) -> None:
    desk.use(case)
    desk.play(case, "schema")
    body = desk.sent(json_schema=_SCHEMA, model="claude-sonnet-4-6" if case is ANTHROPIC else case.model).body
    form = {"name": "reply", "strict": True, "schema": _STRICT}
    match case.wire:
        case "openai":
            assert body["text"] == {"format": {"type": "json_schema", **form}}
        case "anthropic":
            properties = {"city": {"type": "string"}, "district": {"type": "string"}, "harbour": _HARBOUR}
            closed = {**_SCHEMA, "properties": properties, "additionalProperties": False}
            assert body["output_config"] == {"format": {"type": "json_schema", "schema": closed}}
        case "google":
            assert body["generationConfig"]["responseJsonSchema"] == _SCHEMA
            assert body["generationConfig"]["responseMimeType"] == "application/json"
        case _:
            assert body["response_format"] == {"type": "json_schema", "json_schema": form}


@pytest.mark.parametrize(
    ("case", "model"), [(OPENAI, "gpt-4-turbo"), (ANTHROPIC, "claude-3-5-haiku-latest"), (GOOGLE, "gemma-3-27b-it")]
)
def test_a_schema_goes_along_in_words_where_the_model_takes_none(desk: Desk, case: Case, model: str) -> None:
    desk.use(case)
    desk.play(case, "schema")
    request = desk.sent(json_schema=_SCHEMA, model=model)
    assert b"json_schema" not in request.content
    assert b"responseJsonSchema" not in request.content
    assert b"depth_m" in request.content


@every_wire
def test_an_open_schema_is_not_claimed_to_be_strict(desk: Desk, case: Case) -> None:
    desk.use(case)
    desk.play(case, "json")
    body = desk.sent(json_schema={"type": "object", "additionalProperties": {"type": "number"}}).body
    match case.wire:
        case "openai":
            assert body["text"]["format"]["strict"] is False
        case "anthropic":
            assert "output_config" not in body
            assert "additionalProperties" in body["system"]
        case "google":
            assert body["generationConfig"]["responseJsonSchema"]["additionalProperties"] == {"type": "number"}
        case _:
            assert body["response_format"]["json_schema"]["strict"] is False
