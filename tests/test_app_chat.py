"""The chat app: conversations as files, every turn a run by a real process, pictures bounded, failures in place."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from apps.chat import conversations, titles
from apps.chat.conversations import Message
from apps.host.uploads import Upload
from muse import cortex_client, testing
from muse.errors import ConfigError
from muse.journal.config_loader import ConflictError
from muse.runs import run_files
from muse.runs.client import request_of
from muse.runs.history import load_history
from muse.types.messages import Image as Sent
from muse.types.messages import User
from tests.cortex_process import drain, wait_until
from tests.desk import Desk
from tests.embedded import needs_model
from tests.journal_folder import ROOT, JournalFolder
from tests.pages import client
from tests.provider_cases import FAMILY

SCRIPT = "<script>alert('x')</script>"


@pytest.fixture(autouse=True)
def _here(journal: JournalFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture
def echo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUSE_PROVIDER", "echo")


@pytest.fixture
def site(journal: JournalFolder) -> Iterator[TestClient]:
    """The site, carrying out what is asked for."""
    with client(journal, headers={"Accept": "application/json"}) as found:
        yield found


def _png(size: tuple[int, int] = (4, 4), form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("L", size).save(buffer, form)
    return buffer.getvalue()


def _ask(site: TestClient, message: str, chat: str = "", files: Any = None, **fields: str) -> tuple[str, str]:
    """Ask, and wait for the end: the page of the conversation and the run."""
    answer = site.post(f"{chat or '/app/chat'}/say", data={"message": message, **fields}, files=files)
    assert answer.status_code == 200, answer.text
    said = answer.json()
    wait_until(lambda: cortex_client.get_agent_status(said["agent_id"]) == "completed")
    return said["to"], said["agent_id"]


def _say(message: str, chat_id: str | None = None, **asked: Any) -> tuple[str, str]:
    """Ask without a site, and carry it out here."""
    chat_id, turn = conversations.say(chat_id, Message(message, asked=asked))
    drain()
    return chat_id, turn.agent_id


# Turns


def test_a_conversation_goes_on_over_its_turns(site: TestClient, echo: None) -> None:
    chat, first = _ask(site, "Low water?")
    again, second = _ask(site, "And tomorrow?", chat)
    assert again == chat
    turns = load_history(second).turns
    assert [turn.parts[-1] for turn in turns if isinstance(turn, User)] == ["Low water?", "And tomorrow?"]
    page = site.get(chat, headers={"Accept": "text/html"}).text
    assert page.index(first) < page.index(second)
    assert page.count('class="run-answer"') == 2
    assert "Low water?" in site.get("/app/chat/").text


def test_the_provider_is_switched_in_mid_conversation_and_gets_the_history(desk: Desk, echo: None) -> None:
    desk.reach(*FAMILY)
    chat_id, _ = _say("Low water?")
    for case in FAMILY:
        _, agent_id = _say(f"Is {case.name} there?", chat_id, provider=case.name)
        events = cortex_client.read_agent_events(agent_id)
        assert (events[-1]["event"], events[1]["provider"]) == ("finish", case.name)
        assert "Low water?" in json.dumps(desk.server.requests[-1].body)
    assert [turn.provider for turn in conversations.find(chat_id).turns] == ["", *(case.name for case in FAMILY)]


def test_a_second_question_waits_for_the_answer_and_a_stopped_one_makes_room(echo: None) -> None:
    chat_id, turn = conversations.say(None, Message("One"))
    with pytest.raises(ConflictError, match="still being written"):
        conversations.say(chat_id, Message("Two"))
    with pytest.raises(ConflictError, match="still being written"):
        conversations.delete(chat_id)
    _end_waiting(turn.agent_id)
    _, second = conversations.say(chat_id, Message("Two"))
    assert request_of(second.agent_id).get("continue_from") is None


def _end_waiting(agent_id: str) -> None:
    """End a run that waits."""
    recorder = run_files.claim(agent_id)
    assert recorder is not None
    recorder.write({"event": "error", "error": "cancelled", "reason": "cancelled"})
    recorder.end()


def test_a_failed_turn_is_shown_in_place_and_tried_again_with_another_provider(site: TestClient) -> None:
    chat, failed = _ask(site, "Low water?", provider="openai")
    page = site.get(chat, headers={"Accept": "text/html"}).text
    assert "OPENAI_API_KEY" in page
    assert "Try again" in page
    again = site.post(f"{chat}/again", data={"agent_id": failed, "provider": "echo"}).json()
    wait_until(lambda: cortex_client.get_agent_status(again["agent_id"]) == "completed")
    turns = conversations.find(chat.rpartition("/")[2]).turns
    assert [(turn.agent_id, turn.prompt, turn.provider) for turn in turns] == [
        (again["agent_id"], "Low water?", "echo")
    ]
    assert site.post(f"{chat}/again", data={"agent_id": failed}).status_code == 409


def test_questions_from_many_threads_make_one_turn_at_a_time(echo: None) -> None:
    chat_id, _ = _say("First")
    outcomes: list[str] = []

    def ask(number: int) -> None:
        try:
            outcomes.append(conversations.say(chat_id, Message(f"Question {number}"))[1].agent_id)
        except ConflictError:
            outcomes.append("conflict")

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count("conflict") == 7
    assert len(conversations.find(chat_id).turns) == 2


def test_a_question_right_behind_an_answer_waits_for_the_end_of_its_run(
    echo: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat_id, turn = conversations.say(None, Message("First"))
    recorder = run_files.claim(turn.agent_id)
    assert recorder is not None
    recorder.write({"event": "start", "prompt": "First"})
    recorder.write({"event": "finish", "result": "Yes"})
    ended: list[str] = []

    def pause(_: float) -> None:
        if not ended:
            recorder.end()
            ended.append(turn.agent_id)

    monkeypatch.setattr("muse.runs.follow.time.sleep", pause)
    _, second = conversations.say(chat_id, Message("Second"))
    assert request_of(second.agent_id)["continue_from"] == turn.agent_id == ended[0]


def test_an_answer_whose_process_was_killed_does_not_hold_up_the_conversation(
    site: TestClient, echo: None, journal: JournalFolder
) -> None:
    chat_id, _ = _say("First")
    recorder = run_files.EventWriter.begin()
    recorder.write({"event": "start", "prompt": "Second"})
    recorder.release()
    path = conversations.folder() / f"{chat_id}.jsonl"
    line = {"event": "turn", "agent_id": recorder.agent_id, "prompt": "Second"}
    path.write_text(path.read_text() + json.dumps(line) + "\n")
    assert "Try again" in site.get(f"/app/chat/c/{chat_id}", headers={"Accept": "text/html"}).text
    turn = conversations.say_again(chat_id, recorder.agent_id, {})
    assert cortex_client.get_agent_end_state(recorder.agent_id) == "error"
    assert [one.agent_id for one in conversations.find(chat_id).turns][1:] == [turn.agent_id]


def test_a_torn_line_is_passed_over_and_the_next_one_is_whole(echo: None) -> None:
    chat_id, _ = _say("First")
    path = conversations.folder() / f"{chat_id}.jsonl"
    path.write_bytes(path.read_bytes() + b'{"event": "turn", "agent_')
    _say("Second", chat_id)
    assert [turn.prompt for turn in conversations.find(chat_id).turns] == ["First", "Second"]


# Titles, names, deletion


def test_a_title_is_made_once_by_its_context(echo: None, journal: JournalFolder) -> None:
    with testing.script("Title: Low water on Tuesday.") as script:
        assert titles.make_title("When is low water on Tuesday?") == "Low water on Tuesday"
    assert "When is low water on Tuesday?" in str(script.requests[0].turns)
    assert journal.lines()[-1]["context"] == "app.chat.title"


def test_a_title_that_somebody_gives_while_one_is_made_stays(
    site: TestClient, echo: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat, _ = _ask(site, "Low water?")

    def make_title(_question: str) -> str:
        site.post(f"{chat}/rename", data={"title": "Mine"})
        return "The model's"

    monkeypatch.setattr(titles, "make_title", make_title)
    assert site.post(f"{chat}/api/title").json() == {"title": "Mine"}


def test_a_conversation_that_goes_while_the_list_is_made_takes_none_of_the_others_away(
    site: TestClient, echo: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    _ask(site, "Low water?")
    _ask(site, "High water?")
    listed = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path=".": [*listed(path), "1700000000000.jsonl"])
    found, total = conversations.recent(limit=10)
    assert (len(found), total) == (2, 2)


def test_the_page_gets_a_title_and_keeps_one_that_was_given(site: TestClient, echo: None) -> None:
    chat, _ = _ask(site, "Low water?")
    made = site.post(f"{chat}/api/title").json()["title"]
    assert made
    assert site.post(f"{chat}/rename", data={"title": f"  Tides\n{SCRIPT} "}).status_code == 200
    assert site.post(f"{chat}/api/title").json() == {"title": f"Tides {SCRIPT}"}
    assert SCRIPT not in site.get(chat, headers={"Accept": "text/html"}).text
    assert site.post(f"{chat}/rename", data={"title": " "}).status_code == 400


def test_a_deleted_conversation_is_gone_with_its_pictures(site: TestClient, echo: None) -> None:
    chat, agent_id = _ask(site, "See?", files={"pictures": ("a.png", _png(), "image/png")})
    folder = conversations.folder() / chat.rpartition("/")[2]
    assert [path.suffix for path in folder.iterdir()] == [".png"]
    assert site.post(f"{chat}/delete").status_code == 200
    assert not folder.exists()
    assert site.get(chat).status_code == 404
    assert cortex_client.get_agent_status(agent_id) == "completed"


@pytest.mark.parametrize("chat_id", ["1700000000000", "x", "..%2f..%2fconfig"])
def test_a_conversation_that_does_not_exist_is_a_404(site: TestClient, chat_id: str) -> None:
    assert site.get(f"/app/chat/c/{chat_id}").status_code == 404
    assert site.post(f"/app/chat/c/{chat_id}/say", data={"message": "x"}).status_code == 404


def test_an_empty_question_is_refused_and_leaves_nothing(site: TestClient, echo: None) -> None:
    answer = site.post("/app/chat/say", data={"message": "  "})
    assert (answer.status_code, "message: found nothing" in answer.json()["error"]) == (400, True)
    with pytest.raises(ConfigError, match="100,000 at most"):
        conversations.say(None, Message("x" * 100_001))
    assert conversations.recent(limit=10) == ((), 0)
    assert run_files.newest_ids() == []


# Pictures


def test_a_picture_goes_to_a_model_that_sees_and_is_shown_again(site: TestClient, desk: Desk) -> None:
    desk.use(FAMILY[0])
    data = _png()
    chat, agent_id = _ask(site, "What is this?", files={"pictures": ("a.png", data, "image/png")})
    assert cortex_client.get_agent_end_state(agent_id) == "finish"
    sent = json.dumps(desk.server.requests[-1].body)
    assert base64.b64encode(data).decode() in sent
    turn = conversations.find(chat.rpartition("/")[2]).turns[0]
    name = turn.images[0].rpartition("/")[2]
    assert site.get(f"{chat}/picture/{name}").content == data
    assert site.get(f"{chat}/picture/..%2f..%2fagents").status_code == 404


def test_a_model_without_eyes_says_so_in_place_and_later_turns_go_on_without_the_picture(
    site: TestClient, desk: Desk
) -> None:
    desk.use(FAMILY[0])
    chat, _ = _ask(site, "What is this?", files={"pictures": ("a.png", _png(), "image/png")})
    _, blind = _ask(site, "And this?", chat, files={"pictures": ("b.png", _png(), "image/png")}, provider="local")
    assert "reads no images" in cortex_client.read_agent_events(blind)[-1]["error"]
    assert "reads no images" in site.get(chat, headers={"Accept": "text/html"}).text
    first = conversations.find(chat.rpartition("/")[2]).turns[0].agent_id
    asked = load_history(first, sees=False).turns[0]
    assert isinstance(asked, User)
    assert str(asked.parts[-1]).startswith("[picture ")
    asked = load_history(first).turns[0]
    assert isinstance(asked, User)
    assert isinstance(asked.parts[-1], Sent)


@pytest.mark.parametrize(("form", "ending"), [("PNG", "png"), ("JPEG", "jpg"), ("GIF", "gif"), ("WEBP", "webp")])
def test_pictures_of_the_four_forms_are_taken(site: TestClient, echo: None, form: str, ending: str) -> None:
    chat, _ = _ask(site, "See?", files={"pictures": ("a", _png(form=form), "image/png")})
    assert conversations.find(chat.rpartition("/")[2]).turns[0].images[0].endswith(f"-1.{ending}")


BAD_PICTURES = (
    ("text.png", b"<svg onload=alert(1)>", "no picture"),
    ("cut.png", _png((400, 400))[:60], "a part of a picture"),
    ("bmp.png", _png(form="BMP"), "no picture"),
    ("huge.png", _png((10_000, 9_500)), "pixels"),
    ("bomb.png", _png((20_000, 20_000)), "no picture"),
    ("empty.png", b"", "no picture"),
    ("large.png", _png() + b"x" * 10_000_000, "10,000,000 at most"),
)


@pytest.mark.parametrize(("name", "data", "words"), BAD_PICTURES, ids=[row[0] for row in BAD_PICTURES])
def test_a_bad_picture_is_refused_with_its_name_and_nothing_is_kept(
    site: TestClient, echo: None, name: str, data: bytes, words: str
) -> None:
    answer = site.post("/app/chat/say", data={"message": "See?"}, files={"pictures": (name, data, "image/png")})
    assert answer.status_code in (400, 413, 415)
    assert name in answer.json()["error"]
    assert words in answer.json()["error"]
    assert run_files.newest_ids() == []
    assert conversations.recent(limit=10) == ((), 0)


def test_a_question_that_has_to_wait_leaves_no_picture(echo: None) -> None:
    chat_id, _ = conversations.say(None, Message("First"))
    with pytest.raises(ConflictError):
        conversations.say(chat_id, Message("See?", (Upload("a.png", "image/png", _png()),)))
    assert not (conversations.folder() / chat_id).exists()


def test_more_files_than_go_are_an_error_of_the_page(site: TestClient, echo: None) -> None:
    files = [("pictures", (f"{number}.png", _png(), "image/png")) for number in range(5)]
    answer = site.post("/app/chat/say", data={"message": "See?"}, files=files)
    assert (answer.status_code, "files is 4" in answer.text) == (400, True)
    assert run_files.newest_ids() == []


# Text of others


def test_hostile_questions_and_answers_are_shown_as_text(site: TestClient, echo: None) -> None:
    chat, agent_id = _ask(site, f"{SCRIPT}<img src=x onerror=alert(1)>")
    for page in (chat, "/app/chat/", f"{chat}/turn/{agent_id}"):
        html = site.get(page, headers={"Accept": "text/html"}).text
        assert "<script>alert" not in html
        assert "<img src=x" not in html


# The embedded model


@needs_model
def test_the_embedded_model_answers_from_the_journal_with_a_tool_and_its_source(
    site: TestClient, journal: JournalFolder
) -> None:
    shutil.copytree(ROOT / "fixtures" / "journal", journal.path, dirs_exist_ok=True)
    journal.route(default={"provider": "local"})
    chat, agent_id = _ask(site, "What did I decide about the release on Tuesday?")
    events = cortex_client.read_agent_events(agent_id)
    assert "search_journal" in {event.get("tool") for event in events}
    assert "2026110" in events[-1]["result"]
    page = site.get(chat, headers={"Accept": "text/html"}).text
    assert "search_journal" in page
    title = site.post(f"{chat}/api/title").json()["title"]
    assert title
    assert len(title) <= conversations.MOST_TITLE_CHARS
