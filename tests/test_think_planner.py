"""`muse plan`: an agent out of a wish is one that can be run, and nothing is overwritten."""

from __future__ import annotations

import json
from typing import Any

import pytest

from muse import testing
from muse.agent_loop.tool_registry import tool_modules
from muse.errors import ConfigError, InvalidReply, MissingKeyError
from muse.journal.personas import get_agent, get_agents
from tests.embedded import needs_model
from tests.journal_folder import JournalFolder
from tests.provider_cases import WIRES, Case
from tests.reading import ReadingServer
from think.agent_generator.command import main
from think.agent_generator.generate import make_plan, require_usable
from think.agent_generator.rules import name_of, schedule_of

WISH = "Every Friday at 16:00 list what I promised this week and to whom"


def plan(**changes: Any) -> str:
    """What a model says that designed an agent."""
    fields = {
        "name": "promise_list",
        "title": "Promises",
        "description": "Lists promises.",
        "instruction": "You list what $preferred promised. It costs $5.",
        "prompt": "List the promises of $day.",
        "tools": ["journal"],
        "schedule": "0 16 * * 5",
        "max_turns": 12,
    }
    return json.dumps({**fields, **changes})


@pytest.fixture(autouse=True)
def _echo(journal: JournalFolder) -> None:
    journal.write({"identity": {"preferred": "Maren"}, "providers": {"default": {"provider": "echo"}}})


def test_an_agent_is_printed_and_nothing_is_saved(journal: JournalFolder, capsys: pytest.CaptureFixture[str]) -> None:
    with testing.script(plan()) as script:
        assert main([WISH]) == 0
    prompt = str(script.requests[0].turns)
    assert WISH in prompt
    assert all(pack in prompt for pack in tool_modules())
    assert "promise_list.json" in capsys.readouterr().out
    assert "promise_list" not in get_agents()
    assert not (journal.path / "personas").exists()


@pytest.mark.parametrize("wish", ["", "x", "wish " * 500])
def test_a_wish_that_says_nothing_or_a_book_is_refused_before_anybody_is_asked(wish: str) -> None:
    with testing.script(), pytest.raises(ConfigError, match="WISH"):
        main([wish])


def test_a_wish_may_be_written_without_blanks() -> None:
    with testing.script(plan()):
        assert main(["毎日の会議を要約してください"]) == 0


def test_what_a_terminal_would_obey_is_taken_out_of_a_wish() -> None:
    with testing.script(plan()) as script:
        main(["Watch the humidity\x1b[31m figures"])
    assert "humidity[31m figures" in str(script.requests[0].turns[0])


@pytest.mark.parametrize("field", ["title", "description", "instruction", "prompt"])
def test_blanks_are_no_text_of_an_agent(field: str) -> None:
    blank = plan(**{field: "  "})
    with testing.script(blank, blank), pytest.raises(InvalidReply, match=field):
        main([WISH])


def test_force_without_save_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    with testing.script():
        assert main([WISH, "--force"]) == 2
    assert "--force goes with --save" in capsys.readouterr().err


def test_a_saved_agent_is_a_persona(journal: JournalFolder, capsys: pytest.CaptureFixture[str]) -> None:
    with testing.script(plan()):
        assert main([WISH, "--save"]) == 0
    made = get_agent("promise_list")
    assert made["instruction"] == "You list what Maren promised. It costs $5."
    assert (made["schedule"], made["tools"], made["max_turns"]) == ("0 16 * * 5", ["journal"], 12)
    assert json.loads(journal.config.read_text())["descriptors"] == {"agents": ["../personas"]}
    assert "muse agent promise_list 'List the promises of today.'" in capsys.readouterr().out


def test_a_folder_that_journal_json_names_is_taken(journal: JournalFolder) -> None:
    journal.write({"descriptors": {"agents": ["mine"]}, "providers": {"default": {"provider": "echo"}}})
    with testing.script(plan(schedule="none")):
        assert main([WISH, "--save", "other"]) == 0
    assert (journal.config.parent / "mine" / "other.txt").is_file()
    assert "schedule" not in get_agents()["other"]


def test_nothing_is_overwritten_without_force(journal: JournalFolder) -> None:
    with testing.script(plan()):
        main([WISH, "--save"])
    with pytest.raises(ConfigError, match="--force"), testing.script():
        main([WISH, "--save", "promise_list"])
    with pytest.raises(ConfigError, match="--force"), testing.script(plan(title="Other")):
        main([WISH, "--save"])
    with pytest.raises(ConfigError, match="--force"), testing.script():
        main([WISH, "--save", "daily_review"])
    assert get_agents()["promise_list"]["title"] == "Promises"
    with testing.script(plan(title="Other")):
        assert main([WISH, "--save", "--force"]) == 0
    assert get_agents()["promise_list"]["title"] == "Other"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tools": ["hammer"]}, "hammer"),
        ({"schedule": "hourly"}, "hourly"),
        ({"instruction": "You serve $favourite."}, "favourite"),
        ({"name": "../etc"}, "etc"),
        ({"max_turns": 0}, "minimum"),
    ],
)
def test_what_would_be_no_usable_persona_is_sent_back_once(changes: dict[str, Any], said: str) -> None:
    with testing.script(plan(**changes), plan()) as script:
        assert make_plan(WISH).name == "promise_list"
    assert said in str(script.requests[1].turns[-1])
    with pytest.raises(InvalidReply, match=said), testing.script(plan(**changes), plan(**changes)):
        make_plan(WISH)


@pytest.mark.parametrize("case", WIRES, ids=str)
def test_every_wire_form_brings_a_plan(journal: JournalFolder, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    with ReadingServer(lambda _: plan()) as server:
        for name, value in case.environment(server.url).items():
            monkeypatch.setenv(name, value)
        journal.write({"providers": case.providers(server.url)})
        assert make_plan(WISH).fields["schedule"] == "0 16 * * 5"


def test_a_wish_without_words_and_a_missing_key_are_said(journal: JournalFolder) -> None:
    with pytest.raises(ConfigError, match="WISH"):
        main(["a the of"])
    journal.route(default={"provider": "anthropic"})
    with pytest.raises(MissingKeyError):
        main([WISH])
    assert main([]) == 2


@pytest.mark.parametrize(
    ("wish", "schedule"),
    [
        ("Every Friday at 16:00 list promises", "0 16 * * 5"),
        ("each day sum up the notes", "daily"),
        ("Every morning read me the agenda", "0 7 * * *"),
        ("every evening at 9 pm", "0 21 * * *"),
        ("every workday at 8:30 am do it", "30 8 * * 1-5"),
        ("once a week look back", "weekly"),
        ("on Mondays and every Thursday", "0 7 * * 1,4"),
        ("Find the release date", ""),
    ],
)
def test_a_schedule_is_read_out_of_plain_words(wish: str, schedule: str) -> None:
    assert schedule_of(wish) == schedule
    require_usable(schedule or "none", "")


def test_a_name_ends_at_a_word() -> None:
    assert name_of("A very long title that goes on and on and on") == "a_very_long_title_that_goes_on_and_on"
    assert name_of("7 days") == "agent_7_days"
    assert name_of("Find contradictions between notes and transcripts") == "find_contradictions_between_notes"


@needs_model
def test_the_embedded_model_puts_one_together_out_of_an_existing_agent(journal: JournalFolder) -> None:
    journal.write({"identity": {"preferred": "Maren"}, "providers": {"default": {"provider": "local"}}})
    wish = f"{WISH}, it may cost $5 or $money"
    assert main([wish, "--save", "promises"]) == 0
    made = get_agent("promises")
    assert wish in made["instruction"]
    assert set(made["tools"]) <= {*tool_modules(), *(tool for tools in tool_modules().values() for tool in tools)}
    assert made["schedule"] == "0 16 * * 5"
    assert {line["context"] for line in journal.lines()} == {"planner.generate"}
