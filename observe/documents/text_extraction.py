"""A document as text, and what its metadata says of its making (mail, HTML, PDF, Office, pictures); it asks nothing."""

from __future__ import annotations

import lzma
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from muse.errors import ContentsError
from observe.screens.images import opened, times_of
from observe.screens.video import STILLS
from observe.transcripts.parser import decode

MOST_CHARS = 60_000
_MOST_BYTES = 4_000_000
_SCRIPT = re.compile(r"<(/?)(script|style)\b", re.IGNORECASE)
_TAG = re.compile(r"<[^<>]{0,2000}>")
_PDF_DATE = re.compile(rb"/(CreationDate|ModDate)\s*\(D:(\d{8})")
_XMP_DATE = re.compile(rb"<xmp:(CreateDate|ModifyDate)>([^<]{8,40})<")
_META = re.compile(
    r"""<meta[^>]{0,300}(?:name|property|itemprop)=["']?(article:published_time|date|dc\.date|dcterms\.created|datePublished)["']?[^>]{0,300}content=["']([^"']{6,40})""",
    re.IGNORECASE,
)
_MAIL_DATE = re.compile(r"^(Date|Sent|Gesendet|Datum): +(.{6,60})$", re.MULTILINE)
_OFFICE_DATE = re.compile(rb"<(dcterms:created|meta:creation-date|dc:date)[^>]{0,100}>([^<]{8,40})<")
_OFFICE_PARTS = ("docProps/core.xml", "meta.xml")
# What zipfile and its decoders raise for archives that are broken.
_BROKEN = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError, ValueError, NotImplementedError,
    RuntimeError,
)  # fmt: skip
_OFFICE_TEXT = ("word/document.xml", "content.xml")


class Said(Struct, frozen=True):
    """What metadata says: in which field, and the text there."""

    field: str
    text: str


class Document(Struct, frozen=True):
    """A file's name, its text as far as it is read, and its metadata about dates, the most telling first.

    `written_at` is when the file was last written, in local time.
    """

    name: str
    text: str
    metadata: tuple[Said, ...] = ()
    written_at: str = ""


def read_document(path: Path) -> Document:
    """What a file says, and when it was written.

    Raises:
        ContentsError: it is a broken picture or Office file; the text says so.
        OSError: it cannot be read.
    """
    stamp = datetime.fromtimestamp(path.stat().st_mtime).isoformat(sep=" ", timespec="seconds")
    return replace(_read(path), written_at=stamp)


def _read(path: Path) -> Document:
    """What a file says.

    Raises:
        ContentsError: it is a broken picture or Office file; the text says so.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        data = file.read(_MOST_BYTES)
    if path.suffix.lower() in STILLS:
        return Document(path.name, "", tuple(_of_picture(path)))
    if data.startswith(b"%PDF-"):
        return Document(path.name, "", tuple(_of_pdf(path)))
    if data.startswith(b"PK\x03\x04"):
        return _office(path)
    if b"\0" in data[:4096] and data[:2] not in (b"\xff\xfe", b"\xfe\xff"):
        return Document(path.name, "")
    text = decode(data)
    metadata = tuple(Said(f"meta {match[1]}", match[2]) for match in _META.finditer(text[:MOST_CHARS]))
    if re.search(r"<(html|body|!doctype)\b", text[:2_000], re.IGNORECASE):
        text = _TAG.sub(" ", _without_scripts(text))
    metadata += tuple(Said(f"header {match[1]}", match[2]) for match in _MAIL_DATE.finditer(text[:4_000]))
    return Document(path.name, text[:MOST_CHARS], metadata)


def _without_scripts(text: str) -> str:
    """HTML without its scripts and styles; one that does not end takes all that follows along."""
    kept: list[str] = []
    begin, inside = 0, ""
    for match in _SCRIPT.finditer(text):
        name = match[2].lower()
        if not inside and not match[1]:
            kept.append(text[begin : match.start()])
            inside = name
        elif match[1] and name == inside:
            begin, inside = match.start(), ""
    return " ".join(kept if inside else [*kept, text[begin:]])


def _of_picture(path: Path) -> Iterator[Said]:
    with opened(path) as image:
        yield from (Said(name, said.replace(":", "-", 2)) for name, said in times_of(image).items())


def _of_pdf(path: Path) -> Iterator[Said]:
    """The dates in a PDF's plain objects; the text of its pages is not read."""
    size = path.stat().st_size
    with path.open("rb") as file:
        data = file.read(_MOST_BYTES)
        if size > 2 * _MOST_BYTES:
            file.seek(size - _MOST_BYTES)
        data += file.read(_MOST_BYTES)
    found = [(name, value) for pattern in (_PDF_DATE, _XMP_DATE) for name, value in pattern.findall(data)]
    for name, value in sorted(found, key=lambda one: one[0].startswith(b"Mod")):
        yield Said(f"PDF {name.decode()}", value.decode("ascii", errors="replace"))


def _office(path: Path) -> Document:
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            about = b"".join(_part(archive, name) for name in _OFFICE_PARTS if name in names)
            text = b" ".join(_part(archive, name) for name in _OFFICE_TEXT if name in names)
    except _BROKEN as exc:
        raise ContentsError(f"{path}: found no whole Office file ({exc}), expected one that can be opened") from exc
    said = tuple(
        Said(match[1].decode(), match[2].decode("ascii", errors="replace")) for match in _OFFICE_DATE.finditer(about)
    )
    return Document(path.name, " ".join(_TAG.sub(" ", decode(text)).split())[:MOST_CHARS], said)


def _part(archive: zipfile.ZipFile, name: str) -> bytes:
    """The beginning of a part; what is beyond is never unpacked."""
    with archive.open(name) as file:
        return file.read(_MOST_BYTES)
