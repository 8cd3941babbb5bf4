"""Shows that the `muse` command finds its subcommands, ends with the right status, and says errors in one line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from muse import cli
from muse.cli import COMMANDS, main
from tests.journal_folder import ROOT, JournalFolder, environment

MUSE = (sys.executable, "-m", "muse")
ECHO = {"default": {"provider": "echo"}}


def _muse(*words: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """`python -m muse` as a process of its own."""
    return subprocess.run(
        [*MUSE, *words], env=environment(**changes), capture_output=True, text=True, timeout=60, check=False
    )


def _plugin(folder: Path, name: str, code: str) -> str:
    """An installed package with one command of the name `name`; the folder to put on the path."""
    (folder / f"{name}_package.py").write_text(code)
    info = folder / f"{name}_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[muse.commands]\n{name} = {name}_package:main\n")
    return os.pathsep.join((str(folder), str(ROOT)))


def test_every_file_of_a_subcommand_stands_in_the_table_and_the_other_way_round() -> None:
    files = {path.stem for path in Path(cli.__file__).parent.glob("*.py") if path.stem[0] != "_"}
    assert files == set(COMMANDS)


def test_muse_alone_lists_every_command_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    alone = capsys.readouterr().out
    assert main(["--help"]) == 0
    assert capsys.readouterr().out == alone
    for name, row in COMMANDS.items():
        assert f"  {name}" in alone
        assert f"$ {row.example}" in alone
    assert "\x1b" not in alone
    assert max(map(len, alone.splitlines())) <= 100


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_its_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    assert COMMANDS[name].example in capsys.readouterr().out.replace("\n", " ").replace("  ", " ")


def test_the_overview_imports_no_subcommand_no_sdk_and_no_rich() -> None:
    code = "import sys, muse.cli; muse.cli.main([]); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=60, check=True
    )
    loaded = set(done.stderr.split())
    assert not loaded & {"rich", "openai", "anthropic", "google.genai", "mcp", "pydantic", "genai_prices"}
    assert not loaded & {f"muse.cli.{name}" for name in COMMANDS}


def test_a_route_imports_no_sdk_and_no_rich(journal: JournalFolder) -> None:
    journal.route(**ECHO)
    code = "import sys, muse.cli; muse.cli.main(['route', 'observe.enrich']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=60, check=True
    )
    assert not set(done.stderr.split()) & {"rich", "openai", "anthropic", "google.genai", "mcp", "pydantic"}


def test_the_module_is_the_same_command(journal: JournalFolder, capsys: pytest.CaptureFixture[str]) -> None:
    journal.route(**ECHO)
    assert main(["route", "observe.enrich"]) == 0
    done = _muse("route", "observe.enrich")
    assert (done.returncode, done.stdout, done.stderr) == (0, capsys.readouterr().out, "")


@pytest.mark.parametrize("words", [["chekc"], ["--nonsense"], ["route"], ["usage", "--by", "moon"], ["docs", "--chec"]])
def test_wrong_usage_is_status_2_and_says_so_on_stderr(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err


def test_a_misspelt_command_is_answered_with_the_nearest_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chekc"]) == 2
    assert "did you mean 'check'?" in capsys.readouterr().err


def test_an_error_is_one_line_and_status_1(journal: JournalFolder) -> None:
    journal.route(default={"provider": "nobody"})
    done = _muse("route", "observe.enrich")
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("muse: Unknown provider: 'nobody'")


def test_debug_shows_where_an_error_comes_from(journal: JournalFolder) -> None:
    journal.route(default={"provider": "nobody"})
    done = _muse("-d", "route", "observe.enrich")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("muse: Unknown provider")


def test_a_torn_journal_json_is_one_line(journal: JournalFolder) -> None:
    journal.write('{"providers": ')
    done = _muse("routes")
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert "journal.json" in line
    assert "line 1" in line


def test_a_reader_that_goes_away_is_no_traceback(journal: JournalFolder) -> None:
    journal.route(**ECHO)
    read_end, write_end = os.pipe()
    os.close(read_end)
    with subprocess.Popen(
        [*MUSE, "routes", "--json"], env=environment(), stdout=write_end, stderr=subprocess.PIPE, text=True
    ) as process:
        os.close(write_end)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (141, "")


def test_an_interrupt_is_status_130_and_no_traceback(tmp_path: Path) -> None:
    code = "import sys\ndef main(argv):\n    print('ready', flush=True)\n    sys.stdin.read()\n"
    with subprocess.Popen(
        [*MUSE, "wait"],
        env=environment(PYTHONPATH=_plugin(tmp_path, "wait", code)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "muse: interrupted\n")


def test_a_command_of_another_package_gets_its_words_and_gives_the_status(tmp_path: Path) -> None:
    code = "def main(argv):\n    print(argv)\n    return 7\n"
    done = _muse("weave", "a", "--b=c", PYTHONPATH=_plugin(tmp_path, "weave", code))
    assert (done.returncode, done.stdout) == (7, "['a', '--b=c']\n")


def test_the_overview_shows_a_command_of_another_package_without_importing_it(tmp_path: Path) -> None:
    code = '"""Weaves cloth; it knows no loom."""\nraise SystemExit("imported")\n'
    done = _muse(PYTHONPATH=_plugin(tmp_path, "weave", code))
    assert done.returncode == 0
    assert "weave      weaves cloth\n" in done.stdout


def test_a_command_that_cannot_be_loaded_is_one_line_that_names_its_package(tmp_path: Path) -> None:
    done = _muse("weave", PYTHONPATH=_plugin(tmp_path, "weave", "import no_such_module\n"))
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert "weave-package" in line
    assert "no_such_module" in line


def test_the_journals_env_fills_what_is_unset_or_empty_and_nothing_else(tmp_path: Path) -> None:
    folder = JournalFolder(tmp_path / "journal")
    folder.write({"env": {"UNSET_ONE": "a", "EMPTY_ONE": "b", "SET_ONE": "c", "BAD=NAME": "d"}})
    code = "import os\ndef main(argv):\n    print(*(os.environ.get(name) for name in argv))\n"
    path = _plugin(tmp_path, "show", code)
    given = {"PYTHONPATH": path, "JOURNAL_PATH": str(folder.path), "EMPTY_ONE": "", "SET_ONE": "mine"}
    done = _muse("show", "UNSET_ONE", "EMPTY_ONE", "SET_ONE", "BAD=NAME", **given)
    assert done.stdout == "a b mine None\n"
    assert "BAD=NAME" in done.stderr


def test_warnings_go_to_stderr_and_json_stays_clean(journal: JournalFolder) -> None:
    journal.route(**ECHO, contexts={"insight.*": {"tier": "flash"}})
    done = _muse("routes", "--json")
    assert json.loads(done.stdout)
    assert "found 'flash'" in done.stderr


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"muse {cli.__version__}\n"
