"""Prompt files: found by name, filled in whole or refused, with an identity that reads naturally."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muse.errors import ConfigError
from muse.journal.prompts import identity_fields, load_prompt, render


def test_a_prompt_is_read_stripped_and_filled(tmp_path: Path) -> None:
    (tmp_path / "daily.txt").write_text("\nWrite for $name, ${pronouns_subject} pays $$5.\n\n", encoding="utf-8")
    prompt = load_prompt("daily", tmp_path, {"name": "Zoë", "pronouns_subject": "she"})
    assert (prompt.text, prompt.path) == ("Write for Zoë, she pays $5.", tmp_path / "daily.txt")


@pytest.mark.parametrize("name", ["a.txt", "a.md"])
def test_a_name_with_its_suffix_is_taken_as_it_is(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("x")
    assert load_prompt(name, tmp_path).text == "x"


def test_without_a_folder_the_working_folder_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("here")
    monkeypatch.chdir(tmp_path)
    assert load_prompt("a").text == "here"


def test_a_missing_prompt_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.txt"):
        load_prompt("nowhere", tmp_path)


def test_a_missing_field_names_file_and_field(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("For $nmae")
    with pytest.raises(ConfigError, match=r"a\.txt: found the field \$nmae, expected one of \$name"):
        load_prompt("a", tmp_path, {"name": "x"})


def test_a_dollar_that_names_nothing_stays() -> None:
    assert render("costs $5 or $ 6 or $", {}, where="x") == "costs $5 or $ 6 or $"


def test_a_filled_in_value_is_not_filled_again() -> None:
    assert render("$a", {"a": "$b", "b": "x"}, where="x") == "$b"


EMPTY: list[dict[str, Any]] = [{}, {"name": "", "preferred": None, "pronouns": ""}, {"pronouns": {}}]


@pytest.mark.parametrize("identity", EMPTY, ids=repr)
def test_an_empty_identity_reads_naturally(identity: dict[str, Any]) -> None:
    fields = identity_fields(identity)
    assert (fields["name"], fields["preferred"], fields["pronouns"]) == ("the owner", "the owner", "they/them")


@pytest.mark.parametrize(
    ("pronouns", "forms"),
    [
        ("she/her", ("she", "her", "her", "herself")),
        ("he", ("he", "him", "his", "himself")),
        ("xe/xem", ("they", "them", "their", "themselves")),
        ({"subject": "xe", "object": "xem"}, ("xe", "xem", "their", "themselves")),
    ],
    ids=str,
)
def test_pronouns_have_four_forms(pronouns: object, forms: tuple[str, ...]) -> None:
    fields = identity_fields({"name": "A B", "preferred": "A", "pronouns": pronouns})
    assert tuple(fields[f"pronouns_{form}"] for form in ("subject", "object", "possessive", "reflexive")) == forms
    assert (fields["name"], fields["preferred"]) == ("A B", "A")


@given(
    st.dictionaries(
        st.sampled_from(["name", "preferred", "bio", "pronouns", "timezone"]),
        st.none()
        | st.booleans()
        | st.integers()
        | st.text()
        | st.lists(st.text())
        | st.dictionaries(st.text(), st.text()),
    )
)
def test_any_identity_gives_all_fields_as_text(identity: dict[str, Any]) -> None:
    fields = identity_fields(identity)
    assert set(fields) == set(identity_fields({}))
    assert all(isinstance(value, str) for value in fields.values())
