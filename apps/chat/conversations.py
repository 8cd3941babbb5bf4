"""Conversations in the journal: each a file of whole lines, each turn of it an agent run; it shows nothing.

`<journal>/chats/<id>.jsonl` says which runs are its turns, and its title; pictures lie in `<journal>/chats/<id>/`. What
was asked and answered stands in the logs of the runs, so that the history goes to any provider.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from msgspec import Struct, field

from apps.chat import images as pictures
from apps.host.templating import MOST_PROMPT_CHARS
from apps.host.uploads import Upload
from muse.errors import ConfigError
from muse.journal import paths
from muse.journal.config_loader import ConflictError
from muse.journal.storage import atomic_files
from muse.journal.storage.path_containment import inside, is_inside
from muse.runs import control, follow, run_files
from muse.runs.client import cortex_request
from muse.types.events import now_ms

PERSONA = "chat:chat"
MOST_TITLE_CHARS = 120
_FIRST_WORDS_CHARS = 60


class Turn(Struct, frozen=True):
    """One question and the run that answers it; `images` are paths below the journal."""

    agent_id: str
    prompt: str
    images: tuple[str, ...] = ()
    provider: str = ""
    tier: int | None = None
    instead_of: str = ""


class Conversation(Struct, frozen=True):
    """A conversation: `turns` are those that count, without the ones that were tried again."""

    id: str
    title: str = ""
    turns: tuple[Turn, ...] = ()

    @property
    def name(self) -> str:
        """Its title, or the first words of it."""
        words = " ".join(self.turns[0].prompt.split()) if self.turns else ""
        short = words if len(words) <= _FIRST_WORDS_CHARS else words[: _FIRST_WORDS_CHARS - 1] + "…"
        return self.title or short or "New conversation"


class Message(Struct, frozen=True):
    """What is asked: its text, its pictures, and what of a run's request it says besides (`provider`, `tier`)."""

    prompt: str
    pictures: tuple[Upload, ...] = ()
    asked: Mapping[str, Any] = field(default_factory=dict)


class Listed(Struct, frozen=True):
    """A conversation in the list, and when it last changed (seconds since the epoch)."""

    conversation: Conversation
    changed_s: float


def folder() -> Path:
    """Where conversations are kept."""
    return paths.journal_path() / "chats"


def recent(*, limit: int, offset: int = 0) -> tuple[tuple[Listed, ...], int]:
    """Conversations, the one that changed last first, and how many there are."""
    entries = sorted(_entries(), reverse=True)
    listed: list[Listed] = []
    for changed_s, chat_id in entries[offset : offset + limit]:
        with suppress(FileNotFoundError):  # deleted meanwhile
            listed.append(Listed(_read(chat_id), changed_s))
    return tuple(listed), len(entries)


def _entries() -> Iterator[tuple[float, str]]:
    """When each conversation changed last, and its id."""
    try:
        names = os.listdir(folder())
    except FileNotFoundError:
        return
    for chat_id in filter(None, map(_id_in, names)):
        if not any(inside([_path_of(chat_id)], paths.journal_path())):
            continue
        with suppress(FileNotFoundError):  # deleted meanwhile
            yield _path_of(chat_id).stat().st_mtime, chat_id


def find(chat_id: str) -> Conversation:
    """A conversation.

    Raises:
        FileNotFoundError: there is none of this id.
    """
    path = _path_of(chat_id)
    if not run_files.is_agent_id(chat_id) or not path.is_file() or not is_inside(path, paths.journal_path()):
        raise FileNotFoundError(f"conversation {chat_id[:40]!r}: not found; it may have been deleted")
    return _read(chat_id)


def say(chat_id: str | None, message: Message) -> tuple[str, Turn]:
    """Ask something in a conversation, a new one if None: its id, and the turn that will answer.

    Raises:
        ConfigError: there is nothing to ask.
        ConflictError: an answer is still being written.
        FileNotFoundError: there is no such conversation.
    """
    prompt = _check_prompt(message.prompt)
    with _changing():
        before = find(chat_id) if chat_id else Conversation(_new_id())
        _require_quiet(before)
        names = pictures.keep(message.pictures, folder() / before.id, str(now_ms()))
        images = tuple(f"chats/{before.id}/{name}" for name in names)
        return before.id, _ask(before, prompt, images, message.asked)


def say_again(chat_id: str, agent_id: str, asked: Mapping[str, Any]) -> Turn:
    """Ask the last question of a conversation once more; the new turn takes the place of the old one.

    Raises:
        ConflictError: another turn has followed, or an answer is still being written.
        FileNotFoundError: there is no such conversation.
    """
    with _changing():
        before = find(chat_id)
        if not before.turns or before.turns[-1].agent_id != agent_id:
            raise ConflictError("The conversation has gone on since; reload the page.")
        _require_quiet(before)
        last = before.turns[-1]
        return _ask(before, last.prompt, last.images, asked, instead_of=agent_id)


def rename(chat_id: str, title: str, *, only_if_none: bool = False) -> str:
    """Give a conversation a title, or leave the one it has if it is `only_if_none`; the title as it is kept.

    Raises:
        ConfigError: there is nothing in it.
        FileNotFoundError: there is no such conversation.
    """
    said = " ".join("".join(char if char.isprintable() else " " for char in title).split())[:MOST_TITLE_CHARS]
    if not said:
        raise ConfigError("title", "nothing", "a few words")
    with _changing():
        kept = find(chat_id).title
        if kept and only_if_none:
            return kept
        _append(chat_id, {"event": "title", "ts": now_ms(), "title": said})
    return said


def delete(chat_id: str) -> None:
    """Delete a conversation with its pictures; the runs behind it stay.

    Raises:
        ConflictError: an answer is still being written.
        FileNotFoundError: there is no such conversation.
    """
    with _changing():
        _require_quiet(find(chat_id))
        _path_of(chat_id).unlink()
        shutil.rmtree(folder() / chat_id, ignore_errors=True)


def _ask(
    before: Conversation, prompt: str, images: Sequence[str], asked: Mapping[str, Any], *, instead_of: str = ""
) -> Turn:
    """Ask for the run of a turn and note it; the caller holds the lock and has seen that no answer is being written."""
    earlier = [turn for turn in before.turns if turn.agent_id != instead_of]
    config: dict[str, Any] = {**asked, "stream": True, "attended": True, "images": list(images) or None}
    config["continue_from"] = next((turn.agent_id for turn in reversed(earlier) if _can_go_on(turn.agent_id)), None)
    agent_id = cortex_request(prompt, PERSONA, config=config)
    turn = Turn(agent_id, prompt, tuple(images), str(asked.get("provider") or ""), asked.get("tier"), instead_of)
    _append(before.id, {"event": "turn", "ts": now_ms(), **_as_line(turn)})
    return turn


def _as_line(turn: Turn) -> dict[str, Any]:
    said = {
        "agent_id": turn.agent_id,
        "prompt": turn.prompt,
        "images": list(turn.images),
        "provider": turn.provider,
        "tier": turn.tier,
        "instead_of": turn.instead_of,
    }
    return {name: value for name, value in said.items() if value}


def _require_quiet(conversation: Conversation) -> None:
    """See that no answer is being written; one whose process is gone is ended.

    Raises:
        ConflictError: one is.
    """
    last = conversation.turns[-1].agent_id if conversation.turns else ""
    if not last or run_files.find(last) is None or follow.wait_until_quiet(last):
        return
    if follow.with_owner(last, follow.read_from(last)).reason != run_files.CUT_OFF:
        raise ConflictError("An answer is still being written: wait for its end, or stop it.")
    control.cancel(last)  # its process is gone: nobody else may end it


def _can_go_on(agent_id: str) -> bool:
    """Whether the next turn can go on from this one: it has an answer, or was stopped after it had begun."""
    found = run_files.find(agent_id)
    if found is None or found[1] != "over":
        return False
    events = list(run_files.read_events(found[0]))
    has_begun = any(event.get("event") == "start" for event in events)
    last = events[-1] if events else {}
    return has_begun and (last.get("event") == "finish" or last.get("reason") in ("cancelled", "stopped"))


def _check_prompt(prompt: str) -> str:
    text = prompt.strip()
    if not text:
        raise ConfigError("message", "nothing", "something to ask, with pictures too")
    if len(text) > MOST_PROMPT_CHARS:
        raise ConfigError("message", f"{len(text):,} characters", f"{MOST_PROMPT_CHARS:,} at most")
    return text


def _new_id() -> str:
    number = time.time_ns() // 1_000_000
    while _path_of(str(number)).exists():
        number += 1
    return str(number)


def _path_of(chat_id: str) -> Path:
    return folder() / f"{chat_id}.jsonl"


def _id_in(name: str) -> str:
    """The conversation that a file name belongs to; empty if it is none."""
    chat_id = name.removesuffix(".jsonl")
    return chat_id if name.endswith(".jsonl") and run_files.is_agent_id(chat_id) else ""


def _read(chat_id: str) -> Conversation:
    """A conversation from its lines; bad ones are passed over."""
    title, turns = "", dict[str, Turn]()
    for line in run_files.read_events(_path_of(chat_id)):
        if line.get("event") == "title":
            title = str(line.get("title") or "")
        elif line.get("event") == "turn" and run_files.is_agent_id(str(line.get("agent_id"))):
            turns.pop(str(line.get("instead_of")), None)
            turns[str(line["agent_id"])] = _turn_of(line)
    return Conversation(chat_id, title, tuple(turns.values()))


def _turn_of(line: Mapping[str, Any]) -> Turn:
    images, tier = line.get("images"), line.get("tier")
    return Turn(
        str(line["agent_id"]),
        str(line.get("prompt") or ""),
        tuple(str(name) for name in images) if isinstance(images, list) else (),
        str(line.get("provider") or ""),
        tier if isinstance(tier, int) else None,
        str(line.get("instead_of") or ""),
    )


def _append(chat_id: str, line: Mapping[str, Any]) -> None:
    """Add a line, whole; behind a torn one of a writer that was killed it begins a new one."""
    text = json.dumps(line, ensure_ascii=False).encode("utf-8", errors="replace") + b"\n"
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    handle = os.open(_path_of(chat_id), flags, 0o600)
    try:
        size = os.fstat(handle).st_size
        is_torn = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
        if os.write(handle, b"\n" + text if is_torn else text) < len(text):
            os.ftruncate(handle, size)
            raise OSError(f"{_path_of(chat_id)}: the disk took only a part of a line; nothing was kept of it")
    finally:
        os.close(handle)


@contextmanager
def _changing() -> Iterator[None]:
    """Only one process or thread changes conversations at a time."""
    atomic_files.make_folder(folder())
    with atomic_files.file_lock(folder() / ".lock"):
        yield
