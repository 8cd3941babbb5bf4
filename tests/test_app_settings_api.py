"""The settings as JSON for programs, as the contract has them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from apps.settings.redaction import SHOWN
from muse import models
from muse.journal.config import parse_json
from muse.providers import get_provider_list
from tests.journal_folder import JournalFolder
from tests.pages import client
from tests.test_app_settings import HOME, ROUTES

PROVIDERS, CONFIG = f"{HOME}api/providers", f"{HOME}api/config"
ENV = {"OPENAI_API_KEY": "sk-very-secret-1234", "EMPTY": ""}
SERVERS = {"notes": {"command": "notes", "env": {"TOKEN": "t0p-secret"}}}


@pytest.fixture(name="site")
def _site(journal: JournalFolder) -> TestClient:
    """A client over a journal with rules and secrets."""
    journal.write({"providers": ROUTES, "env": ENV, "mcp_servers": SERVERS, "identity": {"name": "Maren"}})
    return client(journal)


def data(journal: JournalFolder) -> Any:
    return json.loads(journal.config.read_text())


def test_providers_are_of_the_form_that_was_agreed(site: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_API_KEY", "sk-google-secret")
    found = site.get(PROVIDERS).json()
    assert set(found) == {"providers", "default", "contexts", "context_defaults", "api_keys"}
    assert found["providers"] == get_provider_list()
    assert found["default"] == ROUTES["default"]
    assert found["contexts"] == ROUTES["contexts"]
    assert found["context_defaults"] == models.get_context_registry()
    assert set(found["api_keys"]) == {row["name"] for row in found["providers"]}
    assert found["api_keys"]["google"] is True
    assert found["api_keys"]["openai"] is False


def test_the_default_is_whole_where_the_file_says_none(journal: JournalFolder) -> None:
    assert client(journal).get(PROVIDERS).json()["default"] == {"provider": "google", "tier": 2}


def test_rules_are_put_replaced_and_taken_out(site: TestClient, journal: JournalFolder) -> None:
    body = {
        "default": {"tier": 3},
        "contexts": {"insight.*": {"tier": 1}, "detect.created": None, "new.*": {"provider": "local"}},
    }
    found = site.put(PROVIDERS, json=body)
    assert found.status_code == 200
    assert found.json()["default"] == {"provider": "google", "tier": 3}
    assert data(journal)["providers"]["contexts"] == {"insight.*": {"tier": 1}, "new.*": {"provider": "local"}}
    assert models.route("new.one").provider == "local"


def test_a_null_takes_a_field_of_the_default_out(site: TestClient, journal: JournalFolder) -> None:
    assert site.put(PROVIDERS, json={"default": {"tier": None}}).status_code == 200
    assert data(journal)["providers"]["default"] == {"provider": "google"}


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"default": {"provider": "nobody"}}, "providers.default.provider"),
        ({"default": {"tier": 9}}, "providers.default.tier"),
        ({"default": []}, "providers.default"),
        ({"contexts": {"a.b": {"tier": "flash"}}}, "providers.contexts['a.b'].tier"),
        ({"contexts": {"a.b": 3}}, "providers.contexts['a.b']"),
        ({"contexts": {"a.b": {"odd": 3}}}, "providers.contexts['a.b'].odd"),
        ({"contexts": 3}, "providers.contexts"),
        ({"api_keys": {}}, "providers.api_keys"),
    ],
)
def test_what_is_wrong_is_a_400_with_its_path_and_nothing_is_written(
    site: TestClient, journal: JournalFolder, body: Any, path: str
) -> None:
    before = journal.config.read_bytes()
    found = site.put(PROVIDERS, json=body)
    assert found.status_code == 400
    assert found.json()["path"] == path
    assert found.json()["error"].startswith(f"{path}: found")
    assert journal.config.read_bytes() == before


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff\xfe"])
@pytest.mark.parametrize("address", [PROVIDERS, CONFIG])
def test_a_body_that_is_no_object_is_a_400(site: TestClient, body: bytes, address: str) -> None:
    found = site.put(address, content=body)
    assert found.status_code == 400
    assert "expected a JSON object" in found.json()["error"]


def test_the_configuration_says_of_env_only_whether_it_is_set(site: TestClient) -> None:
    answer = site.get(CONFIG)
    found = answer.json()
    assert found["env"] == {"OPENAI_API_KEY": True, "EMPTY": False}
    assert found["mcp_servers"]["notes"]["env"] == {"TOKEN": True}
    assert found["identity"] == {"name": "Maren"}
    assert "secret" not in answer.text


def test_what_was_got_can_be_put_and_changes_nothing(site: TestClient, journal: JournalFolder) -> None:
    before = data(journal)
    assert site.put(CONFIG, json=site.get(CONFIG).json()).status_code == 200
    assert data(journal) == before


def test_sections_are_replaced_and_env_is_set_entry_by_entry(site: TestClient, journal: JournalFolder) -> None:
    env = {"NEW": "value", "EMPTY": None, "OPENAI_API_KEY": True}
    answer = site.put(CONFIG, json={"identity": {"name": "M"}, "env": env, "mcp_servers": None})
    assert answer.json()["env"] == {"OPENAI_API_KEY": True, "NEW": True}
    assert data(journal) == {
        "providers": ROUTES,
        "env": {"OPENAI_API_KEY": ENV["OPENAI_API_KEY"], "NEW": "value"},
        "identity": {"name": "M"},
    }


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"env": {"UNSET": True}}, "env['UNSET']"),
        ({"env": []}, "env"),
        ({"env": {"A": 3}}, "env['A']"),
        ({"odd": 1}, "odd"),
        ({"mcp_servers": {"x": {"command": "y", "env": {"A": True}}}}, "mcp_servers['x'].env['A']"),
        ({"providers": {"contexts": {"a": {"tier": 9}}}}, "providers.contexts['a'].tier"),
    ],
)
def test_a_configuration_that_is_not_usable_is_refused_with_its_path(
    site: TestClient, journal: JournalFolder, body: Any, path: str
) -> None:
    before = journal.config.read_bytes()
    found = site.put(CONFIG, json=body)
    assert (found.status_code, found.json()["path"]) == (400, path)
    assert journal.config.read_bytes() == before


@pytest.mark.parametrize("address", [PROVIDERS, CONFIG])
def test_an_answer_that_was_overtaken_is_a_409(site: TestClient, journal: JournalFolder, address: str) -> None:
    tag = site.get(address).headers["ETag"]
    journal.route(default={"provider": "local"})
    found = site.put(address, json={}, headers={"If-Match": tag})
    assert found.status_code == 409
    fresh = site.get(address).headers["ETag"]
    assert site.put(address, json={}, headers={"If-Match": fresh}).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        '{"identity": {"a": NaN}}',
        '{"identity": {"a": 1e999}}',
        '{"identity": {"a": -Infinity}}',
        '{"identity": ' + '{"a":' * 70 + "1" + "}" * 71,
        '{"identity": ' + '{"a":' * 900 + "1" + "}" * 901,
        '{"identity": {"a": 1, "a": 2}}',
    ],
)
def test_what_could_not_be_read_again_is_never_written(site: TestClient, journal: JournalFolder, body: str) -> None:
    before = journal.config.read_bytes()
    assert site.put(CONFIG, content=body).status_code == 400
    assert journal.config.read_bytes() == before


def test_a_number_beyond_all_bounds_in_the_file_breaks_no_answer(journal: JournalFolder) -> None:
    journal.write('{"identity": {"a": 1e999}, "agents": {"max_turns": -1e999}}')
    site = client(journal)
    assert site.get(CONFIG).json()["identity"] == {"a": "Infinity"}
    assert {site.get(f"{HOME}{path}").status_code for path in ("", "raw", "check", "saves")} == {200}


def test_other_secrets_are_not_shown_and_stay_where_their_sign_is_put(journal: JournalFolder) -> None:
    servers = {"notes": {"url": "http://me:t0p-secret@127.0.0.1/", "env": {"A": "b-secret"}}}
    journal.write({"mcp_servers": servers})
    site = client(journal)
    answer = site.get(CONFIG)
    assert "secret" not in answer.text
    assert site.put(CONFIG, json=answer.json()).status_code == 200
    assert data(journal) == {"mcp_servers": servers}
    found = site.put(CONFIG, json={"identity": {"name": SHOWN}})
    assert (found.status_code, found.json()["path"]) == (400, "identity.name")


_names = st.sampled_from(
    ["providers", "default", "contexts", "env", "mcp_servers", "identity", "agents", "descriptors", "insight.*"]
) | st.sampled_from(
    ["provider", "tier", "model", "fallbacks", "allow", "limits", "budgets", "models", "compatible", ""]
)
_any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | _names | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_names | st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.dictionaries(_names, _any, max_size=3), address=st.sampled_from([PROVIDERS, CONFIG]))
def test_no_put_of_whatever_form_is_a_failure_or_leaves_a_file_that_cannot_be_read(
    site: TestClient, journal: JournalFolder, body: Any, address: str
) -> None:
    assert site.put(address, content=json.dumps(body)).status_code in (200, 400)
    parse_json(journal.config.read_bytes(), "journal.json")
    assert site.get(CONFIG).status_code == 200


def test_a_broken_file_is_a_400_that_says_where(site: TestClient, journal: JournalFolder) -> None:
    journal.write('{\n"x": oops}')
    for found in (site.get(PROVIDERS), site.get(CONFIG), site.put(PROVIDERS, json={"default": {"tier": 1}})):
        assert found.status_code == 400
        assert "line 2" in found.json()["error"]


def test_without_the_token_nothing_is_put(site: TestClient) -> None:
    site.headers.pop("X-CSRF-Token")
    assert site.put(PROVIDERS, json={"default": {"tier": 1}}).status_code == 403
