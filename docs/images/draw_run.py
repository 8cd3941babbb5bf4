"""Draws docs/images/run.svg: what `make run` shows in a terminal. Run it after `make run`, from the checkout's root."""

from __future__ import annotations

import io
import os
import pty
import re
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

COLUMNS = 100
# What a terminal does besides showing text: cursor moves, and lines that a progress bar wrote over.
_MOVES = re.compile(r"\x1b\[(?:\?25[lh]|\d*[ABCDGK]|2K)|[^\n]*\r(?!\n)")


def main() -> int:
    """Run the command in a terminal of its own, and draw what it showed."""
    shown = io.BytesIO()
    os.environ["COLUMNS"] = str(COLUMNS)
    os.environ["TERM"] = "xterm-256color"

    def read(handle: int) -> bytes:
        data = os.read(handle, 65536)
        shown.write(data)
        return data

    status = pty.spawn([str(Path(sys.executable).with_name("muse")), "insight", "--force"], read)
    text = _MOVES.sub("", shown.getvalue().decode("utf-8").replace("\r\n", "\n"))
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text("$ make run", style="bold"))
    console.print(Text.from_ansi(text.strip("\n")))
    console.save_svg("docs/images/run.svg", title="muse")
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main())
