"""A caller's contents made into a request: only here do images and files become bytes; it knows no wire form."""

from __future__ import annotations

import io
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from muse.types.errors import ConfigError, ContentsError
from muse.types.exif_orientation import rotate_upright, turned
from muse.types.messages import (
    DEFAULT_MAX_OUTPUT_TOKENS,
    Assistant,
    File,
    Image,
    Part,
    Request,
    ToolResult,
    ToolResults,
    Turn,
    User,
)

# First bytes by which an encoded picture or document is known.
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"%PDF-", "application/pdf"),
)
_ROLES = ("user", "assistant", "model", "system")


def detect_media_type(data: bytes, *, where: str = "bytes") -> str:
    """The media type of an encoded image or PDF by its first bytes.

    Raises:
        ContentsError: the bytes are not PNG, JPEG, GIF, WebP or PDF.
    """
    for magic, media_type in _MAGIC:
        if data.startswith(magic):
            return media_type
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    start = data[:12]
    raise ContentsError(
        f"{where}: found {len(data)} bytes that begin with {start!r},"
        f" expected an image (PNG, JPEG, GIF, WebP) or a PDF. Convert it first, or send it as text"
    )


def to_turns(contents: object) -> tuple[str | None, tuple[Turn, ...]]:
    """`contents` as `(system text or None, turns)`.

    A string is one user turn. In a list, neighbouring strings, PIL images, bytes, paths, `Image` and `File` make one
    user turn; role dicts `{"role": user|assistant|model|system, "content": ...}` and turns stand for themselves.

    Raises:
        ContentsError: nothing to send, or an entry that cannot be sent; the text names its place.
    """
    if isinstance(contents, str):
        return None, (User((_text(contents, "contents"),)),)
    entries = _as_list(contents)
    system: list[str] = []
    turns: list[Turn] = []
    loose: list[Part] = []
    for index, entry in enumerate(entries):
        where = f"contents[{index}]"
        if isinstance(entry, (User, Assistant, ToolResults, Mapping)):
            _flush(loose, turns)
            _add_turn(entry, where, system, turns)
        else:
            loose.append(_part(entry, where))
    _flush(loose, turns)
    if not turns:
        raise ContentsError("contents: found only system text, expected at least one user turn")
    return "\n\n".join(system) or None, tuple(turns)


def _as_list(contents: object) -> Sequence[object]:
    if contents is None:
        raise ContentsError("contents: found None, expected text, an image, a file, or a list of them")
    if isinstance(contents, Sequence) and not isinstance(contents, (bytes, bytearray)):
        entries: Sequence[object] = contents
    elif (
        isinstance(contents, (Iterable,))
        and not isinstance(contents, (bytes, bytearray, Mapping))
        and not _is_pil(contents)
    ):
        entries = list(contents)
    else:
        entries = [contents]
    if not entries:
        raise ContentsError("contents: found an empty list, expected at least one part")
    return entries


def _flush(loose: list[Part], turns: list[Turn]) -> None:
    if loose:
        turns.append(User(tuple(loose)))
        loose.clear()


def _add_turn(entry: object, where: str, system: list[str], turns: list[Turn]) -> None:
    """Add a turn, or a role dict as one; a system dict adds to `system`."""
    if not isinstance(entry, Mapping):
        turns.append(_upright_turn(entry))
        return
    role = entry.get("role")
    if not isinstance(role, str) or role not in _ROLES or "content" not in entry:
        raise ContentsError(
            f"{where}: found a dict with keys {sorted(map(str, entry))} and role {role!r},"
            f" expected {{'role': 'user' | 'assistant' | 'system', 'content': ...}}"
        )
    parts = _parts(entry["content"], f"{where}['content']")
    if role == "system":
        system.append(_joined(parts, where))
    elif role in ("assistant", "model"):
        turns.append(Assistant(_joined(parts, where)))
    else:
        turns.append(User(parts))


def _upright_turn(turn: Any) -> Turn:
    """A caller's own turn, its pictures upright."""
    match turn:
        case User(parts) if any(isinstance(part, Image) for part in parts):
            return User(tuple(rotate_upright(part) if isinstance(part, Image) else part for part in parts))
        case ToolResults(results):
            return ToolResults(tuple(_upright_result(result) for result in results))
        case _:
            kept: Turn = turn
            return kept


def _upright_result(result: ToolResult) -> ToolResult:
    """A tool's result, its pictures upright."""
    if not any(isinstance(part, Image) for part in result.parts):
        return result
    return replace(
        result, parts=tuple(rotate_upright(part) if isinstance(part, Image) else part for part in result.parts)
    )


def _parts(content: object, where: str) -> tuple[Part, ...]:
    if isinstance(content, Sequence) and not isinstance(content, (str, bytes, bytearray)):
        if not content:
            raise ContentsError(f"{where}: found an empty list, expected at least one part")
        return tuple(_part(entry, f"{where}[{index}]") for index, entry in enumerate(content))
    return (_part(content, where),)


def _joined(parts: tuple[Part, ...], where: str) -> str:
    if not all(isinstance(part, str) for part in parts):
        raise ContentsError(f"{where}: found an image or file, expected text: only user turns carry them")
    return "\n".join(str(part) for part in parts)


def _part(entry: object, where: str) -> Part:
    """One entry as a part; paths are read, PIL images encoded, bytes recognised."""
    match entry:
        case str():
            return _text(entry, where)
        case Image() | File():
            return rotate_upright(entry) if isinstance(entry, Image) else entry
        case {"type": "text" | "input_text", "text": str(text)}:
            return _text(text, where)
        case Path():
            return _read_file(entry, where)
        case bytes() | bytearray():
            return _binary(bytes(entry), where, "document.pdf")
        case _ if _is_pil(entry):
            return _encode_pil(entry, where)
        case _:
            kind = type(entry).__name__
            raise ContentsError(f"{where}: found {kind}, expected text, a PIL image, bytes, a path, or a role dict")


def _text(text: str, where: str) -> str:
    """`text` itself, if it is there and can be encoded as UTF-8."""
    if not text.strip():
        raise ContentsError(f"{where}: found empty text, expected something to say")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as exc:
        bad = text[exc.start : exc.start + 1]
        raise ContentsError(
            f"{where}: found {bad!r} at position {exc.start}, expected text that can be encoded as UTF-8"
            f" (decode the source with errors='replace')"
        ) from exc
    return text


def _read_file(path: Path, where: str) -> Part:
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise ContentsError(f"{where}: cannot read {str(path)!r}: {exc.strerror or exc}") from exc
    return _binary(data, f"{where} ({path.name})", path.name)


def _binary(data: bytes, where: str, name: str) -> Part:
    media_type = detect_media_type(data, where=where)
    if media_type == "application/pdf":
        return File(data, media_type, name)
    return rotate_upright(Image(data, media_type))


def _is_pil(entry: object) -> bool:
    """Whether `entry` is a PIL image; Pillow is loaded then anyway, so it is not imported here."""
    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(entry, module.Image)


def _encode_pil(image: Any, where: str) -> Image:
    """A PIL image as PNG, upright; JPEG stays JPEG, since a photograph as PNG is many times its size."""
    buffer = io.BytesIO()
    form = "JPEG" if image.format in ("JPEG", "MPO") else "PNG"
    try:
        turned(image).save(buffer, form, **({"quality": 90} if form == "JPEG" else {"compress_level": 1}))
    except (OSError, ValueError, SyntaxError) as exc:  # Pillow calls a broken PNG chunk a syntax error
        raise ContentsError(f"{where}: cannot encode the {image.mode} image as {form}: {exc}") from exc
    return Image(buffer.getvalue(), f"image/{form.lower()}")


def build_request(contents: object, model: str, options: Mapping[str, Any], *, needs_text: bool = False) -> Request:
    """The request for `contents`; options that are not common ones go along as `extras`.

    Raises:
        ContentsError: the contents cannot be sent.
        ValueError: an option's value makes no sense.
    """
    system, turns = to_turns(contents)
    given = {name: value for name, value in options.items() if not _is_unset(name, value)}
    _check_texts(model, given)
    _check_numbers(given)
    said = given.pop("system_instruction", None)
    if isinstance(given.get("stop"), str):
        given["stop"] = (given["stop"],)
    common = {name: given.pop(name) for name in _COMMON if name in given}
    said = _text(said, "system_instruction") if said and said.strip() else None
    system_text = "\n\n".join(text for text in (said, system) if text) or None
    return Request(model=model, turns=turns, system=system_text, extras=given, needs_text=needs_text, **common)


def _is_unset(name: str, value: object) -> bool:
    """Whether an option beyond the common ones was given as None, which says nothing."""
    return value is None and name not in _COMMON


def _check_texts(model: object, options: Mapping[str, Any]) -> None:
    """See that the options that are texts or schemas are some.

    Raises:
        ValueError: one is not; the text names it.
    """
    if not isinstance(model, str) or not model.isprintable() or not model.strip():
        raise ConfigError("model", repr(model), "the name of a model")
    said, schema = options.get("system_instruction"), options.get("json_schema")
    if said is not None and not isinstance(said, str):
        raise ValueError(f"system_instruction: found {type(said).__name__}, expected text, or None")
    if schema is not None and not isinstance(schema, Mapping):
        raise ValueError(f"json_schema: found {type(schema).__name__}, expected a JSON Schema as a dict, or None")
    if schema is not None:
        try:
            json.dumps(schema)
        except (ValueError, TypeError, RecursionError) as exc:
            raise ValueError(f"json_schema: found one that is no JSON ({exc}), expected a JSON Schema") from exc


def _check_numbers(options: dict[str, Any]) -> None:
    """See that the options that are numbers are some; a negative thinking budget is the model's own way.

    Raises:
        ValueError: one is not; the text names it.
    """
    limit = options.get("max_output_tokens", DEFAULT_MAX_OUTPUT_TOKENS)
    if not _is_number(limit, int) or limit < 1:
        raise ValueError(f"max_output_tokens: found {limit!r}, expected a whole number of tokens above 0")
    temperature = options.get("temperature")
    if temperature is not None and not (_is_number(temperature, (int, float)) and math.isfinite(temperature)):
        raise ValueError(f"temperature: found {temperature!r}, expected a number, or None")
    timeout_s, budget = options.get("timeout_s"), options.get("thinking_budget")
    if timeout_s is not None and not _is_number(timeout_s, (int, float)):
        raise ValueError(f"timeout_s: found {timeout_s!r}, expected a number of seconds above 0, or None")
    if budget is not None and not _is_number(budget, int):
        raise ValueError(f"thinking_budget: found {budget!r}, expected a whole number of tokens, or None")
    if budget is not None and budget < 0:
        options["thinking_budget"] = None


def _is_number(value: object, kind: type | tuple[type, ...]) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


_COMMON = ("temperature", "max_output_tokens", "json_output", "json_schema", "thinking_budget", "timeout_s")
