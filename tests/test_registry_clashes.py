"""What of journal.json leaves open who serves: rows whose names are taken, rows and defaults that are malformed."""

from __future__ import annotations

from typing import Any

import pytest

from muse import models, providers
from muse.diagnostics import check
from muse.errors import ConfigError, PluginError, UnknownProviderError
from muse.providers import compatible
from muse.types import provider_names
from tests.desk import Desk
from tests.journal_folder import JournalFolder
from tests.provider_cases import FAMILY


def _row(desk: Desk, **further: Any) -> dict[str, Any]:
    return {"base_url": f"{desk.server.url}/v1", "models": {"2": "dyke-7b"}, **further}


def test_the_names_that_no_row_may_take_are_those_of_the_built_in_providers() -> None:
    assert tuple(compatible.ROWS) == provider_names.ROWS
    assert {name: providers.specs()[name].prefixes for name in provider_names.SHIPPED} == provider_names.PREFIXES
    assert provider_names.built_in_names() == {
        provider_names.normalize_name(name) for name in providers.PROVIDER_REGISTRY
    }


@pytest.mark.parametrize("name", ["openai", "OpenAI", "OPENAI"])
@pytest.mark.parametrize("way", ["routed", "model", "argument"])
def test_a_row_named_like_a_builtin_serves_nobody_and_neither_does_the_builtin(desk: Desk, name: str, way: str) -> None:
    desk.reach(*FAMILY)
    contexts = {
        "routed": {"provider": "openai", "model": "gpt-6-luna"},
        "model": {"model": "gpt-6-luna"},
        "argument": {},
    }
    desk.journal.route(
        default={"provider": "anthropic"}, compatible={name: _row(desk)}, contexts={"a.*": contexts[way]}
    )
    own = {"model": "gpt-6-luna"} if way == "argument" else {}
    with pytest.raises(ConfigError, match="the name of a built-in provider") as caught:
        models.generate("Hello", "a.b", **own)
    assert caught.value.path == f"providers.compatible[{name!r}]"
    assert desk.server.requests == []
    with pytest.raises(ConfigError) as caught:
        providers.get_provider_module("openai").generate("Hello", "gpt-6-luna")
    assert caught.value.path == f"providers.compatible[{name!r}]"
    models.generate("Hello", "c.d")
    assert len(desk.server.requests) == 1, "every other provider goes on"
    found = [finding for finding in check.examine().findings if finding.where == f"providers.compatible[{name!r}]"]
    assert len(found) == 1
    assert isinstance(providers.problem_of("openai"), ConfigError)
    desk.journal.route(default={"provider": "openai", "model": "gpt-6-luna"})
    models.generate("Hello", "a.b")
    assert len(desk.server.requests) == 2, "without the row it serves again"


def test_two_rows_that_differ_only_in_case_are_a_problem(desk: Desk) -> None:
    desk.journal.route(compatible={"harbour": _row(desk), "Harbour": _row(desk)}, default={"provider": "Harbour"})
    with pytest.raises(ConfigError) as caught:
        models.generate("Hello", "a.b")
    assert caught.value.path == "providers.compatible['Harbour']"
    assert desk.server.requests == []


@pytest.mark.parametrize(
    ("row", "path"),
    [
        ({"base_url": "harbour.example"}, "providers.compatible['harbour'].base_url"),
        ({"label": "Harbour"}, "providers.compatible['harbour'].base_url"),
        ("http://harbour.example", "providers.compatible['harbour'].base_url"),
    ],
)
def test_a_call_to_a_malformed_row_fails_with_its_place(journal: JournalFolder, row: Any, path: str) -> None:
    journal.route(default={"provider": "echo"}, compatible={"harbour": row}, contexts={"a.*": {"provider": "harbour"}})
    with pytest.raises(ConfigError) as caught:
        models.generate("Hello", "a.b")
    assert caught.value.path == path
    assert models.generate("Hello", "c.d") == "Hello"


MALFORMED: tuple[tuple[Any, str], ...] = (
    ({"providers": {"default": "openai"}}, "providers.default"),
    ({"providers": {"default": None}}, "providers.default"),
    ({"providers": {"default": ["openai"]}}, "providers.default"),
    ({"providers": {"default": {"provider": 5}}}, "providers.default.provider"),
    ({"providers": {"default": {"provider": ""}}}, "providers.default.provider"),
    ({"providers": {"default": {"provider": None}}}, "providers.default.provider"),
    ({"providers": {"default": {"provider": ["openai"], "tier": 1}}}, "providers.default.provider"),
    ({"providers": {"default": {"provider": "echo", "model": 7}}}, "providers.default.model"),
    ({"providers": {"default": {"model": {}}}}, "providers.default.model"),
    ({"providers": {"default": {"providr": "openai"}}}, "providers.default.providr"),
    ({"providers": {"default": {"Provider": "openai"}}}, "providers.default.Provider"),
    ({"providers": {"default": {"vendor": "openai"}}}, "providers.default.vendor"),
    ({"providers": {"defualt": {"provider": "openai"}}}, "providers.defualt"),
    ({"providers": {"defaults": {"provider": "openai"}}}, "providers.defaults"),
    ({"provider": {"default": {"provider": "openai"}}}, "provider"),
    ({"provders": {"default": {"provider": "openai"}}}, "provders"),
    ({"providers": ["openai"]}, "providers"),
    ({"providers": "openai"}, "providers"),
)


@pytest.mark.parametrize(("document", "path"), MALFORMED, ids=[f"{n}-{row[1]}" for n, row in enumerate(MALFORMED)])
def test_a_malformed_default_becomes_no_other_provider(desk: Desk, document: Any, path: str) -> None:
    desk.reach(*FAMILY)
    desk.journal.write(document)
    for context in ("a.b", "insight.daily", ""):
        with pytest.raises(ConfigError) as caught:
            models.generate("Hello", context)
        assert caught.value.path == path
        assert not isinstance(caught.value, UnknownProviderError | PluginError)
    with pytest.raises(ConfigError):
        models.resolve_provider("a.b")
    assert desk.server.requests == []
    assert path in {finding.where for finding in check.examine().findings}


@pytest.mark.parametrize("name", ["nobody", " echo", "Echo", "ECHO", "echo "])
@pytest.mark.parametrize("further", [{}, {"model": "x"}, {"tier": 1}, {"model": "gpt-5-mini"}])
@pytest.mark.parametrize("place", ["default", "contexts"])
def test_an_unknown_provider_is_served_by_nobody(
    journal: JournalFolder, name: str, further: dict[str, Any], place: str
) -> None:
    entry = {"provider": name, **further}
    journal.route(**({"default": entry} if place == "default" else {"contexts": {"a.*": entry}}))
    for ask in (models.resolve_provider, models.route, lambda context: models.generate("Hello", context)):
        with pytest.raises(UnknownProviderError, match="Valid providers") as caught:
            ask("a.b")
        assert repr(name) in str(caught.value)


def test_a_malformed_default_leaves_contexts_that_name_their_own_provider(journal: JournalFolder) -> None:
    journal.route(default={"provider": 5}, contexts={"a.*": {"provider": "echo"}, "b.*": {"model": "echo-1"}})
    assert models.generate("Hello", "a.b") == models.generate("Hello", "b.c") == "Hello"
    with pytest.raises(ConfigError, match=r"providers\.default\.provider"):
        models.generate("Hello", "c.d")


def test_a_good_default_stays_when_the_file_turns_bad(journal: JournalFolder, caplog: pytest.LogCaptureFixture) -> None:
    journal.route(default={"provider": "echo", "model": "mine"})
    assert models.resolve_provider("a.b") == ("echo", "mine")
    journal.route(default={"provider": 5})
    assert models.resolve_provider("a.b") == ("echo", "mine")
    assert "providers.default.provider: going on with the last good version" in caplog.text
    assert "providers.default.provider" in {finding.where for finding in check.examine().findings}
    journal.route(default={"provider": "echo", "model": "other"})
    assert models.resolve_provider("a.b") == ("echo", "other")


@pytest.mark.parametrize(
    ("entry", "key"),
    [({"provider": 5}, ".provider"), ({"modell": "x"}, ".modell"), ({"model": 1, "tier": 1}, ".model"), ("openai", "")],
)
def test_a_malformed_entry_becomes_no_other_provider(journal: JournalFolder, entry: Any, key: str) -> None:
    journal.route(default={"provider": "echo"}, contexts={"a.*": entry, "a.b.c": {"provider": "echo"}})
    with pytest.raises(ConfigError) as caught:
        models.generate("Hello", "a.b")
    assert caught.value.path == f"providers.contexts['a.*']{key}"
    assert models.generate("Hello", "a.b.c") == models.generate("Hello", "b") == "Hello"


@pytest.mark.parametrize(("document", "tier"), [({"tier": 99}, 2), ({"provider": "echo", "tier": "flash"}, 2), ({}, 2)])
def test_a_default_whose_tier_alone_is_wrong_still_serves(journal: JournalFolder, document: Any, tier: int) -> None:
    journal.route(default=document)
    assert models.route("a.b").tier == tier
