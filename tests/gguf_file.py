"""A model file with another chat template; it knows of GGUF what that takes, and of models nothing."""

from __future__ import annotations

import struct
from pathlib import Path

_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING, _ARRAY = 8, 9
_ALIGNMENT = 32
_TEMPLATE = b"tokenizer.chat_template"


def with_template(source: Path, target: Path, template: str) -> Path:
    """Copy a GGUF file (version 3) to `target`, its chat template replaced."""
    data = memoryview(source.read_bytes())
    tensors, entries = struct.unpack_from("<QQ", data, 8)
    head, at = bytearray(data[:24]), 24
    for _ in range(entries):
        start, (key, at) = at, _text(data, at)
        kind, at = *struct.unpack_from("<I", data, at), at + 4
        after = _skip(data, at, kind)
        head += data[start:at]
        said = template.encode()
        head += struct.pack("<Q", len(said)) + said if key == _TEMPLATE else data[at:after]
        at = after
    start = at
    for _ in range(tensors):
        _, at = _text(data, at)
        (dimensions,) = struct.unpack_from("<I", data, at)
        at += 4 + 8 * dimensions + 4 + 8
    head += data[start:at]
    with target.open("wb") as file:
        file.write(head + bytes(-len(head) % _ALIGNMENT))
        file.write(data[at + -at % _ALIGNMENT :])
    return target


def _text(data: memoryview, at: int) -> tuple[bytes, int]:
    (length,) = struct.unpack_from("<Q", data, at)
    return bytes(data[at + 8 : at + 8 + length]), at + 8 + length


def _skip(data: memoryview, at: int, kind: int) -> int:
    """Where a value ends."""
    if kind == _STRING:
        return _text(data, at)[1]
    if kind != _ARRAY:
        return at + _SIZES[kind]
    inner, count = struct.unpack_from("<IQ", data, at)
    at += 12
    if inner in _SIZES:
        return at + _SIZES[inner] * count
    for _ in range(count):
        at = _skip(data, at, inner)
    return at
