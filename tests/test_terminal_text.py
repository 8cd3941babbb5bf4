"""What leaves a command is escaped: characters that steer a terminal, hide text or turn its direction."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from unicodedata import category

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muse.terminal.console import EscapingConsole
from muse.terminal.text import (
    EscapedStream,
    MessageFormatter,
    escape_control,
    escape_message,
    escape_stream,
    escaped_output,
)
from tests.journal_folder import JournalFolder, environment

HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
CHARS = (
    st.characters() | st.characters(categories=HIDDEN) | st.sampled_from("\x1b\x07\x9b\r\u202e\u200b\ufe0f\U000e0041")
)
TEXTS = st.text(CHARS)


def test_every_control_and_format_character_is_escaped() -> None:
    left = [
        hex(code)
        for code in range(sys.maxunicode + 1)
        if category(chr(code)) in HIDDEN and escape_control(chr(code)) == chr(code)
    ]
    assert left == []


@pytest.mark.parametrize(
    ("raw", "escaped"),
    [
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("\x9b2J\x7f", r"\u009b2J\u007f"),
        ("a\u202eb\u2066\u061c", r"a\u202eb\u2066\u061c"),
        ("pass\u200bword\u00ad\ufeff\u3164", r"pass\u200bword\u00ad\ufeff\u3164"),
        ("a\u2028b\rc\nd\te", r"a\u2028b\rc\nd\te"),
        ("\ud800", r"\ud800"),
        ("\U000e0041", r"\udb40\udc41"),
        ("Zoë, 北京, 12\xa0000 €, ß", "Zoë, 北京, 12\xa0000 €, ß"),
        ("a\u200db x\ufe0f \u200c", r"a\u200db x\ufe0f \u200c"),
        ("\u2764\ufe0f\u200d\U0001f525 #\ufe0f\u20e3 \u0645\u06cc\u200c\u062e",) * 2,
    ],
)
def test_escapes_are_readable_and_other_scripts_and_emoji_stay(raw: str, escaped: str) -> None:
    assert escape_control(raw) == escaped


@given(TEXTS)
def test_escaped_text_is_encodable_has_no_control_and_is_its_own_escape(text: str) -> None:
    for keep_newlines, kept in ((False, ""), (True, "\n\t")):
        shown = escape_control(text, keep_newlines=keep_newlines)
        assert [char for char in shown if category(char) in ("Cc", "Cs", "Zl", "Zp") and char not in kept] == []
        assert {char for char in shown if category(char) == "Cf"} <= set("\u200c\u200d")
        assert escape_control(shown, keep_newlines=keep_newlines) == shown
        shown.encode("utf-8")


@given(st.recursive(st.none() | TEXTS, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner), max_leaves=9))
def test_escaped_json_is_json_of_the_same_value(value: object) -> None:
    escaped = escape_control(json.dumps(value, ensure_ascii=False, indent=1), keep_newlines=True)
    assert json.loads(escaped) == json.loads(json.dumps(value))


def test_further_lines_of_a_message_cannot_pose_as_another_message() -> None:
    assert escape_message("muse: no\x1b\r\nmuse: all is well\n") == "muse: no\\x1b\n    muse: all is well"


def test_streams_escape_what_is_written_and_are_wrapped_once(capsys: pytest.CaptureFixture[str]) -> None:
    with escaped_output(), escaped_output():
        sys.stdout.write("a\x1b[2J\tb\n")
        sys.stderr.writelines(["c\x9b\n", "d\u202e\n"])
        assert escape_stream(sys.stdout) is sys.stdout
        assert sys.stdout.isatty() is False
    assert capsys.readouterr() == ("a\\x1b[2J\tb\n", "c\\u009b\nd\\u202e\n")
    assert not isinstance(sys.stdout, EscapedStream)


def test_a_log_line_is_escaped_with_its_traceback() -> None:
    formatter = MessageFormatter("%(levelname)s: %(message)s")
    record = logging.LogRecord("muse", logging.WARNING, "", 1, "key %s", ("a\x1b[2J\nERROR: b",), None)
    assert formatter.format(record) == "WARNING: key a\\x1b[2J\n    ERROR: b"
    try:
        raise ValueError("\x1b]0;taken\x07")
    except ValueError:
        record.exc_info = sys.exc_info()
    assert "\x1b" not in formatter.format(record)
    assert r"ValueError: \x1b]0;taken\x07" in formatter.format(record)


def test_a_console_escapes_all_text_and_keeps_its_own_styles() -> None:
    file = io.StringIO()
    screen = EscapingConsole(file=file, force_terminal=True, color_system="standard", width=60)
    screen.print("x\x1b]0;taken\x9b\u202e", style="red", highlight=False)
    assert file.getvalue() == "\x1b[31mx\\x1b]0;taken\\u009b\\u202e\x1b[0m\n"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_command_runs_with_closed_streams(journal: JournalFolder, closed: str) -> None:
    journal.route(default={"provider": "echo"})
    command = ["bash", "-c", f'exec "$0" -m muse route app.tides {closed}', sys.executable]
    ended = subprocess.run(command, check=False, env=environment(), capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")
