"""Ask at the terminal whether a project's entries may count, before a command that could use them."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from muse.cli._terminal import terminal
from muse.diagnostics import project_claims
from muse.journal.trust import consent
from muse.terminal.text import escape_control, is_terminal
from muse.types.trust_claim import Claim, trust_command


def show(claims: Sequence[Claim]) -> None:
    """Print what the claims would do, by the folder in which they stand, to standard error."""
    for folder in dict.fromkeys(claim.folder for claim in claims):
        terminal.print_error(escape_control(f"{folder}:"))
        for claim in (claim for claim in claims if claim.folder == folder):
            mark = "trusted" if consent.is_trusted(claim) else "not trusted"
            terminal.print_error(escape_control(f"  {claim.place}") + f" ({mark})")
            terminal.print_error(escape_control(f"    {claim.does}"))


def is_somebody_there() -> bool:
    """Whether standard input and standard error are a terminal; a closed one (None) is none."""
    return is_terminal(sys.stdin) and is_terminal(sys.stderr)


def ask(question: str) -> bool:
    """Whether somebody at the terminal says yes; the end of the input is a no."""
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def ask_for_trust() -> None:
    """Show what the working folder's project would do that nobody has consented to, and ask; once for each content.

    Where nobody is at a terminal nothing is asked: what needs consent is refused when it is used.

    Raises:
        ConfigError: journal.json or the record of consent cannot be read.
    """
    if not is_somebody_there():
        return
    claims = project_claims.claims()
    withheld = consent.withheld(claims)
    folder = withheld[0].folder if withheld else ""
    if not withheld or consent.is_declined(folder, claims):
        return
    terminal.print_error("This project's files would do what follows; if they are a stranger's, read them first.")
    show(withheld)
    if ask("Trust these entries, as long as they stay as they are?"):
        consent.record(claims)
    else:
        consent.decline(folder, claims)
        terminal.print_error(f"They do not count. To change that: {trust_command(folder)}")
