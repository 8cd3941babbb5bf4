"""The front desk: what a call's own options, journal.json, the environment and the key files each decide."""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from muse import models, providers, testing
from muse.errors import ContentsError, MissingKeyError
from muse.types.messages import User
from muse.types.provider_spec import Tier
from muse.types.usage import Usage
from muse.usage_log import prices
from tests.desk import CONTEXT, QUESTION, WAYS, Desk
from tests.journal_folder import JournalFolder
from tests.loopback.outcomes import TEXT
from tests.provider_cases import FAMILY, GATEWAYS, WIRES, Case

OPENAI, ANTHROPIC, GOOGLE = FAMILY
every_way = pytest.mark.parametrize("way", WAYS)


# The contract's names


def test_the_names_callers_rely_on_have_their_values() -> None:
    assert (models.TIER_PRO, models.TIER_FLASH, models.TIER_LITE, models.DEFAULT_TIER) == (1, 2, 3, 2)
    assert set(models.PROVIDER_DEFAULTS) >= {"google", "openai", "anthropic"}
    google, openai, anthropic = (models.PROVIDER_DEFAULTS[name] for name in ("google", "openai", "anthropic"))
    assert google == {1: models.GEMINI_PRO, 2: models.GEMINI_FLASH, 3: models.GEMINI_LITE}
    assert openai == {1: models.GPT_5, 2: models.GPT_5_MINI, 3: models.GPT_5_NANO}
    assert anthropic == {1: models.CLAUDE_OPUS_4, 2: models.CLAUDE_SONNET_4, 3: models.CLAUDE_HAIKU_4}


@pytest.mark.parametrize(
    ("context", "tier", "group"),
    [
        ("observe.describe.frame", 3, "Observe"),
        ("observe.describe.*", None, None),
        ("observe.detect.segment", None, None),
        ("observe.detect.json", None, None),
        ("observe.enrich", None, None),
        ("observe.extract.selection", None, None),
        ("observe.summarize", None, None),
        ("insight.*", 2, "Think"),
        ("detect.created", 3, None),
        ("planner.generate", None, None),
        ("app.chat.title", 3, "Apps"),
        ("agent.*", None, None),
    ],
)
def test_the_contexts_callers_rely_on_are_known(context: str, tier: int | None, group: str | None) -> None:
    row = models.CONTEXT_DEFAULTS[context]
    assert set(row) == {"tier", "label", "group"}
    assert row["tier"] == tier or tier is None
    assert row["group"] == group or group is None
    assert models.get_context_registry()[context] == row


_PRICED = [
    (name, tier, model)
    for name, tiers in models.PROVIDER_DEFAULTS.items()
    for tier, model in tiers.items()
    if not providers.specs()[name].free
]


@pytest.mark.parametrize(("provider", "tier", "model"), _PRICED, ids=str)
def test_every_default_model_has_a_price(provider: str, tier: int, model: str) -> None:
    cost = prices.cost_of(model, Usage(1_000, 1_000), providers.specs()[provider].price_id)
    assert cost is not None
    assert cost.total_cost > 0
    assert models.calc_token_cost({"model": model, "usage": {"input_tokens": 1_000, "output_tokens": 1_000}})


@pytest.mark.parametrize(("provider", "tier", "model"), _PRICED, ids=str)
def test_every_default_model_belongs_to_its_provider(provider: str, tier: int, model: str) -> None:
    assert models.get_model_provider(model) == provider
    assert tier in set(Tier)


def _seed_signature(function: Callable[..., Any], names: list[str]) -> None:
    parameters = inspect.signature(function).parameters
    assert list(parameters)[: len(names)] == names
    defaults = {name: each.default for name, each in parameters.items() if each.default is not inspect.Parameter.empty}
    expected = {"temperature": 0.3, "max_output_tokens": 8192 * 2, "json_output": False}
    assert defaults.items() >= expected.items()
    assert [each.kind for each in parameters.values()][-1] is inspect.Parameter.VAR_KEYWORD


_OPTIONS = [
    "temperature",
    "max_output_tokens",
    "system_instruction",
    "json_output",
    "thinking_budget",
    "timeout_s",
]


def test_generate_has_the_seeds_signature() -> None:
    for function in (models.generate, models.agenerate):
        _seed_signature(function, ["contents", "context", *_OPTIONS])
    for name in ("google", "openai", "anthropic"):
        module = providers.get_provider_module(name)
        for function in (module.generate, module.agenerate):
            _seed_signature(function, ["contents", "model", *_OPTIONS, "context"])
        assert list(inspect.signature(module.run_agent).parameters) == ["config", "on_event"]


# The call's own options


@every_way
def test_a_model_of_another_provider_takes_the_call_there(desk: Desk, way: str) -> None:
    desk.reach(*FAMILY)
    desk.use(GOOGLE)
    for case in (ANTHROPIC, OPENAI):
        reply = desk.ask(way, model=case.model)
        assert (reply.provider, desk.server.requests[-1].asked.provider) == (case.name, case.name)  # type: ignore[union-attr]
        assert reply.route is not None
        assert reply.route.reason == f"the call's own model={case.model!r}"
        assert desk.last_line()["route"] == reply.route.reason


def test_a_model_that_no_one_claims_goes_to_the_routed_provider(desk: Desk) -> None:
    desk.use(GATEWAYS[0])
    reply = desk.ask("sync", model="some-vendor/new-model")
    assert (reply.provider, desk.server.requests[-1].model) == ("openrouter", "some-vendor/new-model")


def test_generate_and_agenerate_are_the_text_of_reply(desk: Desk) -> None:
    desk.use(OPENAI)
    assert models.generate(QUESTION, CONTEXT, 0.3, 100, None, False, None, 5.0) == TEXT
    assert models.generate(contents=QUESTION, context=CONTEXT) == desk.ask("sync").text


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        (None, "found None"),
        ("", "found empty text"),
        ("  \n", "found empty text"),
        ([], "found an empty list"),
        (["ok", ""], r"contents\[1\]: found empty text"),
        (["ok", object()], r"contents\[1\]: found object"),
        ("lone \ud800 surrogate", "can be encoded as UTF-8"),
        ([b"not an image"], "expected an image"),
        ([{"role": "pirate", "content": "Arr"}], "role 'pirate'"),
        ([{"role": "system", "content": "Only this."}], "expected at least one user turn"),
        (Path("/nowhere/at/all.png"), "cannot read"),
    ],
)
def test_contents_that_cannot_be_sent_are_refused_before_anything_is(desk: Desk, contents: Any, said: str) -> None:
    desk.use(OPENAI)
    for way in WAYS:
        with pytest.raises(ContentsError, match=said):
            desk.ask(way, contents)
    assert not desk.server.requests


@pytest.mark.parametrize("limit", [0, -1, 2.5, "many"])
def test_an_output_limit_that_is_none_is_refused(desk: Desk, limit: Any) -> None:
    desk.use(OPENAI)
    with pytest.raises(ValueError, match="max_output_tokens: found"):
        desk.ask("sync", max_output_tokens=limit)


# journal.json


def test_an_edit_of_journal_json_counts_from_the_next_call_on(desk: Desk) -> None:
    desk.reach(*FAMILY)
    for case in (*FAMILY, *FAMILY):
        desk.journal.route(default={"provider": case.name, "model": case.model})
        assert desk.ask("sync").provider == case.name
    desk.journal.route(contexts={CONTEXT: {"model": GOOGLE.model}})
    assert desk.ask("sync").provider == "google"
    desk.journal.route(
        contexts={"app.tides.*": {"provider": "openai", "tier": 3}}, models={"openai": {"3": "gpt-mine"}}
    )
    assert desk.sent().model == "gpt-mine"


def test_another_journal_counts_from_the_next_call_on(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.use(OPENAI)
    desk.ask("sync")
    other = JournalFolder(tmp_path / "other")
    other.route(default={"provider": "echo"})
    monkeypatch.setenv("JOURNAL_PATH", str(other.path))
    assert models.generate("Hello", CONTEXT) == "Hello"
    assert [line["provider"] for line in other.lines()] == ["echo"]
    assert [line["provider"] for line in desk.journal.lines()] == ["openai"]


@every_way
def test_the_journals_system_instruction_holds_where_the_call_has_none(desk: Desk, way: str) -> None:
    desk.use(ANTHROPIC)
    section = ANTHROPIC.providers(desk.server.url)
    desk.journal.write({"providers": section | {"system_instruction": "Answer in Platt."}})
    assert desk.sent(way).body["system"] == "Answer in Platt."
    assert desk.sent(way, system_instruction="Be short.").body["system"] == "Be short."


# The environment


def test_muse_provider_stands_in_for_the_default_alone(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.reach(*FAMILY)
    desk.journal.route(default={"provider": "google"}, contexts={"a.*": {"provider": "openai"}})
    monkeypatch.setenv("MUSE_PROVIDER", "anthropic")
    assert models.route("x.y").reason == "MUSE_PROVIDER"
    assert models.resolve_provider("x.y") == ("anthropic", models.CLAUDE_SONNET_4)
    assert models.resolve_provider("a.b") == ("openai", models.GPT_5_MINI)
    monkeypatch.delenv("MUSE_PROVIDER")
    assert models.resolve_provider("x.y") == ("google", models.GEMINI_FLASH)


@pytest.mark.parametrize("case", WIRES, ids=str)
def test_a_model_variable_names_the_model_where_journal_json_names_none(
    desk: Desk, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.reach(case)
    desk.journal.route(default={"provider": case.name})
    monkeypatch.setenv(f"{case.name.upper()}_MODEL", "a-model-of-mine")
    assert desk.sent().model == "a-model-of-mine"
    assert models.resolve_model_for_provider(CONTEXT, case.name) == "a-model-of-mine"
    desk.journal.route(default={"provider": case.name}, models={case.name: {"2": case.model}})
    assert desk.sent().model == case.model


def test_a_tier_without_a_model_falls_to_the_more_capable_one(desk: Desk) -> None:
    desk.journal.route(default={"provider": "lobechat"}, models={"lobechat": {"1": "big"}}, contexts={"a": {"tier": 3}})
    assert models.resolve_provider("a") == ("lobechat", "big")
    assert models.resolve_model_for_provider("a", "lobechat") == "big"
    assert models.resolve_model_for_provider("app.chat.title", "openai") == models.GPT_5_NANO


@every_way
def test_the_segment_is_the_calls_own_else_the_environments(
    desk: Desk, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.use(OPENAI)
    desk.ask(way)
    assert "segment" not in desk.last_line()
    monkeypatch.setenv("SEGMENT_KEY", "090000_300")
    desk.ask(way)
    assert desk.last_line()["segment"] == "090000_300"
    desk.ask(way, segment="101500_900")
    assert desk.last_line()["segment"] == "101500_900"


# Keys


def _key_of(desk: Desk, way: str = "sync", **options: Any) -> str:
    return desk.sent(way, **options).headers["authorization"].removeprefix("Bearer ")


def test_a_key_is_the_calls_own_then_the_environments_then_a_files(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.use(OPENAI)
    (tmp_path / ".env").write_text("OPENAI_API_KEY=sk-of-the-nearest-file\n", encoding="utf-8")
    (desk.journal.path / ".env").write_text("OPENAI_API_KEY='sk-of-the-journal'\n", encoding="utf-8")
    assert _key_of(desk, api_key="sk-of-the-call") == "sk-of-the-call"
    assert _key_of(desk) == OPENAI.key
    monkeypatch.delenv("OPENAI_API_KEY")
    assert _key_of(desk) == "sk-of-the-nearest-file"
    (tmp_path / ".env").unlink()
    assert _key_of(desk) == "sk-of-the-journal"
    (desk.journal.path / ".env").unlink()
    with pytest.raises(MissingKeyError, match="OPENAI_API_KEY not found in environment"):
        desk.ask("sync")


@every_way
def test_a_key_saved_a_moment_ago_counts(desk: Desk, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.use(OPENAI)
    monkeypatch.setenv("OPENAI_API_KEY", "")
    for key in ("sk-saved-first", "sk-saved-a-moment-later"):
        (desk.journal.path / ".env").write_text(f"OPENAI_API_KEY={key}\n", encoding="utf-8")
        assert _key_of(desk, way) == key


def test_blanks_around_a_key_are_cut_off_and_within_it_refused(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.use(OPENAI)
    monkeypatch.setenv("OPENAI_API_KEY", "  sk-pasted-with-newline\n")
    assert _key_of(desk) == "sk-pasted-with-newline"
    for key in ("sk-two\nlines-of-it", "sk-two words", "sk-ümlaut"):
        monkeypatch.setenv("OPENAI_API_KEY", key)
        with pytest.raises(MissingKeyError, match="OPENAI_API_KEY holds a blank") as caught:
            desk.ask("sync")
        assert key not in str(caught.value)
        assert "OPENAI_API_KEY" not in desk.last_line().get("model", "")


def test_a_base_url_may_stand_in_a_key_file_too(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.use(OPENAI)
    monkeypatch.delenv("OPENAI_BASE_URL")
    text = f"OPENAI_BASE_URL={desk.server.url}/v1/\n"
    (desk.journal.path / ".env").write_text(text, encoding="utf-8")
    assert desk.sent().path == "/v1/responses"


# What it costs to be there


def test_a_log_that_cannot_be_written_does_not_stop_a_call(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    desk.use(OPENAI)
    desk.journal.tokens.write_text("in the way", encoding="utf-8")
    for way in WAYS:
        assert desk.ask(way).text == TEXT
    said = [record for record in caplog.records if "token log cannot be written" in record.getMessage()]
    assert len(said) == 1


def test_the_scripted_provider_sees_the_request_as_it_was_made(journal: JournalFolder) -> None:
    journal.route(default={"provider": "echo"}, system_instruction="Be kind.")
    with testing.script("Six.") as script:
        reply = models.reply(QUESTION, CONTEXT, temperature=0.9, timeout_s=5, flavour="salt")  # type: ignore[call-arg]
    (request,) = script.requests
    assert request.turns == (User((QUESTION,)),)
    assert (request.system, request.temperature, request.timeout_s) == ("Be kind.", 0.9, 5)
    assert (reply.text, reply.cost_usd, reply.dropped) == ("Six.", 0.0, ("flavour",))


def test_ten_thousand_contexts_do_not_pile_up(journal: JournalFolder) -> None:
    journal.route(default={"provider": "echo"})
    started_s = time.process_time()
    for number in range(models._MOST_ROUTES + 10):
        models.resolve_provider(f"app.many.{number}")
    assert models._resolved is not None
    assert len(models._resolved.chains) <= models._MOST_ROUTES
    assert time.process_time() - started_s < 10.0
    assert os.environ.get("MUSE_PROVIDER") is None
