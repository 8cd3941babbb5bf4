"""The face that the seed names: what feature code takes from `think.utils`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import pytest

from muse.errors import ConfigError
from tests.journal_folder import JournalFolder
from think import utils


def test_the_journal_is_made_if_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOURNAL_PATH", str(tmp_path / "new"))
    assert utils.get_journal() == str(tmp_path / "new")
    assert (tmp_path / "new").is_dir()


def test_the_config_always_has_an_identity_and_is_the_callers_own(journal: JournalFolder) -> None:
    bare = utils.get_config()["identity"]
    assert set(bare) >= {"name", "preferred", "bio", "pronouns", "aliases", "email_addresses", "timezone"}
    bare["aliases"].append("changed")
    journal.write({"identity": {"name": "Ada"}})
    first = utils.get_config()
    first["identity"]["name"] = "changed"
    second = utils.get_config()
    assert (second["identity"]["name"], second["identity"]["aliases"]) == ("Ada", [])


def test_a_prompt_has_the_identity_and_the_callers_fields_filled_in(journal: JournalFolder, tmp_path: Path) -> None:
    journal.write({"identity": {"name": "Ada Byron", "preferred": "Ada"}})
    (tmp_path / "greet.txt").write_text("Hello $preferred, it is $day.")
    assert utils.load_prompt("greet", tmp_path, {"day": "Tuesday"}).text == "Hello Ada, it is Tuesday."
    with pytest.raises(ConfigError, match=r"greet\.txt: found the field \$day"):
        utils.load_prompt("greet", tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        utils.load_prompt("nowhere", tmp_path)


def test_setting_up_a_command_fills_what_the_environment_lacks(
    journal: JournalFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.write({"env": {"MUSE_A": "from config", "MUSE_B": "from config", "MUSE_C": "from config"}})
    monkeypatch.setenv("MUSE_A", "from the environment")
    monkeypatch.setenv("MUSE_B", "")
    monkeypatch.delenv("MUSE_C", raising=False)
    monkeypatch.setattr("sys.argv", ["program", "-v", "rest"])
    args, rest = utils.setup_cli(argparse.ArgumentParser(), parse_known=True)
    found = [os.environ[f"MUSE_{name}"] for name in "ABC"]
    for name in "BC":
        monkeypatch.setenv(f"MUSE_{name}", "")
    assert (args.verbose, args.debug, rest) == (True, False, ["rest"])
    assert found == ["from the environment", "from config", "from config"]


def test_numbers_among_the_variables_become_text(journal: JournalFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    journal.write({"env": {"MUSE_A": 8080, "MUSE_B": 1.5, "MUSE_C": True, "MUSE_D": ["x"], "MUSE_E": None}})
    for name in "ABCDE":
        monkeypatch.setenv(f"MUSE_{name}", "")
    monkeypatch.setattr("sys.argv", ["program"])
    utils.setup_cli(argparse.ArgumentParser())
    assert [os.environ[f"MUSE_{name}"] for name in "ABCDE"] == ["8080", "1.5", "True", "", ""]


@pytest.mark.parametrize("env", [None, [], "text", 7])
def test_variables_that_are_no_object_are_passed_over(
    journal: JournalFolder, monkeypatch: pytest.MonkeyPatch, env: object
) -> None:
    journal.write({"env": env})
    monkeypatch.setattr("sys.argv", ["program"])
    utils.setup_cli(argparse.ArgumentParser())


def test_rows_of_personas_have_their_key_and_instruction(journal: JournalFolder) -> None:
    folder = journal.path / "personas"
    folder.mkdir()
    for name in ("whole", "textless", "odd"):
        (folder / f"{name}.json").write_text("{}", encoding="utf-8")
    (folder / "whole.txt").write_text("You help $preferred.", encoding="utf-8")
    (folder / "odd.txt").write_text("You help $nobody_knows.", encoding="utf-8")
    journal.write({"identity": {"preferred": "Ada"}, "descriptors": {"agents": [str(folder)]}})
    rows = utils.get_agents()
    assert {name: row["persona"] for name, row in rows.items()} == {name: name for name in rows}
    assert [rows[name]["instruction"] for name in ("whole", "textless", "odd")] == ["You help Ada.", "", ""]
    assert all(rows[name]["instruction"] == utils.get_agent(name)["instruction"] for name in ("default", "chat:chat"))


def test_a_blank_server_address_is_refused() -> None:
    for url in ("", "  "):
        with pytest.raises(RuntimeError, match="MCP server URL not provided"):
            utils.create_mcp_client(url)


def test_a_day_is_a_folder_and_another_form_is_refused(journal: JournalFolder) -> None:
    assert utils.day_path("20261103") == journal.path / "20261103"
    with pytest.raises(ValueError, match="YYYYMMDD"):
        utils.day_path("2026-11-03")


def test_personas_are_found_with_their_text_and_an_unknown_one_is_named(journal: JournalFolder) -> None:
    journal.write({"identity": {"name": "Ada Byron", "preferred": "Ada"}})
    found = utils.get_agents()
    assert {"default", "todos:triage"} <= set(found)
    assert (found["todos:triage"]["app"], found["default"]["source"]) == ("todos", "system")
    persona = utils.get_agent("default")
    assert "Ada" in persona["instruction"]
    assert persona["persona"] == "default"
    assert "Ada Byron" in persona["extra_context"]
    with pytest.raises(FileNotFoundError, match="nobody"):
        utils.get_agent("nobody")
