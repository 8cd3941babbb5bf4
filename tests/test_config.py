"""journal.json's text becomes a config and a list of problems; a bad entry costs itself and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muse.errors import ConfigError
from muse.journal.config import Config, Entry, LocalModel, parse_config, parse_json
from muse.journal.policy_config import RULES
from muse.types.provider_spec import Tier


def problems_of(document: dict[str, Any], known: set[str] | None = None) -> list[str]:
    return [str(problem) for problem in parse_config(document, known)[1]]


def test_an_empty_file_is_google_at_tier_two() -> None:
    config, problems = parse_config({})
    assert (config.default, problems) == (Entry("google", Tier.FLASH), ())
    assert config == Config()


def test_a_bad_entry_is_reported_by_its_path_and_the_rest_works() -> None:
    document = {"providers": {"contexts": {"agent.*": {"tier": "flash", "provider": "openai"}, "b": {"tier": 1}}}}
    config, problems = parse_config(document)
    assert [str(problem) for problem in problems] == [
        "providers.contexts['agent.*'].tier: found 'flash', expected 1, 2 or 3"
    ]
    assert config.contexts == {"agent.*": Entry("openai", Tier.FLASH), "b": Entry(tier=Tier.PRO)}


@pytest.mark.parametrize("tier", [99, 0, -1, "flash", "2", True, None, 1.5, [1], {"1": 1}], ids=repr)
def test_a_tier_that_is_none_becomes_the_default_tier_everywhere(tier: object) -> None:
    in_default = parse_config({"providers": {"default": {"provider": "openai", "tier": tier}}})
    in_context = parse_config({"providers": {"contexts": {"a": {"tier": tier}}}})
    assert in_default[0].default == Entry("openai", Tier.FLASH)
    assert in_context[0].contexts["a"].tier == Tier.FLASH
    assert len(in_default[1]) == len(in_context[1]) == 1


def test_a_bad_tier_in_a_context_becomes_the_files_own_default_tier() -> None:
    document = {"providers": {"contexts": {"a": {"tier": 9}}, "default": {"tier": 3}}}
    assert parse_config(document)[0].contexts["a"].tier == Tier.LITE


def test_a_default_that_names_a_model_alone_leaves_its_provider_open() -> None:
    assert parse_config({"providers": {"default": {"model": "gpt-x"}}})[0].default == Entry(None, Tier.FLASH, "gpt-x")


def test_unknown_keys_are_reported_with_the_allowed_ones() -> None:
    allowed = ", ".join(sorted(("provider", "tier", "model", *RULES)))
    assert problems_of({"providers": {"contexts": {"a": {"teir": 1}}}}) == [
        f"providers.contexts['a'].teir: found an unknown key, expected one of {allowed}"
    ]


def test_unknown_providers_are_reported_where_names_are_checked() -> None:
    document = {
        "providers": {
            "default": {"provider": "gogle"},
            "contexts": {"a": {"provider": "weir"}, "b": {"provider": "openia"}},
            "models": {"it's": {"1": "m"}, "weir": {"1": "m"}},
            "compatible": {"weir": {"base_url": "http://127.0.0.1:1"}},
        }
    }
    found = problems_of(document, {"google", "openai"})
    assert [problem.split(": ")[0] for problem in found] == [
        "providers.default.provider",
        "providers.contexts['b'].provider",
        'providers.models["it\'s"]',
    ]
    assert all("google, openai, weir" in problem for problem in found)
    assert problems_of(document) == []


def test_a_gateway_without_an_address_is_left_out() -> None:
    document = {"providers": {"compatible": {"a": {"base_url": "ftp://x"}, "b": {"base_url": "https://x"}, "c": {}}}}
    config, problems = parse_config(document)
    assert list(config.gateways) == ["b"]
    assert [problem.path for problem in problems] == [
        "providers.compatible['a'].base_url",
        "providers.compatible['c'].base_url",
    ]


@pytest.mark.parametrize("name", ["", "9", "a b", "a\n", "ä", "a=b", "a\\b", "\ud800"], ids=ascii)
def test_a_gateway_whose_name_makes_no_variable_is_left_out(name: str) -> None:
    config, problems = parse_config({"providers": {"compatible": {name: {"base_url": "http://x"}}}})
    assert not config.gateways
    assert len(problems) == 1


def test_tier_models_have_the_tiers_as_keys() -> None:
    config, problems = parse_config({"providers": {"models": {"google": {"1": "a", "4": "b", "2": 7}}}})
    assert config.models == {"google": {1: "a"}}
    assert [problem.path for problem in problems] == [
        "providers.models['google']['4']",
        "providers.models['google']['2']",
    ]


@pytest.mark.parametrize(("tokens", "used"), [(512, 512), (511, 4096), (1 << 20, 1 << 20), ((1 << 20) + 1, 4096)])
def test_the_local_context_size_has_its_bounds(tokens: int, used: int) -> None:
    config, problems = parse_config({"providers": {"local": {"context_tokens": tokens}}})
    assert config.local == LocalModel(None, used)
    assert bool(problems) == (tokens != used)


def test_no_value_of_env_is_ever_shown() -> None:
    config, _ = parse_config({"env": {"NAME": "s3cret-value"}})
    assert "s3cret-value" not in repr(config)
    for env in ({"NAME": ["s3cret-value"]}, "s3cret-value", ["s3cret-value"]):
        found = problems_of({"env": env})
        assert len(found) == 1
        assert "s3cret" not in found[0]


def test_a_long_wrong_value_is_cut_short_in_the_problem() -> None:
    assert len(problems_of({"providers": ["x" * 10_000]})[0]) < 200


def test_a_duplicate_key_is_reported_and_the_last_one_counts() -> None:
    data, problems = parse_json('{"providers": {}, "providers": {"default": {"tier": 1}}}', "journal.json")
    assert data == {"providers": {"default": {"tier": 1}}}
    assert [str(problem) for problem in problems] == [
        "key 'providers': found it twice in one object, expected it once; the last one counts"
    ]


UNREADABLE = {
    "empty": b"",
    "torn": b'{"providers": {"default": {"prov',
    "not UTF-8": b'{"identity": {"name": "J\xf8rgen"}}',
    "zeros after a power cut": b"\x00" * 64,
    "a list": b"[]",
    "null": b"null",
    "text": b'"hello"',
    "deep lists": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"identity": ' * 5000 + b"1" + b"}" * 5000,
    "deeper than anything needs": b'{"identity": ' + b"[" * 70 + b"]" * 70 + b"}",
    "a number without end": b'{"identity": {"n": ' + b"9" * 5000 + b"}}",
    "no number": b'{"identity": {"n": NaN}}',
    "comments": b'{"providers": {} // soon\n}',
}


@pytest.mark.parametrize("text", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_an_unreadable_file_is_one_error_that_names_the_file(text: bytes) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_json(text, "some/journal.json")
    assert str(caught.value).startswith("some/journal.json: found ")


def test_the_error_of_a_torn_file_names_line_and_column() -> None:
    with pytest.raises(ConfigError, match=r"line 2, column 3"):
        parse_json("{\n  nope", "journal.json")


@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "replace")))
def test_any_bytes_are_an_object_or_a_config_error(text: bytes) -> None:
    try:
        data, _ = parse_json(text, "journal.json")
    except ConfigError:
        return
    assert isinstance(data, dict)
