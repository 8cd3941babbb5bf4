"""The address that a provider is reached at: blanks, queries, endpoint paths, nothing, and what cannot be one."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from muse import models
from muse.errors import ConfigError
from muse.journal import secrets
from muse.providers import _http, specs
from muse.providers._backend.provider import base_url
from tests.desk import CONTEXT, QUESTION, WAYS, Desk
from tests.journal_folder import JournalFolder
from tests.provider_cases import CASES, FAMILY, GATEWAY, WIRES, Case

every_case = pytest.mark.parametrize("case", CASES, ids=str)
every_wire = pytest.mark.parametrize("case", WIRES, ids=str)
HOMES = {
    "openai": "https://api.openai.com/v1/responses",
    "anthropic": "https://api.anthropic.com/v1/messages",
    "google": "https://generativelanguage.googleapis.com/v1/models/gemini-2.5-flash:generateContent",
    "openrouter": "https://openrouter.ai/api/v1/chat/completions",
    "ollama": "http://localhost:11434/v1/chat/completions",
}
ENDPOINTS = {
    "openai": ("/responses", "/chat/completions"),
    "anthropic": ("/v1", "/v1/messages"),
    "google": ("/v1beta", "/v1beta/models/"),
}


def _use(desk: Desk, case: Case, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """Reach `case` at `address`, which stands in its variable, or in journal.json for the gateway there."""
    desk.use(case)
    if case.name != GATEWAY:
        monkeypatch.setenv(case.url_env, address)
        return
    section: Any = case.providers("")
    section["compatible"][GATEWAY]["base_url"] = address
    desk.journal.write({"providers": section})


@every_case
def test_blanks_slashes_and_the_endpoints_own_path_do_not_matter(
    desk: Desk, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.use(case)
    usual = desk.sent().path
    plain = desk.server.url + case.path
    endings = ENDPOINTS.get(case.name, ("/chat/completions",))
    for address in (f"  {plain}\n", f"{plain}/", f"{plain}//", f"{plain}#top", *(plain + end for end in endings)):
        _use(desk, case, monkeypatch, address)
        assert desk.sent().path == usual, address


@pytest.mark.parametrize("way", WAYS)
@every_wire
def test_a_query_stands_after_the_path_of_every_request(
    desk: Desk, case: Case, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.use(case)
    usual = desk.sent(way).target
    _use(desk, case, monkeypatch, f"{desk.server.url}{case.path}/?api-version=2024-06-01&tenant=a%20b")
    path, _, query = desk.sent(way).target.partition("?")
    before = usual.partition("?")[2]
    assert path == usual.partition("?")[0]
    assert set(httpx2.QueryParams(query).multi_items()) == {
        *httpx2.QueryParams(before).multi_items(),
        ("api-version", "2024-06-01"),
        ("tenant", "a b"),
    }


class _Nowhere(httpx2.BaseTransport):
    """Notes where requests would go."""

    def __init__(self, asked: list[str]) -> None:
        self._asked = asked

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        self._asked.append(str(request.url))
        return httpx2.Response(404, json={"error": {"message": "nobody"}})


@pytest.mark.parametrize("value", ["", "  ", "\n"])
@pytest.mark.parametrize("place", ["variable", ".env", "env of journal.json"])
@pytest.mark.parametrize("name", HOMES)
def test_an_address_set_to_nothing_is_unset(
    journal: JournalFolder, monkeypatch: pytest.MonkeyPatch, name: str, place: str, value: str
) -> None:
    spec = specs()[name]
    asked: list[str] = []
    monkeypatch.setattr(_http, "Transport", lambda *_: _Nowhere(asked))
    if spec.env_key:
        monkeypatch.setenv(spec.env_key, "key-for-nobody")
    content: dict[str, Any] = {"providers": {"default": {"provider": name, "model": "gemini-2.5-flash", "retries": 0}}}
    match place:
        case "variable":
            monkeypatch.setenv(spec.base_url_env, value)
        case ".env":
            (journal.path / ".env").write_text(f'{spec.base_url_env}="{value}"\n', encoding="utf-8")
        case _:
            content["env"] = {spec.base_url_env: value}
    journal.write(content)
    secrets.fill_environment(content.get("env", {}))
    with pytest.raises(Exception, match=r"nobody"):
        models.generate(QUESTION, CONTEXT, api_key=f"key-{place.replace(' ', '-')}-{value.encode().hex()}")
    assert asked == [HOMES[name]]


def test_an_endpoint_of_journal_json_without_an_address_says_which_variable_may_name_one(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = next(case for case in CASES if case.name == GATEWAY)
    _use(desk, gateway, monkeypatch, " ")
    monkeypatch.setenv(gateway.key_env, gateway.key)
    assert "HARBOUR_BASE_URL: found nothing" in str(desk.fail("sync"))
    monkeypatch.setenv("HARBOUR_BASE_URL", desk.server.url + gateway.path)
    assert desk.ask("sync").provider == GATEWAY


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("localhost:11434", "http"),
        ("ftp://host/v1", "http"),
        ("http://", "host"),
        ("http://:8080/v1", "host"),
        ("http://host:0/v1", "port 0"),
        ("http://host:99999/v1", "read"),
        ("http://host:port/v1", "read"),
        ("http://[::1/v1", "read"),
        ("http://a b/v1", "blank"),
        ("http://host/v\t1", "blank"),
        ("http://host\\v1", "backslash"),
        ("http://a..b/v1", "host is no name"),
        ("http://ho<st/v1", "host is no name"),
        (f"http://{'a' * 64}.example/v1", "host is no name"),
        (f"http://{'ä' * 64}.example/v1", "read"),
        ("http://user:secret@host/v1", "user name"),
    ],
)
def test_what_cannot_be_an_address_is_a_setting_to_mend(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, address: str, problem: str
) -> None:
    for case in FAMILY:
        desk.use(case)
        monkeypatch.setenv(case.url_env, address)
        error = desk.fail("sync")
        assert isinstance(error, ConfigError), repr(error)
        assert case.url_env in str(error)
        assert problem in str(error)
        assert "secret" not in str(error)
    assert not desk.server.requests


@pytest.mark.parametrize(
    "address",
    ["http://[::1]:8080/v1", "https://xn--bcher-kva.example/v1", "https://bücher.example", "http://my_host:80"],
)
def test_odd_addresses_that_are_some_stay_as_they_are(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", address)
    assert base_url(specs()["openai"]) == address
