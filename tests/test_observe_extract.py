"""Which frames are chosen to be read: what rules say, what a model may say, what bounds both."""

from __future__ import annotations

import json

import pytest

from muse.errors import InvalidReply
from observe import extract
from observe.extract import by_rule, first_of_each, question, read_selection
from observe.screens.categories import Category, Importance
from observe.screens.frame_store import Line
from tests.journal_folder import JournalFolder


def category(name: str, importance: Importance = "normal", prompt: str = "Read it.") -> Category:
    return Category(name, f"A {name}", f"observe.describe.{name}", importance=importance, prompt=prompt)


KNOWN = {
    "code": category("code"),
    "mail": category("mail", "high"),
    "film": category("film", "low"),
    "dialog": category("dialog", "ignore"),
    "mute": category("mute", "high", prompt=""),
}


def lines(*names: str) -> list[Line]:
    return [
        Line(f"{number}.png", float(number), name, description=f"No. {number}") for number, name in enumerate(names)
    ]


def test_the_first_of_each_run_of_high_importance_is_taken_without_a_question() -> None:
    choice = by_rule(lines("mail", "mail", "code", "mail"), KNOWN)
    assert (list(choice.taken), choice.open) == ([0, 3], (1, 2))


def test_frames_that_failed_and_categories_without_a_text_are_never_taken() -> None:
    choice = by_rule(lines("", "mute", "gone"), KNOWN)
    assert (choice.taken, choice.open) == ({}, ())


def test_what_is_to_be_ignored_is_read_only_if_a_model_says_so() -> None:
    shown = lines("dialog", "film", "film")
    choice = by_rule(shown, KNOWN)
    assert choice.open == (0, 1, 2)
    assert list(first_of_each(shown, choice, KNOWN)) == [1]
    said = json.dumps({"chosen": [{"frame": 1, "why": "an error message"}]})
    assert read_selection(said, choice) == {0: "an error message"}


def test_what_was_not_offered_and_what_is_too_much_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract, "MOST_EXTRACTED", 3)
    choice = by_rule(lines("mail", "code", "code", "code", "code"), KNOWN)
    rows = [{"frame": frame, "why": "new"} for frame in (1, 5, 4, 3, 2, 99)]
    assert list(read_selection(json.dumps({"chosen": rows}), choice)) == [0, 1, 2]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"chosen": [1]}', '{"chosen": [{"frame": "x", "why": ""}]}'])
def test_an_answer_that_is_none_is_told(text: str) -> None:
    with pytest.raises(InvalidReply, match="selection"):
        read_selection(text, by_rule(lines("code"), KNOWN))


def test_the_question_has_the_rules_of_the_categories_that_are_open(journal: JournalFolder) -> None:
    journal.write({"identity": {"name": "Maren Tolliver", "preferred": "Maren"}})
    shown = lines("mail", "code", "mute")
    prompt, schema = question(shown, by_rule(shown, KNOWN), KNOWN)
    assert "recording of Maren's" in prompt
    assert "1. at 0:00 mail, 0% changed [already chosen]: No. 0" in prompt
    assert "2. at 0:01 code, 0% changed: No. 1" in prompt
    assert "3. at 0:02 mute, 0% changed [not to be chosen]: No. 2" in prompt
    assert "- code (normal): Extract when its content has changed." in prompt
    assert "- mail" not in prompt
    assert schema["properties"]["chosen"]["items"]["properties"]["frame"]["enum"] == [2]
