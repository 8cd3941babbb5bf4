"""Keys and live tests: saved by a form, used by the next call of every process, and never shown again."""

from __future__ import annotations

import os

import pytest
from starlette.testclient import TestClient

from muse import models
from muse.diagnostics import check, health
from muse.errors import ConfigError
from muse.journal import dotenv_file, secrets
from muse.providers import specs
from tests.journal_folder import JournalFolder, run, start
from tests.loopback.server import LoopbackServer
from tests.pages import client
from tests.test_app_settings import HOME, SCRIPT, words

KEY = "sk-abcdef-0123456789-secret"
OPENAI = {"env_key": "OPENAI_API_KEY", "provider": "openai"}


@pytest.fixture(name="site")
def _site(journal: JournalFolder) -> TestClient:
    """A client over a journal that routes to openai, whose key is missing."""
    journal.route(default={"provider": "openai", "tier": 3, "retries": 0})
    return client(journal)


def card_of(page: str, name: str) -> str:
    """What the card of a provider says."""
    return words(page.partition(f'id="provider-{name}"')[2].partition("</article>")[0])


def test_a_card_says_what_a_provider_is_and_lacks(site: TestClient) -> None:
    said = card_of(site.get(HOME).text, "openai")
    spec = specs()["openai"]
    for part in (spec.label, "no key", "not set", spec.env_key, spec.tiers[1], "tier 1", spec.base_url_env, "vision"):
        assert part in said
    assert "none needed" in card_of(site.get(HOME).text, "local")


def test_a_provider_without_address_or_model_is_not_called_ready(
    site: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_API_KEY", KEY)
    page = site.get(HOME).text
    assert "not set up" in card_of(page, "azure")
    assert "AZURE_BASE_URL" in card_of(page, "azure")
    assert "no model" in card_of(page, "ollama")


def test_every_variable_of_the_registry_has_a_field(site: TestClient) -> None:
    page = site.get(HOME).text
    for spec in specs().values():
        assert (f'name="env_key" value="{spec.env_key}"' in page) == bool(spec.env_key)


def test_a_saved_key_serves_calls_in_a_process_that_runs_already(
    site: TestClient, journal: JournalFolder, server: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
    code = (
        "import sys\nfrom muse import models\nfrom muse.diagnostics import check\n"
        "from muse.errors import MissingKeyError\n"
        "from muse.providers import specs\n"
        "for line in sys.stdin:\n"
        "    try:\n        models.generate('a question', 'insight.daily')\n"
        "    except MissingKeyError:\n        print('no key', flush=True)\n"
        "    else:\n        print(check.key_state(specs()['openai']), flush=True)\n"
    )
    with start(code, OPENAI_BASE_URL=f"{server.url}/v1") as other:
        assert other.stdin is not None
        assert other.stdout is not None
        print("ask", file=other.stdin, flush=True)
        assert other.stdout.readline() == "no key\n"
        answer = site.post(f"{HOME}key", data={**OPENAI, "value": f" {KEY}\n"})
        assert "saved in the journal's .env" in words(answer.text)
        assert "not tested" in card_of(answer.text, "openai")
        print("ask", file=other.stdin, flush=True)
        assert other.stdout.readline() == "present\n"
        other.stdin.close()
    assert server.requests[-1].headers["authorization"] == f"Bearer {KEY}"


def test_no_page_answer_log_or_error_holds_a_saved_key(
    site: TestClient, journal: JournalFolder, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    pages = [site.post(f"{HOME}key", data={**OPENAI, "value": KEY})]
    pages.append(site.post(f"{HOME}key", data={**OPENAI, "value": f"{KEY} {KEY}"}))
    pages += [site.get(f"{HOME}{path}") for path in ("", "raw", "saves", "check", "api/providers", "api/config")]
    pages.append(site.post(f"{HOME}provider/openai/test"))
    assert all(KEY not in page.text and KEY not in str(page.headers) for page in pages)
    assert KEY not in caplog.text
    assert KEY not in journal.config.read_text()


@pytest.mark.parametrize("value", ["", "   ", "two words", "naïve-key-äöü", "x" * 5000, "a\x00b", "${HOME}x"])
def test_a_value_that_is_no_key_is_refused_and_the_file_stays(
    site: TestClient, journal: JournalFolder, value: str
) -> None:
    dotenv_file.set_value("OTHER", "kept")
    dotenv_file.set_value("OPENAI_API_KEY", "sk-the-one-before")
    before = (journal.path / ".env").read_bytes()
    found = site.post(f"{HOME}key", data={**OPENAI, "value": value})
    assert found.status_code == 400
    assert "OPENAI_API_KEY" in words(found.text)
    assert (journal.path / ".env").read_bytes() == before


@pytest.mark.parametrize("name", ["PATH", "", "OPENAI_API_KEY\nPATH", SCRIPT])
def test_only_variables_of_the_registry_can_be_saved(site: TestClient, journal: JournalFolder, name: str) -> None:
    found = site.post(f"{HOME}key", data={"env_key": name, "value": KEY})
    assert found.status_code == 400
    assert "<script>alert" not in found.text
    assert not (journal.path / ".env").exists()


def test_a_key_is_deleted_and_the_rest_of_the_file_stays(site: TestClient, journal: JournalFolder) -> None:
    file = journal.path / ".env"
    file.write_text("# mine\nFIRST='a b'\nOPENAI_API_KEY=old\n\nLAST=z", encoding="utf-8")
    site.post(f"{HOME}key", data={**OPENAI, "value": KEY})
    assert secrets.look_up("OPENAI_API_KEY") == KEY
    assert file.stat().st_mode & 0o777 == 0o600
    answer = site.post(f"{HOME}key/remove", data=OPENAI)
    assert "is deleted" in words(answer.text)
    assert file.read_text() == "# mine\nFIRST='a b'\n\nLAST=z\n"
    assert check.key_state(specs()["openai"]) == "missing"


def test_a_key_of_the_environment_goes_before_and_is_said(site: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-from-outside")
    assert "from the environment" in card_of(site.get(HOME).text, "openai")
    answer = site.post(f"{HOME}key", data={**OPENAI, "value": KEY})
    assert "the environment has another, which goes before it" in words(answer.text)


@pytest.mark.parametrize("key", ["plain-1", "with'quote", 'with"quote', "with#hash", "back\\slash", "a$b", "=x="])
def test_a_key_with_odd_characters_comes_back_as_it_was(journal: JournalFolder, key: str) -> None:
    dotenv_file.set_value("ODD_KEY", key)
    assert secrets.find_key("ODD_KEY") == key
    assert dotenv_file.has_value("ODD_KEY")


def test_a_file_that_is_no_text_is_left_alone(journal: JournalFolder) -> None:
    (journal.path / ".env").write_bytes(b"A=\xff\n")
    with pytest.raises(ConfigError, match="not UTF-8"):
        dotenv_file.set_value("B", "c")
    assert (journal.path / ".env").read_bytes() == b"A=\xff\n"


def test_keys_saved_by_many_processes_at_once_are_all_there(journal: JournalFolder) -> None:
    code = "import sys\nfrom muse.journal import dotenv_file\n"
    code += "for n in range(10): dotenv_file.set_value(f'K{sys.argv[1]}_{n}', 'v')"
    children = [start(code, str(number)) for number in range(3)]
    for child in children:
        assert child.wait(60) == 0
        child.communicate()
    assert (journal.path / ".env").read_text().count("=v\n") == 30


def test_a_live_test_shows_how_a_model_answered_and_is_kept(
    site: TestClient, server: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
    dotenv_file.set_value("OPENAI_API_KEY", KEY)
    answer = site.post(f"{HOME}provider/openai/test", headers={"HX-Request": "true"})
    model = models.route("").model
    assert f"{model} ok" in words(answer.text)
    assert health.last()[f"openai {model}"].state == "ok"
    assert "ok in" in card_of(site.get(HOME).text, "openai")


def test_a_live_test_says_why_it_failed(
    site: TestClient, server: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
    dotenv_file.set_value("OPENAI_API_KEY", KEY)
    server.script("openai", ["error_401"])
    said = words(site.post(f"{HOME}provider/openai/test").text)
    assert "partly failing openai" in card_of(site.get(HOME).text, "openai")
    server.script("openai", ["error_401"] * 9)
    site.post(f"{HOME}provider/openai/test")
    assert "(GPT) failing openai" in card_of(site.get(HOME).text, "openai")
    assert "failing" in said
    assert "401" in said


def test_a_provider_without_a_key_is_no_failure(site: TestClient) -> None:
    assert "no key" in words(site.post(f"{HOME}provider/openai/test").text)


def test_a_test_of_nobody_is_a_404(site: TestClient) -> None:
    assert site.post(f"{HOME}provider/nobody/test").status_code == 404


def test_an_open_breaker_is_on_the_card(
    site: TestClient, server: LoopbackServer, monkeypatch: pytest.MonkeyPatch, journal: JournalFolder
) -> None:
    journal.write(
        {"providers": {"default": {"provider": "openai", "tier": 3, "retries": 0}, "breaker": {"failures": 1}}}
    )
    monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
    dotenv_file.set_value("OPENAI_API_KEY", KEY)
    server.script("openai", ["error_500"])
    with pytest.raises(Exception, match="500"):
        models.generate("x", "a.b")
    assert "breaker open for" in card_of(site.get(HOME).text, "openai")


def test_what_another_process_finds_is_said_without_its_value(journal: JournalFolder) -> None:
    dotenv_file.set_value("OPENAI_API_KEY", KEY)
    out = run("from muse.journal import secrets; print(secrets.key_source('OPENAI_API_KEY'))")
    assert out.strip() == os.path.join(journal.path, ".env")
