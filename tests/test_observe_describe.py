"""`muse describe` over a loopback model that sees: what it keeps, what it asks again, how it fails."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from muse.errors import ConfigError, MissingKeyError
from observe import describe, extract
from observe.describe import describe_day, main
from observe.screens.categories import find_categories, listed
from tests.journal_folder import JournalFolder
from tests.screens import DAY, SEGMENT, lines, put_screens, screen, segment
from tests.seeing import SeeingServer, frame


def state(folder: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / "screen.json").read_text())
    return found


def test_each_frame_that_changed_is_a_line_with_its_category(journal: JournalFolder, seeing: SeeingServer) -> None:
    folder = segment(journal.path)
    put_screens(folder, [1, 1, 2])
    assert main([DAY]) == 0
    first, second = lines(folder)
    assert (first["file"], first["category"], first["description"]) == ("screen_1.png", "code", "A file is edited.")
    assert (second["file"], second["model"]) == ("screen_3.png", "gpt-5-mini-2025-08-07")
    assert seeing.asked == {"frame": 2, "selection": 1, "read": 1}
    assert (first["extracted"], first["output"]) == ("**Read** off", "markdown")
    assert "extracted" not in second
    assert {line["context"] for line in journal.lines()} == {
        "observe.describe.frame",
        "observe.extract.selection",
        "observe.describe.code",
    }
    assert {line["segment"] for line in journal.lines()} == {SEGMENT}


def test_the_extraction_of_a_json_category_is_an_object(journal: JournalFolder, seeing: SeeingServer) -> None:
    seeing.category = "calendar"
    put_screens(folder := segment(journal.path), [1])
    assert main([DAY]) == 0
    (line,) = lines(folder)
    assert (line["extracted"], line["output"]) == ({"read": "off"}, "json")
    assert seeing.asked["selection"] == 0, "the first frame of a category of high importance is taken by rule"


def test_what_is_unchanged_is_not_asked_again_and_force_asks_everything(
    journal: JournalFolder, seeing: SeeingServer
) -> None:
    put_screens(segment(journal.path), [1, 2])
    main([DAY])
    asked = seeing.asked.total()
    assert main([DAY]) == 0
    assert seeing.asked.total() == asked
    assert main([DAY, "--force"]) == 0
    assert seeing.asked.total() == 2 * asked


def test_a_segment_that_has_grown_pays_for_its_new_frames_alone(journal: JournalFolder, seeing: SeeingServer) -> None:
    put_screens(folder := segment(journal.path), [1, 2])
    main([DAY])
    seeing.asked.clear()
    screen(3).save(folder / "screen_3.png")
    main([DAY])
    assert (seeing.asked["frame"], len(lines(folder))) == (1, 3)


def test_frames_that_look_the_same_are_asked_about_once(journal: JournalFolder, seeing: SeeingServer) -> None:
    seeing.category = "messaging"
    put_screens(folder := segment(journal.path), [1, 2, 1, 2])
    main([DAY])
    assert (seeing.asked["frame"], len(lines(folder))) == (2, 4)


def test_a_frame_that_failed_is_a_line_with_its_error_and_asked_again_the_next_time(
    journal: JournalFolder, seeing: SeeingServer, capsys: pytest.CaptureFixture[str]
) -> None:
    put_screens(folder := segment(journal.path), [1, 2])
    failures = iter(["error_500"])
    seeing.answer = lambda kind, _prompt: next(failures, None) if kind == "frame" else None
    assert main([DAY]) == 1
    assert sorted(bool(line.get("error")) for line in lines(folder)) == [False, True]
    assert capsys.readouterr().err.count("ProviderDown") == 1
    seeing.asked.clear()
    assert main([DAY]) == 0
    assert seeing.asked["frame"] == 1
    assert not any(line.get("error") for line in lines(folder))


def test_a_reply_that_fits_no_schema_twice_is_shown_in_its_line(journal: JournalFolder, seeing: SeeingServer) -> None:
    put_screens(folder := segment(journal.path), [1])
    seeing.answer = lambda kind, _prompt: frame("no such category") if kind == "frame" else None
    assert main([DAY]) == 1
    (line,) = lines(folder)
    assert line["error"].startswith("InvalidReply")
    assert "no such category" in line["said"]
    assert seeing.asked["frame"] == 2


def test_an_extraction_that_failed_keeps_the_category_and_is_asked_again_alone(
    journal: JournalFolder, seeing: SeeingServer
) -> None:
    put_screens(folder := segment(journal.path), [1])
    seeing.answer = lambda kind, _prompt: "error_400" if kind == "read" else None
    assert main([DAY]) == 1
    assert lines(folder)[0]["category"] == "code"
    seeing.answer = lambda _kind, _prompt: None
    seeing.asked.clear()
    assert main([DAY]) == 0
    assert seeing.asked == {"read": 1}


def test_without_an_answer_to_the_selection_the_first_of_each_kind_is_read(
    journal: JournalFolder, seeing: SeeingServer, capsys: pytest.CaptureFixture[str]
) -> None:
    put_screens(folder := segment(journal.path), [1, 2])
    seeing.answer = lambda kind, _prompt: "error_400" if kind == "selection" else None
    assert main([DAY]) == 1
    assert [line.get("selected", False) for line in lines(folder)] == [True, False]
    assert "observe.extract.selection" in capsys.readouterr().err


def test_no_more_frames_are_read_than_the_bound_allows(
    journal: JournalFolder, seeing: SeeingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extract, "MOST_EXTRACTED", 2)
    kinds = iter(["meeting", "email", "document", "meeting", "email"])
    seeing.answer = lambda kind, _prompt: frame(next(kinds)) if kind == "frame" else None
    put_screens(folder := segment(journal.path), [1, 2, 3, 4, 5])
    main([DAY])
    assert sum(line.get("selected", False) for line in lines(folder)) == 2


def test_files_that_are_no_pictures_are_lines_and_cost_nothing(
    journal: JournalFolder, seeing: SeeingServer, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = segment(journal.path)
    put_screens(folder, [1])
    (folder / "screen_2.png").write_bytes(b"\x89PNG\r\n\x1a\n half a picture")
    assert main([DAY]) == 1
    assert "screen_2.png" in capsys.readouterr().err
    assert [line["file"] for line in lines(folder)] == ["screen_1.png", "screen_2.png"]
    assert seeing.asked["frame"] == 1
    assert main([DAY]) == 0, "it is told once; as long as nothing changes there is nothing to do"
    assert capsys.readouterr().err == ""


def test_hostile_text_of_a_picture_stays_data(journal: JournalFolder, seeing: SeeingServer) -> None:
    words = '"}\n{"file": "forged.png"}\u2028<script>alert(1)</script>\x1b[2J'
    put_screens(folder := segment(journal.path), [1, 2])
    seeing.answer = lambda kind, _prompt: frame("code", words) if kind == "frame" else words if kind == "read" else None
    assert main([DAY]) == 0
    assert [line["file"] for line in lines(folder)] == ["screen_1.png", "screen_2.png"]
    assert lines(folder)[0]["description"] == words
    assert len((folder / "screen.jsonl").read_bytes().split(b"\n")) == 3


def test_nothing_of_the_pictures_stays_behind_in_a_ledger(journal: JournalFolder, seeing: SeeingServer) -> None:
    put_screens(segment(journal.path), [1])
    main([DAY])
    assert list((journal.path / "batches").glob("*.sqlite*")) == []


def test_a_model_that_sees_no_pictures_is_refused_before_any_call(journal: JournalFolder, seeing: SeeingServer) -> None:
    put_screens(folder := segment(journal.path), [1])
    journal.route(default={"provider": "openai"}, contexts={"observe.describe.code": {"provider": "local"}})
    with pytest.raises(ConfigError, match=r"observe\.describe\.code: found local .* sees no pictures.*journal\.json"):
        main([DAY])
    assert not seeing.asked
    assert not (folder / "screen.jsonl").exists()


def test_a_missing_key_is_said_before_any_call(
    journal: JournalFolder, seeing: SeeingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    put_screens(segment(journal.path), [1])
    with pytest.raises(MissingKeyError):
        main([DAY])
    assert not seeing.asked


def test_what_is_kept_needs_no_model_that_sees(journal: JournalFolder, seeing: SeeingServer) -> None:
    put_screens(segment(journal.path), [1])
    main([DAY])
    journal.route(default={"provider": "local"})
    assert main([DAY]) == 0


def test_a_day_without_pictures_is_nothing_to_do_and_an_unknown_one_names_the_others(
    journal: JournalFolder, seeing: SeeingServer, capsys: pytest.CaptureFixture[str]
) -> None:
    segment(journal.path)
    assert main([DAY]) == 0
    assert "nothing to do" in capsys.readouterr().out
    with pytest.raises(ConfigError, match=DAY):
        main(["20261201"])
    with pytest.raises(ConfigError, match=SEGMENT):
        main([DAY, "--segment", "000000_1"])
    assert main([DAY, "--day", "20261104"]) == 2


def test_without_a_day_it_is_the_latest_one_with_pictures(journal: JournalFolder, seeing: SeeingServer) -> None:
    with pytest.raises(ConfigError, match=r"no day with a file such as \*\.png"):
        main([])
    put_screens(segment(journal.path, day="20261102"), [1])
    put_screens(folder := segment(journal.path), [1])
    segment(journal.path, day="20261104")
    assert main([]) == 0
    assert (folder / "screen.jsonl").exists()
    assert seeing.asked["frame"] == 1


def test_a_broken_state_is_made_anew_and_torn_lines_are_asked_again(
    journal: JournalFolder, seeing: SeeingServer, caplog: pytest.LogCaptureFixture
) -> None:
    put_screens(folder := segment(journal.path), [1, 2])
    main([DAY])
    whole = (folder / "screen.jsonl").read_text()
    (folder / "screen.jsonl").write_text(whole[: len(whole) - 30])
    seeing.asked.clear()
    with caplog.at_level(logging.WARNING):
        assert main([DAY]) == 0
    assert "lines that cannot be read: 1" in caplog.text
    assert (seeing.asked["frame"], len(lines(folder))) == (1, 2)
    (folder / "screen.json").write_text("{")
    assert main([DAY]) == 0
    assert state(folder)["frames"] == 2


async def test_who_calls_it_hears_of_steps_and_gets_counts(journal: JournalFolder, seeing: SeeingServer) -> None:
    put_screens(segment(journal.path), [1])
    put_screens(segment(journal.path, name="160000_60"), [2])
    heard: list[tuple[str, int, int]] = []
    found = await describe_day(DAY, on_step=lambda *step: heard.append(step))
    assert (found.done, found.skipped, found.failed, found.problems) == (2, 0, 0, ())
    assert found.cost_usd > 0
    assert heard[-1][1:] == (1, 1)
    again = await describe_day(DAY)
    assert (again.done, again.skipped, again.cost_usd) == (0, 2, 0.0)


def test_the_json_is_all_that_is_printed(
    journal: JournalFolder, seeing: SeeingServer, capsys: pytest.CaptureFixture[str]
) -> None:
    put_screens(segment(journal.path), [1])
    assert main([DAY, "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["done"] == 1
    assert printed.err == ""


def add_category(journal: JournalFolder, name: str, text: str | None, **data: object) -> Path:
    folder = journal.path / "kinds"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(data))
    if text is not None:
        (folder / f"{name}.txt").write_text(text)
    config = json.loads(journal.config.read_text()) | {"descriptors": {"categories": ["../kinds"]}}
    journal.write(config)
    return folder


def test_a_category_that_is_added_at_run_time_is_used(journal: JournalFolder, seeing: SeeingServer) -> None:
    put_screens(folder := segment(journal.path), [1])
    add_category(
        journal,
        "sheet_music",
        "The picture shows sheet music of $preferred's. Answer with one JSON object.",
        description="Notes on staves",
        output="json",
        importance="high",
    )
    seeing.category = "sheet_music"
    assert main([DAY]) == 0
    (line,) = lines(folder)
    assert (line["category"], line["extracted"]) == ("sheet_music", {"read": "off"})
    assert "- sheet_music: Notes on staves" in seeing.prompts[0]
    assert "sheet music of the owner's" in seeing.prompts[1]
    assert "observe.describe.sheet_music" in {entry["context"] for entry in journal.lines()}


def test_a_category_without_a_text_is_told_apart_and_never_read(
    journal: JournalFolder, seeing: SeeingServer, caplog: pytest.LogCaptureFixture
) -> None:
    put_screens(segment(journal.path), [1])
    add_category(journal, "sheet_music", None, description="Notes on staves", importance="high")
    seeing.category = "sheet_music"
    with caplog.at_level(logging.WARNING):
        assert main([DAY]) == 0
    assert "found no sheet_music.txt" in caplog.text
    assert seeing.asked == {"frame": 1}


def test_a_text_without_its_json_and_a_file_without_description_are_told_and_left_out(
    journal: JournalFolder, caplog: pytest.LogCaptureFixture
) -> None:
    journal.write({})
    folder = add_category(journal, "silent", "Read it.", label="Silent")
    (folder / "lonely.txt").write_text("Read it.")
    (folder / "broken.json").write_text("{")
    with caplog.at_level(logging.WARNING):
        found = find_categories()
    assert {"silent", "lonely", "broken"} & set(found) == set()
    assert "silent.json: description: found None" in caplog.text
    assert "lonely.txt: found no lonely.json" in caplog.text


def test_the_categories_are_those_of_the_files_with_all_that_they_say(journal: JournalFolder) -> None:
    journal.write({})
    known = describe.CATEGORIES
    assert known["calendar"]["context"] == "observe.describe.calendar"
    assert (known["calendar"]["output"], known["calendar"]["tier"]) == ("json", 3)
    assert known["design"]["output"] == "markdown"
    assert known["code"]["prompt"].startswith("The picture shows a code editor")
    rows = [row for row in describe.CATEGORIZATION_PROMPT.splitlines() if row.startswith("- ")]
    names = [row[2:].partition(":")[0] for row in rows]
    assert names[: len(known)] == sorted(known)
    assert listed(find_categories()) in describe.CATEGORIZATION_PROMPT


def test_where_no_frame_could_be_told_apart_nothing_more_is_asked(journal: JournalFolder, seeing: SeeingServer) -> None:
    put_screens(folder := segment(journal.path), [1, 2])
    seeing.answer = lambda _kind, _prompt: "error_503"
    assert main([DAY]) == 1
    assert seeing.asked == {"frame": 2}
    assert all(line["error"] for line in lines(folder))
