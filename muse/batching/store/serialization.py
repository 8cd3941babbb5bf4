"""Conversion of requests, images and files included, to bytes and back.

Entry points: `pack`, `unpack`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from muse.batching.request import BatchRequest
from muse.types.content import to_turns
from muse.types.errors import ContentsError
from muse.types.messages import Assistant, File, Image, Part, ToolCall, ToolResults, Turn, User


class _Picture(Struct, tag="image"):
    data: bytes
    media_type: str


class _Document(Struct, tag="file"):
    data: bytes
    media_type: str
    name: str


_Packed = str | _Picture | _Document


class _Said(Struct):
    role: Literal["user", "assistant"]
    parts: list[_Packed]
    calls: list[ToolCall] = []


class _Form(Struct, omit_defaults=True):
    """The fields of a request that go to a model; the names are part of the file format."""

    said: list[_Said]
    context: str
    system: str | None = None
    model: str | None = None
    temperature: float | None = None
    max_output_tokens: int = 0
    system_instruction: str | None = None
    json_output: bool = False
    thinking_budget: int | None = None
    cached_content: str | None = None
    json_schema: Mapping[str, Any] | None = None
    timeout_s: float | None = None
    segment: str | None = None


_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_encode = msgspec.msgpack.Encoder(order="deterministic").encode
_decode = msgspec.msgpack.Decoder(_Form).decode


def pack(request: BatchRequest) -> tuple[bytes, str]:
    """Return the request as bytes, and a hash of everything that shapes the answer.

    The time limit and the segment are not part of the hash.

    Raises:
        ContentsError: The contents cannot be sent, or an option cannot be stored.
    """
    system, turns = to_turns(request.contents)
    form = _Form(
        [_said(turn) for turn in turns],
        request.context,
        system,
        request.model,
        request.temperature,
        request.max_output_tokens,
        request.system_instruction,
        request.json_output,
        request.thinking_budget,
        request.cached_content,
        request.json_schema,
        request.timeout_s,
        request.segment,
    )
    try:
        body = _encode(form)
        shaping = (
            _encode(replace(form, timeout_s=None, segment=None)) if form.timeout_s is not None or form.segment else body
        )
    except (TypeError, ValueError, RecursionError) as exc:
        raise ContentsError(f"the request for {request.context!r} cannot be kept in a ledger: {exc}") from exc
    return body, hashlib.blake2b(shaping, digest_size=16).hexdigest()


def pack_unsendable(request: BatchRequest) -> tuple[bytes, str]:
    """Return placeholder bytes and a hash of the content, for a request that `pack` refuses."""
    body = _encode(_Form([], str(request.context)))
    shaping = _ADDRESS.sub("", repr((request.contents, sorted(request.options().items()))))
    return body, hashlib.blake2b(shaping.encode("utf-8", errors="replace"), digest_size=16).hexdigest()


def unpack(body: bytes) -> BatchRequest:
    """Return the request that was packed; its contents are turns, whatever form they had originally.

    Raises:
        msgspec.DecodeError: The bytes are not a packed request.
    """
    form = _decode(body)
    contents: list[Any] = [{"role": "system", "content": form.system}] if form.system else []
    contents += [_turn(said) for said in form.said]
    return BatchRequest(
        contents,
        form.context,
        form.model,
        form.temperature,  # type: ignore[arg-type]  # None is kept as it was given
        form.max_output_tokens,
        form.system_instruction,
        form.json_output,
        form.thinking_budget,
        form.cached_content,
        form.timeout_s,
        json_schema=form.json_schema,
        segment=form.segment,
    )


def _said(turn: Turn) -> _Said:
    match turn:
        case User(parts):
            return _Said("user", [_packed(part) for part in parts])
        case Assistant(text, calls):
            return _Said("assistant", [text], list(calls))
        case ToolResults():
            found = "results of tools"
    raise ContentsError(f"contents: found {found}, which a ledger does not keep; expected text, images, files")


def _packed(part: Part) -> _Packed:
    match part:
        case Image(data, media_type):
            return _Picture(data, media_type)
        case File(data, media_type, name):
            return _Document(data, media_type, name)
        case str():
            return part


def _turn(said: _Said) -> Turn:
    if said.role == "assistant":
        return Assistant("".join(part for part in said.parts if isinstance(part, str)), tuple(said.calls))
    return User(tuple(_part(part) for part in said.parts))


def _part(packed: _Packed) -> Part:
    match packed:
        case _Picture(data, media_type):
            return Image(data, media_type)
        case _Document(data, media_type, name):
            return File(data, media_type, name)
        case str():
            return packed
