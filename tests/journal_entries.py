"""Entries of a journal for a test; it knows no test."""

from __future__ import annotations

from pathlib import Path


def write_entry(root: Path, path: str, text: str) -> Path:
    """Write a file of the journal at `root`; lone surrogates in `text` become bytes that are no UTF-8."""
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text.encode("utf-8", errors="surrogatepass"))
    return file
