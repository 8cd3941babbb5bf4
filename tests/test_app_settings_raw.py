"""The raw journal.json, broken files, the last saves and their undo."""

from __future__ import annotations

import json
import re

import pytest
from starlette.testclient import TestClient

from apps.settings import history as saves
from apps.settings.redaction import SHOWN
from muse import models
from muse.journal import config_loader as journal_file
from muse.journal import secrets
from tests.journal_folder import JournalFolder
from tests.pages import client
from tests.test_app_settings import HOME, ROUTES, form_of, hidden, words

SECRET = "sk-very-secret-1234"
RAW = f"{HOME}raw"


@pytest.fixture(name="site")
def _site(journal: JournalFolder) -> TestClient:
    """A client over a journal with rules and a secret in `env`."""
    journal.write(json.dumps({"providers": ROUTES, "env": {"OPENAI_API_KEY": SECRET, "EMPTY": ""}}, indent=4))
    return client(journal)


def text_of(page: str) -> str:
    """What stands in the editor."""
    match = re.search(r"<textarea[^>]*>\n(.*?)</textarea>", page, re.DOTALL)
    assert match is not None
    return match[1].replace("&#34;", '"').replace("&#39;", "'").replace("&amp;", "&").replace("&lt;", "<")


def raw_form(site: TestClient) -> dict[str, str]:
    page = site.get(RAW).text
    return {"stamp": hidden(page, "stamp"), "text": text_of(page)}


def history(journal: JournalFolder) -> bytes:
    return b"".join(path.read_bytes() for path in (journal.path / "config" / "history").glob("*"))


def test_the_editor_shows_the_file_without_its_secrets_and_saves_it_as_it_was_typed(
    site: TestClient, journal: JournalFolder
) -> None:
    form = raw_form(site)
    assert SECRET not in form["text"]
    assert SHOWN in form["text"]
    typed = form["text"].replace('"tier": 2', '"tier":   3')
    answer = site.post(RAW, data={**form, "text": typed.replace("\n", "\r\n")})
    assert "journal.json is saved" in words(answer.text)
    assert journal.config.read_text() == typed.replace(SHOWN, SECRET)
    assert models.route("").tier == 3
    assert SECRET.encode() not in history(journal)


@pytest.mark.parametrize("path", ["", "raw", "saves", "check", "rule?default=1", "api/config", "api/providers"])
def test_no_page_and_no_answer_holds_a_secret(site: TestClient, path: str) -> None:
    site.post(f"{HOME}rule", data=form_of(site, "context=insight.*", tier="1"))
    assert SECRET not in site.get(f"{HOME}{path}").text


def test_a_broken_file_with_a_secret_shows_none(journal: JournalFolder) -> None:
    journal.write('{"env": {"OPENAI_API_KEY": "' + SECRET + '"}, "providers": oops')
    site = client(journal)
    for path in ("", "raw", "saves", "api/config", "api/providers", "check", "rule?default=1"):
        assert SECRET not in site.get(f"{HOME}{path}").text


def test_a_secret_can_be_replaced_and_an_unknown_sign_is_refused(site: TestClient, journal: JournalFolder) -> None:
    form = raw_form(site)
    new = form["text"].replace(f'"{SHOWN}"', '"sk-another-one"')
    assert site.post(RAW, data={**form, "text": new}).status_code == 200
    assert json.loads(journal.config.read_text())["env"]["OPENAI_API_KEY"] == "sk-another-one"
    form = raw_form(site)
    found = site.post(RAW, data={**form, "text": form["text"].replace("EMPTY", "X").replace('""', f'"{SHOWN}"')})
    assert found.status_code == 400
    assert "env.X" in words(found.text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"providers": {\n  "default": oops}}', "line 2"),
        ('{"providers": {"default": {\n\n"tier": 7}}}', "providers.default.tier"),
        ('{"providers": {},\n"providers": {}}', "key 'providers'"),
        ("[]", "a JSON object"),
        ("", "invalid JSON at column 1: expecting value"),
        ('{"a": ' * 100 + "1" + "}" * 100, "deep"),
    ],
)
def test_a_text_that_is_not_usable_is_refused_with_its_place_and_kept(
    site: TestClient, journal: JournalFolder, text: str, problem: str
) -> None:
    before = journal.config.read_bytes()
    found = site.post(RAW, data={**raw_form(site), "text": text})
    assert found.status_code == 400
    assert problem in words(found.text)
    assert text_of(found.text) == text
    assert journal.config.read_bytes() == before


def test_problems_are_found_while_typing_with_their_lines(site: TestClient) -> None:
    text = '{\n"providers": {\n"contexts": {\n"a.b": {\n"tier": 9}}}}'
    [problem] = site.post(f"{HOME}api/check", json={"text": text}).json()["problems"]
    assert (problem["path"], problem["line"]) == ("providers.contexts['a.b'].tier", 5)
    [broken] = site.post(f"{HOME}api/check", json={"text": "{\n\n"}).json()["problems"]
    assert broken["line"] == 3
    assert site.post(f"{HOME}api/check", json={"text": "{}"}).json() == {"problems": []}


def test_suggestions_know_contexts_and_count_characters(site: TestClient) -> None:
    text = '{"identity": {"name": "😀"}, "providers": {"contexts": {"insight.we'
    rows = site.post(f"{HOME}api/complete", json={"text": text, "cursor": len(text)}).json()["suggestions"]
    assert rows == [] or all("insight" in row["label"] for row in rows)
    text = text.removesuffix("we")
    [row, *_] = site.post(f"{HOME}api/complete", json={"text": text, "cursor": len(text)}).json()["suggestions"]
    assert text[row["start"] :] == '"insight.'


def test_formatting_keeps_every_value_and_refuses_what_it_would_lose(site: TestClient) -> None:
    made = site.post(f"{HOME}api/format", json={"text": '{"a":1.0,"b":"é"}'}).json()["text"]
    assert made == '{\n  "a": 1.0,\n  "b": "é"\n}\n'
    assert site.post(f"{HOME}api/format", json={"text": '{"a":1,"a":2}'}).status_code == 400


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"text": 1}', b"\xff", b'{"a":' * 5000])
@pytest.mark.parametrize("name", ["check", "complete", "format"])
def test_a_request_of_another_form_is_a_400(site: TestClient, body: bytes, name: str) -> None:
    found = site.post(f"{HOME}api/{name}", content=body)
    assert found.status_code == 400
    assert found.json()["error"]


def test_a_raw_save_over_a_changed_file_shows_both_and_can_be_repeated(
    site: TestClient, journal: JournalFolder
) -> None:
    form = raw_form(site)
    form["text"] = form["text"].replace('"tier": 2', '"tier": 1')
    journal.route(default={"provider": "local"})
    found = site.post(RAW, data=form)
    assert found.status_code == 409
    assert '"provider": "local"' in words(found.text)
    assert text_of(found.text) == form["text"]
    assert json.loads(journal.config.read_text()) == {"providers": {"default": {"provider": "local"}}}
    text = form["text"].replace(SHOWN, "sk-again")
    assert site.post(RAW, data={"stamp": hidden(found.text, "stamp"), "text": text}).status_code == 200
    assert journal.config.read_text() == text


def test_a_broken_file_opens_says_where_and_can_be_mended(journal: JournalFolder) -> None:
    journal.write('{\n  "providers": {\n    "default": {"provider": "local",}\n  }\n}')
    site = client(journal)
    said = words(site.get(HOME).text)
    assert "journal.json cannot be read" in said
    assert "line 3" in said
    form = raw_form(site)
    assert '"local",}' in form["text"]
    mended = form["text"].replace(",}", "}")
    assert site.post(RAW, data={**form, "text": mended}).status_code == 200
    assert models.route("").provider == "local"
    assert "cannot be read" not in site.get(HOME).text


def test_a_file_that_turns_bad_keeps_its_last_good_version_in_force_on_the_page(
    site: TestClient, journal: JournalFolder
) -> None:
    assert site.get(HOME).status_code == 200
    journal.write("{")
    said = words(site.get(HOME).text)
    assert "The last good version of it stays in force" in said
    assert "anthropic" in said
    assert site.get(f"{HOME}rule?default=1").status_code == 400


def test_a_path_that_cannot_be_read_at_all_is_said_and_nothing_is_written(journal: JournalFolder) -> None:
    journal.config.mkdir(parents=True)
    site = client(journal)
    for path in ("", "raw", "saves"):
        found = site.get(f"{HOME}{path}")
        assert found.status_code == 200
        assert "an unreadable file" in words(found.text)
    assert site.post(RAW, data={**raw_form(site), "text": "{}"}).status_code in (400, 409)
    assert journal.config.is_dir()


def test_a_file_of_a_megabyte_is_shown_checked_and_saved(journal: JournalFolder) -> None:
    journal.write({})
    site = client(journal)
    text = json.dumps({"identity": {"aliases": [f"alias {number}" for number in range(60_000)]}}, indent=1)
    assert len(text) > 1_000_000
    assert site.post(f"{HOME}api/check", json={"text": text}).json() == {"problems": []}
    form = raw_form(site)
    site.headers.pop("X-CSRF-Token")
    token = hidden(site.get(RAW).text, "csrf_token")
    assert site.post(RAW, data={**form, "text": text, "csrf_token": token}).status_code == 200
    assert journal.config.read_text() == text


def test_the_list_of_saves_says_what_was_changed_elsewhere_since(site: TestClient, journal: JournalFolder) -> None:
    site.post(f"{HOME}rule", data=form_of(site, "context=insight.*", tier="1"))
    assert "changed elsewhere" not in site.get(f"{HOME}saves").text
    journal.write(journal.config.read_text().replace('"tier": 1', '"tier": 3'))
    said = words(site.get(f"{HOME}saves").text)
    assert "changed elsewhere" in said
    assert '+ "tier": 3' in said
    journal.write({"env": {"A": "sk-by-hand-secret"}})
    assert "sk-by-hand-secret" not in site.get(f"{HOME}saves").text


def test_a_key_in_use_that_lands_in_another_field_is_not_kept_with_the_saves(
    site: TestClient, journal: JournalFolder
) -> None:
    secrets.find_key("OPENAI_API_KEY", SECRET)
    site.post(f"{HOME}rule", data=form_of(site, "context=insight.*", model=SECRET))
    assert len(saves.saves()) == 1
    assert SECRET.encode() not in history(journal)


def test_bytes_that_are_no_utf_8_are_shown_and_mended(journal: JournalFolder) -> None:
    journal.write(b'{"identity": {"name": "\xff"}}')
    site = client(journal)
    form = raw_form(site)
    assert site.post(RAW, data={**form, "text": form["text"].replace("�", "y")}).status_code == 200
    assert json.loads(journal.config.read_text()) == {"identity": {"name": "y"}}


def undo(site: TestClient, number: int = 0) -> str:
    page = site.get(f"{HOME}saves").text
    found = re.findall(r'action="(/app/settings/saves/\d+/restore)"', page)
    return words(site.post(found[number], data={"stamp": hidden(page, "stamp")}).text)


def test_each_save_is_listed_with_what_changed_and_can_be_undone_and_redone(
    site: TestClient, journal: JournalFolder
) -> None:
    before = journal.config.read_text()
    site.post(f"{HOME}rule", data=form_of(site, "context=insight.*", tier="1"))
    after = journal.config.read_text()
    said = words(site.get(f"{HOME}saves").text)
    assert "insight.*: tier 1" in said
    assert '+ "tier": 1' in said
    assert "Put back" in undo(site)
    assert journal.config.read_text() == before
    undo(site)
    assert journal.config.read_text() == after


def test_the_oldest_saves_go_and_none_is_readable_by_others(site: TestClient, journal: JournalFolder) -> None:
    for number in range(saves.KEPT + 3):
        site.post(f"{HOME}rule", data=form_of(site, "context=insight.*", timeout_s=str(number + 1)))
    kept = saves.saves()
    assert len(kept) == saves.KEPT
    assert kept[0].what == f"insight.*: timeout_s {saves.KEPT + 3}"
    folder = journal.path / "config" / "history"
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700


def test_an_undo_leaves_the_secrets_that_stand_and_names_those_it_cannot_put_back(
    site: TestClient, journal: JournalFolder
) -> None:
    form = raw_form(site)
    without = json.dumps({"providers": ROUTES, "env": {"OTHER": "sk-other-secret"}})
    site.post(RAW, data={**form, "text": without})
    said = undo(site)
    assert "set env.OPENAI_API_KEY again" in said
    assert json.loads(journal.config.read_text())["env"] == {"EMPTY": ""}
    assert b"sk-other-secret" not in history(journal)
    assert SECRET.encode() not in history(journal)


def test_an_undo_over_a_changed_file_is_a_conflict(site: TestClient, journal: JournalFolder) -> None:
    site.post(f"{HOME}rule", data=form_of(site, "context=insight.*", tier="1"))
    page = site.get(f"{HOME}saves").text
    journal.route(default={"provider": "local"})
    action = re.search(r'action="(/app/settings/saves/\d+/restore)"', page)
    assert action is not None
    assert site.post(action[1], data={"stamp": hidden(page, "stamp")}).status_code == 409
    assert models.route("").provider == "local"


@pytest.mark.parametrize("name", ["1", "0" * 19, "..%2F..%2Fjournal"])
def test_a_save_that_is_not_there_is_a_404(site: TestClient, name: str) -> None:
    stamp = hidden(site.get(RAW).text, "stamp")
    assert site.post(f"{HOME}saves/{name}/restore", data={"stamp": stamp}).status_code == 404


def test_a_damaged_save_is_passed_over(site: TestClient, journal: JournalFolder) -> None:
    site.post(f"{HOME}rule", data=form_of(site, "context=insight.*", tier="1"))
    (journal.path / "config" / "history" / f"{1:019d}.json").write_text("{")
    assert len(saves.saves()) == 1
    assert site.get(f"{HOME}saves").status_code == 200


def test_a_refused_save_is_not_kept(site: TestClient, journal: JournalFolder) -> None:
    site.post(f"{HOME}rule", data=form_of(site, "context=insight.*", tier="9"))
    assert saves.saves() == []
    assert not list((journal.path / "config").glob(".*.tmp"))


def test_a_rewrite_keeps_what_was_bad_before_and_brings_in_nothing_new(journal: JournalFolder) -> None:
    journal.write('{"providers": {"odd": 1}}')
    journal_file.rewrite('{"providers": {"odd": 1, "default": {"tier": 1}}}')
    with pytest.raises(ValueError, match=r"providers\.even"):
        journal_file.rewrite('{"providers": {"odd": 1, "even": 1}}')
