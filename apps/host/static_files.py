"""Static files: their addresses bear a hash of their content, so that a browser keeps them; it knows no page."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from urllib.parse import parse_qs, quote

from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

_KEPT = "public, max-age=31536000, immutable"
_ASKED = "no-cache"
_HASH_CHARS = 12

_hashes: dict[tuple[str, int, int], str] = {}


class Files(StaticFiles):
    """A folder of static files; one that is asked for by its present hash may be kept for good."""

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        """The file, or 304 if the browser has it."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        asked = parse_qs(scope["query_string"].decode("latin-1")).get("v", [""])[0]
        kept = bool(asked) and asked == content_hash(Path(full_path))
        response.headers["Cache-Control"] = _KEPT if kept else _ASKED
        return response


def content_hash(path: Path) -> str:
    """A short hash of a file's content, computed again only when its stamp moved; empty if it is not there."""
    try:
        info = path.stat()
        key = (str(path), info.st_mtime_ns, info.st_size)
        if key not in _hashes:
            _hashes[key] = hashlib.sha256(path.read_bytes()).hexdigest()[:_HASH_CHARS]
    except OSError:
        return ""
    return _hashes[key]


def address(prefix: str, folder: Path, name: str) -> str:
    """The address of the file `name` of `folder`, which is served at `prefix`."""
    found = content_hash(folder / name)
    return f"{prefix}/{quote(name)}" + (f"?v={found}" if found else "")
