"""Options that no call knows: ignored with one warning for each place, named in the reply, refused with `strict`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from muse import models
from muse.batch import Batch
from muse.calls import unknown_options
from muse.calls.unknown_options import KNOWN, suggestions
from muse.diagnostics import check
from muse.errors import MuseError, OptionError
from tests.journal_folder import JournalFolder
from tests.plugin_packages import install, site

__all__ = ["site"]  # a fixture
ODD: dict[str, Any] = {"temprature": 0.9, "max_tokens": 5, "provider": "openai", "tools": [], "flavour": "salt"}
Ask = Callable[..., Any]


async def _astream(contents: Any, context: str, **options: Any) -> str:
    async with await models.astream(contents, context, **options) as stream:
        return (await stream.reply()).text


def _in_loop(ask: Ask) -> Ask:
    return lambda *arguments, **options: asyncio.run(ask(*arguments, **options))


def _stream(contents: Any, context: str, **options: Any) -> str:
    with models.stream(contents, context, **options) as stream:
        return stream.reply.text


WAYS: dict[str, Ask] = {
    "generate": models.generate,
    "agenerate": _in_loop(models.agenerate),
    "reply": models.reply,
    "areply": _in_loop(models.areply),
    "stream": _stream,
    "astream": _in_loop(_astream),
}


@pytest.fixture(autouse=True)
def _echo(journal: JournalFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unknown_options, "_warned", set())
    journal.route(default={"provider": "echo"})


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ODD)
def test_an_unknown_option_is_warned_of_and_with_strict_refused(
    way: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    ask = WAYS[way]
    ask("Hello", "a.b", **{name: ODD[name]})
    assert f"unknown option {name!r} is ignored; {suggestions(name)}" in caplog.text
    assert caplog.text.count("unknown option") == 1
    with pytest.raises(OptionError, match=f"unknown option '{name}'") as caught:
        ask("Hello", "a.b", strict=True, **{name: ODD[name]})
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, MuseError)
    ask("Hello", "a.b", strict=True, temperature=0.9, top_p=0.5, cached_content="x")
    ask("Hello", "a.b", strict=False)


def test_each_place_in_the_code_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        models.generate("Hello", "a.b", temprature=0.9)
        models.generate("Hello", "a.b", temprature=0.9)
    assert caplog.text.count("unknown option") == 2
    assert caplog.text.count(f"{__file__}:") == 2


def test_unknown_options_are_named_in_the_reply() -> None:
    found: Any = models.reply
    assert found("Hello", "a.b", **ODD).dropped == tuple(ODD)
    assert found("Hello", "a.b", temperature=0.5, strict=False).dropped == ()
    assert found("Hello", "a.b", temprature=None).dropped == ()


async def test_a_batch_warns_too(caplog: pytest.LogCaptureFixture) -> None:
    batch = Batch(client=object())
    batch.add(batch.create(contents="Hello", context="a.b"))
    assert [request.response async for request in batch.drain_batch()] == ["Hello"]
    assert caplog.text == ""


def test_an_object_with_an_unknown_option(caplog: pytest.LogCaptureFixture) -> None:
    found: Any = models.generate_object
    with pytest.raises(OptionError):
        found('{"a": 1}', "a.b", {"type": "object"}, strict=True, temprature=1)
    assert isinstance(found("Hello", "a.b", {"type": "object"}, temprature=1), dict)
    assert "'temperature'" in caplog.text


def test_a_plain_module_takes_options_of_its_own_but_no_misspelt_ones(
    journal: JournalFolder, site: Path, caplog: pytest.LogCaptureFixture
) -> None:
    install(site, "seagull")
    journal.route(default={"provider": "seagull", "model": "g"})
    models.generate("Hello", "a.b", strict=True, flavour="salt")
    assert caplog.text == ""
    models.generate("Hello", "a.b", temprature=1)
    assert "temperature" in caplog.text
    with pytest.raises(OptionError):
        models.generate("Hello", "a.b", strict=True, temprature=1)


def test_what_was_meant_is_a_known_option() -> None:
    for name in unknown_options._MEANT:
        assert name not in KNOWN
        said = suggestions(name)
        assert not said.startswith("did you mean") or any(repr(known) in said for known in KNOWN)


CODE = """
from muse import models
from muse.models import generate as ask
from muse.batch import BatchRequest

def use(context, other):
    models.generate("x", "app.chat.title", temprature=1)
    models.reply("x", context, max_tokens=5)
    ask("x", context, provider="openai")
    BatchRequest(contents="x", context="app.chat.title", note=1, tempreature=1)
    models.generate("x", "app.chat.title", temperature=1, top_p=1, cached_content="x", segment="s", strict=True)
    other.generate("x", context, anything=1)
    models.generate("x", "app.chat.title", **other)
"""


def test_the_check_finds_unknown_options_in_code(tmp_path: Path) -> None:
    file = tmp_path / "feature.py"
    file.write_text(CODE, encoding="utf-8")
    found = [finding for finding in check.examine([file]).findings if finding.kind == "option"]
    lines = CODE.split("\n")
    assert [(finding.where.rpartition(":")[2], finding.found.split("'")[1]) for finding in found] == [
        (str(number), name)
        for number, text in enumerate(lines, 1)
        for name in ("temprature", "max_tokens", "provider", "tempreature")
        if f"{name}=" in text
    ]
    assert "did you mean 'temperature'" in found[0].hint
