"""Shows that `muse.diagnostics.check` finds each kind of mistake, names its place, and else finds nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from muse.diagnostics import check, health
from muse.diagnostics.check import Finding
from muse.routing.glob_overlap import overlap, sample_match
from tests.desk import Desk
from tests.journal_folder import JournalFolder
from tests.loopback.server import LoopbackServer
from tests.provider_cases import GATEWAY, Case

ECHO = {"provider": "echo"}
KEY = "sk-very-secret-0123456789"


def _findings(*folders: Path) -> list[Finding]:
    return list(check.examine(folders).findings)


def _about(where: str, *folders: Path) -> Finding:
    """The one finding about a place."""
    [finding] = [finding for finding in _findings(*folders) if finding.where == where]
    return finding


def _rules(journal: JournalFolder, contexts: dict[str, Any], **sections: Any) -> dict[str, str]:
    """`{where: found}` of the findings about rules."""
    journal.route(default=ECHO, contexts=contexts, **sections)
    return {finding.where: finding.found for finding in _findings() if finding.kind == "rule"}


def test_a_journal_without_mistakes_has_no_findings(journal: JournalFolder) -> None:
    journal.route(default=ECHO, contexts={"insight.*": {"tier": 1}, "insight.weekly": {"tier": 2}})
    report = check.examine()
    assert report.findings == ()
    assert report.looked_at["entries in journal.json"] == 2


def test_a_finding_says_where_what_is_expected_and_where_to_mend_it(journal: JournalFolder) -> None:
    journal.route(default=ECHO, contexts={"insight.*": {"tier": "flash"}})
    [finding] = _findings()
    assert str(finding) == (
        "providers.contexts['insight.*'].tier: found 'flash', expected 1, 2 or 3."
        " Mend it in journal/config/journal.json."
    )


def test_an_unknown_provider_is_found_with_the_valid_names(journal: JournalFolder) -> None:
    journal.route(default=ECHO, contexts={"insight.*": {"provider": "gogle"}})
    finding = _about("providers.contexts['insight.*'].provider")
    assert finding.found == "'gogle'"
    assert "google" in finding.expected


def test_an_unknown_provider_in_the_environment_is_found(
    journal: JournalFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.route(contexts={})
    monkeypatch.setenv("MUSE_PROVIDER", "nobody")
    assert _about("MUSE_PROVIDER").found == "'nobody'"


def test_an_entry_that_says_nothing_is_found(journal: JournalFolder) -> None:
    journal.route(default=ECHO, contexts={"insight.*": {}})
    assert [finding.found for finding in _findings()] == ["an empty entry"]


def test_a_name_that_matches_no_known_context_is_found_with_a_guess(journal: JournalFolder) -> None:
    journal.route(default=ECHO, contexts={"observe.enrihc": {"tier": 1}, "elsewhere.*": {"tier": 1}})
    assert "Did you mean 'observe.enrich'?" in _about("providers.contexts['observe.enrihc']").hint
    assert "matches no known context" in _about("providers.contexts['elsewhere.*']").found


@pytest.mark.parametrize("pattern", ["insight.weekly", "insight.*", "insight.w*", "*", "*.frame", "agent.[ct]*.title"])
def test_a_pattern_that_meets_a_known_context_or_pattern_is_none_of_these(journal: JournalFolder, pattern: str) -> None:
    assert _rules(journal, {pattern: {"tier": 1}}) == {}


def test_a_glob_that_always_loses_is_found_with_who_wins(journal: JournalFolder) -> None:
    contexts = {"observe.enric*": {"tier": 1}, "observe.enri?h": {"tier": 2}, "observe.enrich": {"tier": 3}}
    found = _rules(journal, contexts)
    assert set(found) == {"providers.contexts['observe.enric*']", "providers.contexts['observe.enri?h']"}
    assert "providers.contexts['observe.enrich']" in found["providers.contexts['observe.enric*']"]


def test_of_two_globs_with_the_same_matches_the_second_one_never_wins(journal: JournalFolder) -> None:
    found = _rules(journal, {"insight.*": {"tier": 1}, "insight.**": {"tier": 2}})
    assert list(found) == ["providers.contexts['insight.**']"]


def test_a_glob_that_wins_one_field_of_one_context_is_left_alone(journal: JournalFolder) -> None:
    contexts = {"observe.enric*": {"provider": "echo", "tier": 1}, "observe.enrich": {"tier": 3}}
    assert _rules(journal, contexts) == {}


def test_a_model_of_another_provider_is_found(journal: JournalFolder) -> None:
    journal.route(default=ECHO, contexts={"insight.*": {"provider": "google", "model": "gpt-6-luna"}})
    finding = _about("providers.contexts['insight.*'].model")
    assert (finding.found, finding.expected) == ("'gpt-6-luna', a model of openai", "a model of google")


def test_a_gateway_may_serve_the_models_of_others(journal: JournalFolder) -> None:
    journal.route(default=ECHO, contexts={"insight.*": {"provider": "ollama", "model": "gpt-oss:20b"}})
    assert _findings() == []


def test_a_model_without_a_price_is_found_where_it_is_named(journal: JournalFolder) -> None:
    journal.route(default=ECHO, models={"openai": {"2": "gpt-99-unheard-of"}})
    finding = _about("providers.models['openai']['2']")
    assert (finding.kind, finding.found) == ("price", "'gpt-99-unheard-of', which has no price")


def test_models_on_this_machine_need_no_price(journal: JournalFolder) -> None:
    row = {"base_url": "http://127.0.0.1:9/v1", "models": {"2": "a-model-of-my-own"}}
    journal.route(default={"provider": "bench"}, compatible={"bench": row}, contexts={"*": {"tier": 2}})
    assert _findings() == []


def test_a_tier_without_a_model_is_found(journal: JournalFolder) -> None:
    row = {"base_url": "http://127.0.0.1:9/v1", "models": {"3": "a-small-one"}}
    journal.route(default={"provider": "bench"}, compatible={"bench": row})
    found = {(finding.where, finding.found.partition(" or ")[0]) for finding in _findings()}
    assert found == {("providers.models['bench']", f"no model for tier {tier}") for tier in (1, 2)}


def test_a_missing_key_is_found_once_with_what_it_serves(journal: JournalFolder) -> None:
    journal.route(
        default=ECHO, contexts={"insight.*": {"provider": "anthropic"}, "*.enrich": {"provider": "anthropic"}}
    )
    [finding] = _findings()
    assert finding.where == "ANTHROPIC_API_KEY"
    assert "serves observe.enrich, insight.*" in finding.expected


def test_a_key_in_the_journals_own_file_counts(journal: JournalFolder) -> None:
    journal.route(default=ECHO, contexts={"insight.*": {"provider": "anthropic"}})
    (journal.path / ".env").write_text(f"ANTHROPIC_API_KEY={KEY}\n")
    assert _findings() == []


def test_a_malformed_key_is_found_and_not_shown(journal: JournalFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    journal.route(default=ECHO, contexts={"insight.*": {"provider": "anthropic"}})
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-half other-half")
    [finding] = _findings()
    assert "half" not in str(finding)


def test_an_sdk_that_is_not_installed_is_found_with_how_to_get_it(
    journal: JournalFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.route(default=ECHO, contexts={"insight.*": {"provider": "anthropic"}})
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setattr(check, "find_spec", lambda _: None)
    assert "muse-router[anthropic]" in _about("anthropic").hint


def test_a_model_file_that_is_not_there_is_found(
    journal: JournalFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("xllamacpp")
    journal.route(default=ECHO, contexts={"insight.*": {"provider": "local"}})
    monkeypatch.setenv("MUSE_LOCAL_MODEL", str(tmp_path / "none.gguf"))
    [finding] = _findings()
    assert (finding.kind, "none.gguf" in finding.hint) == ("setup", True)


def test_a_broken_descriptor_is_found_by_its_path(journal: JournalFolder, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "torn.json").write_text("{")
    journal.write({"providers": {"default": ECHO}, "descriptors": {"agents": [str(tmp_path / "more")]}})
    [finding] = _findings()
    assert (finding.kind, finding.where) == ("descriptor", "more/torn.json")


CODE = """
CONTEXT = "mine.constant"
TWICE = "a"; TWICE = "b"

def use(name, batch):
    generate("hello", "mine.positional")
    muse.models.areply("hello", context="mine.keyword")
    stream("hello", f"mine.{name}.part")
    agenerate("hello", CONTEXT)
    batch.create(contents="hello", context="mine.batch")
    BatchRequest("hello", "mine.request")
    generate("hello", f"insight.{name}")
    generate("hello", "observe.enrich")
    generate("hello", TWICE)
    generate("hello", *name)
    load_prompt("hello", context="not.a.call")
"""


def test_contexts_in_code_that_nobody_declares_are_found_by_file_and_line(
    journal: JournalFolder, tmp_path: Path
) -> None:
    journal.route(default=ECHO)
    (tmp_path / "mine.py").write_text(CODE)
    found = {finding.where: finding.found.split("'")[1] for finding in _findings(tmp_path / "mine.py")}
    assert found == {
        "mine.py:2": "mine.constant",
        "mine.py:6": "mine.positional",
        "mine.py:7": "mine.keyword",
        "mine.py:8": "mine.*.part",
        "mine.py:9": "mine.constant",
        "mine.py:10": "mine.batch",
        "mine.py:11": "mine.request",
    }


def test_a_context_that_journal_json_names_outright_is_meant(journal: JournalFolder, tmp_path: Path) -> None:
    journal.route(default=ECHO, contexts={"mine.own": {"tier": 1}})
    (tmp_path / "mine.py").write_text('reply("hello", "mine.own")')
    assert _findings(tmp_path) == []


def test_code_that_cannot_be_read_is_found_and_environments_are_passed_over(
    journal: JournalFolder, tmp_path: Path
) -> None:
    journal.route(default=ECHO)
    for folder in ("src", "env", ".hidden"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "bad.py").write_text("x = 1\ndef (:\n")
    (tmp_path / "env" / "pyvenv.cfg").touch()
    assert [finding.where for finding in _findings(tmp_path)] == ["src/bad.py:2"]


def test_code_that_warns_or_holds_a_nul_is_no_trouble(journal: JournalFolder, tmp_path: Path) -> None:
    journal.route(default=ECHO)
    (tmp_path / "warns.py").write_text(r'x = "\d"; assert (x, "always")')
    (tmp_path / "nul.py").write_bytes(b"x = 1\0")
    assert [finding.where.partition(":")[0] for finding in _findings(tmp_path)] == ["nul.py"]


def test_a_live_call_that_works_is_a_success(desk: Desk) -> None:
    _use_gateway(desk, "text")
    report = health.test_connection(GATEWAY)
    assert (report["success"], report["provider"], report["model"]) == (True, GATEWAY, "small-one")
    assert desk.last_line()["context"] == "muse.test"
    assert json.loads(desk.server.requests[-1].content)["max_tokens"] <= 64


def test_an_answer_that_is_cut_off_is_a_success(desk: Desk) -> None:
    _use_gateway(desk, "truncated")
    assert health.test_connection(GATEWAY)["success"] is True


@pytest.mark.parametrize("scenario", ["error_401", "error_500", "malformed", "empty_body"])
def test_a_live_call_that_fails_is_a_report_without_the_key(desk: Desk, scenario: str) -> None:
    _use_gateway(desk, scenario)
    report = health.test_connection(GATEWAY)
    assert report["success"] is False
    assert report["error"]
    assert KEY not in json.dumps(report)


def test_the_test_of_a_provider_without_key_or_name_is_a_report(journal: JournalFolder) -> None:
    assert "OPENAI_API_KEY" in health.test_connection("openai")["error"]
    assert "Valid providers" in health.test_connection("nobody")["error"]


def _use_gateway(desk: Desk, scenario: str) -> None:
    """Have journal.json's own endpoint answer one request."""
    case = Case(GATEWAY, "compatible", "small-one")
    row = {"base_url": desk.server.url + case.path, "env_key": case.key_env, "models": {"1": "big", "3": "small-one"}}
    desk.journal.write({"env": {}, "providers": {"compatible": {GATEWAY: row}, "contexts": {"*": {"tier": 1}}}})
    (desk.journal.path / ".env").write_text(f"{case.key_env}={KEY}\n")
    assert isinstance(desk.server, LoopbackServer)
    desk.play(case, scenario)


@pytest.mark.parametrize(
    ("one", "other", "meet"),
    [
        ("a.*", "*.b", True),
        ("a.?", "a.[xy]", True),
        ("a.z", "a.[!z]", False),
        ("a.b", "a.b", True),
        ("a.b", "a.c", False),
        ("", "*", True),
        ("a?", "a", False),
        ("*" * 400, "?" * 400, True),
        ("a" * 5000 + "*", "a" * 5000 + "b", True),
    ],
)
def test_patterns_meet_if_some_text_matches_both(one: str, other: str, *, meet: bool) -> None:
    assert overlap(one, other) is overlap(other, one) is meet


@pytest.mark.parametrize("pattern", ["insight.*", "a?[!z][0-9]*", "plain", "[]x]", "open[bracket"])
def test_an_example_matches_its_pattern(pattern: str) -> None:
    assert overlap(pattern, sample_match(pattern))
