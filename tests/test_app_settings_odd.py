"""The pages of routes over odd journals: hostile text, odd and very many names."""

from __future__ import annotations

import re

import pytest
from starlette.testclient import TestClient

from apps.settings import view_models
from tests.journal_folder import JournalFolder
from tests.pages import client
from tests.test_app_settings import HOME, ROUTES, SCRIPT, form_of, rules, words


@pytest.fixture(name="site")
def _site(journal: JournalFolder) -> TestClient:
    """A client of the pages over a journal with a few rules."""
    journal.route(**ROUTES)
    return client(journal)


def test_a_rule_without_a_name_can_be_opened_and_removed(journal: JournalFolder) -> None:
    journal.route(contexts={"": {"tier": 1}, "*": {"tier": 2}, "[": {"tier": 3}, "ü ☃": {"tier": 1}})
    site = client(journal)
    for name in ("[", "ü ☃", "*", ""):
        assert site.post(f"{HOME}rule/remove", data=form_of(site, f"context={name}")).status_code == 200
        assert name not in rules(journal)
    assert site.post(f"{HOME}rule/remove", data=form_of(site, "default=1")).status_code == 400


def test_a_preview_of_thousands_of_routes_shows_some_and_counts_the_others(journal: JournalFolder) -> None:
    journal.route(contexts={f"app.one{number}": {"retries": 1} for number in range(500)})
    site = client(journal)
    found = site.post(f"{HOME}rule/preview", data=form_of(site, "default=1", provider="local"))
    assert re.search(r"and 4\d\d more", words(found.text))
    assert found.text.count("<tr>") < 150


@pytest.mark.parametrize("field", ["provider", "tier", "model", "fallbacks", "allow", "timeout_s", "on_limit"])
def test_hostile_text_in_a_field_is_shown_as_text(site: TestClient, field: str) -> None:
    form = form_of(site, "context=insight.*", **{field: SCRIPT})
    for answer in (site.post(f"{HOME}rule/preview", data=form), site.post(f"{HOME}rule", data=form), site.get(HOME)):
        assert "<script>alert" not in answer.text
        assert "<img src=x" not in answer.text


def test_hostile_text_in_the_file_is_shown_as_text(journal: JournalFolder) -> None:
    entry = {"provider": SCRIPT, "tier": SCRIPT, "model": SCRIPT, "fallbacks": [SCRIPT], "allow": SCRIPT, SCRIPT: 1}
    providers = {"contexts": {SCRIPT: entry, "insight.*": {"model": SCRIPT}}, SCRIPT: {}}
    journal.write({"providers": providers, SCRIPT: SCRIPT, "env": {SCRIPT: "x"}})
    site = client(journal)
    for path in ("", "rule?context=insight.*", f"rule?context={SCRIPT}", "raw", "check", "saves"):
        page = site.get(f"{HOME}{path}")
        assert page.status_code == 200
        assert "<script>alert" not in page.text
        assert "<img src=x" not in page.text


def test_a_lone_surrogate_in_the_file_breaks_no_page(journal: JournalFolder) -> None:
    bench = '{"bench": {"base_url": "http://127.0.0.1:1", "label": "\\ud800"}}'
    journal.write('{"providers": {"contexts": {"a\\ud800b": {"tier": "\\udfff"}}, "compatible": ' + bench + "}}")
    site = client(journal)
    assert site.get(HOME).status_code == 200
    assert site.get(f"{HOME}raw").status_code == 200


def test_an_id_is_fit_for_any_name() -> None:
    assert re.fullmatch(r"c-[0-9a-f]{12}", view_models.id_of(SCRIPT))
    assert view_models.id_of(None) == "default"
