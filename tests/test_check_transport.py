"""`muse check` says when a key travels unencrypted to another machine, and when a proxy cannot be used."""

from __future__ import annotations

import pytest

from muse.diagnostics import check
from muse.diagnostics.check import Finding
from tests.journal_folder import JournalFolder

KEY = "sk-very-secret-0123456789"


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def _findings() -> list[Finding]:
    return [finding for finding in check.examine().findings if finding.kind == "transport"]


@pytest.fixture
def gateway(journal: JournalFolder, monkeypatch: pytest.MonkeyPatch) -> JournalFolder:
    monkeypatch.setenv("HARBOUR_API_KEY", KEY)
    return journal


def _use(journal: JournalFolder, address: str, env_key: str = "HARBOUR_API_KEY") -> None:
    row = {"base_url": address, "env_key": env_key, "models": {"2": "dyke-7b"}}
    journal.write({"providers": {"compatible": {"harbour": row}, "default": {"provider": "harbour"}}})


def test_a_key_over_plain_http_to_another_machine_is_found(gateway: JournalFolder) -> None:
    _use(gateway, "http://models.harbour.example:8080/v1")
    [finding] = _findings()
    assert finding.where == "providers.compatible['harbour'].base_url"
    assert "HARBOUR_API_KEY travels there in clear text" in finding.found
    assert finding.expected.startswith("an https:// address")
    assert KEY not in str(finding)


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "all_proxy"])
def test_a_proxy_that_reads_it_too_is_named(
    gateway: JournalFolder, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "http://user:hunter2pw@proxy.example:3128")
    _use(gateway, "http://models.harbour.example/v1")
    [finding] = _findings()
    assert f"the proxy that {variable} names" in finding.found
    assert "hunter2pw" not in str(finding)
    monkeypatch.setenv("NO_PROXY", "harbour.example")
    [finding] = _findings()
    assert "proxy" not in finding.found


def test_the_variable_of_an_address_is_the_place(gateway: JournalFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    _use(gateway, "https://models.harbour.example/v1")
    assert _findings() == []
    monkeypatch.setenv("HARBOUR_BASE_URL", "http://models.harbour.example/v1")
    assert [finding.where for finding in _findings()] == ["HARBOUR_BASE_URL"]


@pytest.mark.parametrize(
    "address",
    ["https://models.harbour.example/v1", "http://localhost:8080/v1", "http://127.0.0.1/v1", "http://[::1]:8080/v1"],
)
def test_tls_and_this_machine_are_no_finding(gateway: JournalFolder, address: str) -> None:
    _use(gateway, address)
    assert _findings() == []


def test_without_a_key_nothing_travels(journal: JournalFolder) -> None:
    _use(journal, "http://models.harbour.example/v1", env_key="")
    assert _findings() == []


@pytest.mark.parametrize("value", ["socks5://proxy.example:1080", "http://proxy.example:0"])
def test_a_proxy_that_cannot_be_used_is_found_before_a_call_fails(
    journal: JournalFolder, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("https_proxy", value)
    journal.route(default={"provider": "openai"})
    [finding] = _findings()
    assert finding.where == "https_proxy"
    assert finding.expected.startswith("http://host:port or")
    monkeypatch.setenv("no_proxy", "openai.com")
    assert _findings() == []
