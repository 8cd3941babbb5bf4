"""One entry of a project's files that needs consent before it counts."""

from __future__ import annotations

from msgspec import Struct

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%+=:,./-_")


class Claim(Struct, frozen=True):
    """An entry that starts a command, is run as code, or says where keys and texts go.

    `folder` is the project, `place` the file in it and the entry there, `does` what it would do, `digest` that of all
    that decides it.
    """

    folder: str
    place: str
    does: str
    digest: str

    def __str__(self) -> str:
        return f"{self.place} {self.does}"

    @property
    def command(self) -> str:
        """The command that asks for consent to what stands in the folder."""
        return trust_command(self.folder)


def trust_command(folder: str) -> str:
    """Return the command that asks for consent to what stands in `folder`, quoted for a shell."""
    quoted = folder if _PLAIN.issuperset(folder) else "'" + folder.replace("'", "'\\''") + "'"
    return f"muse trust {quoted}"
