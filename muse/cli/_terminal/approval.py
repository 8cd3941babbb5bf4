"""A person at the terminal who is asked whether a tool may be called; it knows no tool and no run."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from unicodedata import east_asian_width

from muse.agent_loop.toolset import ToolCallPreview
from muse.cli._terminal.run_view import View, is_short, named
from muse.terminal.text import escape_control
from muse.types.messages import ToolCall

_LINE_BYTES = 4_096
_FEWEST_ROWS = 3
_OWN = ("", "journal")
_LEAST_COLUMNS = 20
_YES = ("y", "yes")

try:
    import termios
except ImportError:  # Windows

    def _forget_typed(handle: int) -> None:
        """Nothing to forget it with: what was typed before the question counts as its answer."""
else:

    def _forget_typed(handle: int) -> None:
        """Drop what was typed before the question was there: it is no answer to it."""
        if os.isatty(handle):
            termios.tcflush(handle, termios.TCIFLUSH)


class TerminalApprover:
    """Answers by a line typed; one question at a time.

    A question shows the whole of what is approved: the server, the tool, every argument and what the call would do,
    wrapped and with control characters escaped. One that is longer than the window is shown page by page, and a yes
    counts only after its last page. `view` is paused meanwhile.
    """

    def __init__(self, view: View) -> None:
        self._view = view
        self._one_at_a_time = asyncio.Lock()

    async def approve(self, call: ToolCall) -> bool:
        """Whether the call may be made: only a yes is one; the end of the input is none."""
        async with self._one_at_a_time:
            self._view.pause()
            try:
                return await self._ask(call)
            finally:
                self._view.resume()

    async def _ask(self, call: ToolCall) -> bool:
        columns, rows = shutil.get_terminal_size()
        event = {"tool": call.name, "args": dict(call.args)}
        previewed = call if isinstance(call, ToolCallPreview) else ToolCallPreview(call.call_id, call.name, call.args)
        is_brief = not previewed.preview and previewed.server in _OWN and is_short(event)
        lines = [] if is_brief else question_lines(call, columns)
        size = max(rows - 2, _FEWEST_ROWS)
        pages = [lines[start : start + size] for start in range(0, len(lines), size)]
        for number, page in enumerate(pages, 1):
            print("\n".join(page), file=sys.stderr)
            if number < len(pages):
                more = f"[page {number} of {len(pages)}: Enter shows the next one, anything else refuses] "
                if (await _asked(more)).rstrip("\r") != "\n":  # the end of the input is no line
                    return False
        words = named(event) if is_short(event) else escape_control(f"{call.name}(…)")
        return (await _asked(f"allow {words}? [y/N] ")).strip().lower() in _YES


def question_lines(call: ToolCall, columns: int) -> list[str]:
    """Return all that a question shows of a call, in lines of at most `columns` characters, safe for a terminal."""
    previewed = call if isinstance(call, ToolCallPreview) else None
    server = f" of server {previewed.server!r}" if previewed and previewed.server else ""
    head = f"May {call.name}{server} be called?" + (" Its arguments:" if call.args else "")
    lines = list(_wrapped(head, "", columns))
    for name, value in call.args.items():
        lines += _wrapped(f"{name}:", "  ", columns)
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2, default=str)
        for line in text.split("\n"):
            lines += _wrapped(line, "  | ", columns)
    if previewed and previewed.preview:
        lines.append("What it would do:")
        for line in previewed.preview.split("\n"):
            lines += _wrapped(line, "  | ", columns)
    return lines


def _wrapped(text: str, lead: str, columns: int) -> Iterator[str]:
    """Cut one line of text, escaped, into pieces that fit behind `lead`; blanks at an end are shown as a dot."""
    escaped = escape_control(text)
    bare = escaped.rstrip(" ")
    escaped = bare + "\N{MIDDLE DOT}" * (len(escaped) - len(bare))
    room = max(columns - len(lead) - 1, _LEAST_COLUMNS)
    piece, used = "", 0
    for char in escaped:
        cells = 2 if east_asian_width(char) in "WF" else 1
        if used + cells > room:
            yield lead + piece
            piece, used = "", 0
        piece, used = piece + char, used + cells
    yield lead + piece


async def _asked(question: str) -> str:
    """Put a question at the end of what is shown; the line typed, empty at the end of the input."""
    _forget_typed(sys.stdin.fileno())
    sys.stderr.write(question)
    sys.stderr.flush()
    return await _typed_line(sys.stdin.fileno())


async def _typed_line(handle: int) -> str:
    """The next line typed. Waiting for it ends with the task: the thread that reads holds up no end of the process."""
    loop = asyncio.get_running_loop()
    line: asyncio.Future[bytes] = loop.create_future()

    def tell(piece: bytes) -> None:
        if not line.done():
            line.set_result(piece)

    def read() -> None:
        piece = os.read(handle, _LINE_BYTES)
        if not loop.is_closed():
            loop.call_soon_threadsafe(tell, piece)

    threading.Thread(target=read, name="approval", daemon=True).start()
    return (await line).decode("utf-8", errors="replace")
