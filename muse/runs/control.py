"""Words to a run that somebody else carries out: end it, or the answer to an approval; it knows no process.

A word is a file `<id>_<nanoseconds>.told` beside the run's log, one JSON object, written whole. The cortex that has the
run hears of it, takes the file away and obeys; a word that nobody takes is taken back.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from typing import Any

from muse.journal.config_loader import ConflictError
from muse.journal.storage import atomic_files
from muse.runs import run_files
from muse.types.errors import ConfigError
from muse.types.events import now_ms

log = logging.getLogger(__name__)

_SUFFIX = ".told"
_HEARD_WITHIN_S = 3.0
_AGAIN_S = 0.02


def cancel(agent_id: str) -> None:
    """End a run that waits or is under way, with an `error` of reason `cancelled`; one that is over stays as it is.

    Raises:
        FileNotFoundError: there is no such run.
        ConflictError: the run belongs to a program that takes no words, such as `muse agent` in a terminal.
    """
    found = run_files.find(agent_id)
    if found is None:
        raise FileNotFoundError(f"run {agent_id!r}: not found; `muse runs` lists those there are")
    if found[1] == "over":
        return
    recorder = run_files.claim(agent_id) or run_files.adopt(agent_id)  # nobody has it: then it can be ended here
    if recorder is None:
        _tell(agent_id, {"cancel": True})
        return
    recorder.write({"event": "error", "ts": now_ms(), "error": "cancelled before it was over", "reason": "cancelled"})
    recorder.end()


def answer_approval(agent_id: str, call_id: str, *, approved: bool, asked_ms: int | None = None) -> None:
    """Say yes or no to a call that a run under way asks about.

    `asked_ms` is the `ts` of the `approval` that is answered, as models use the id of a call again.

    Raises:
        ConfigError: the run asks no such thing, or it was answered already.
        ConflictError: the run is not under way, or belongs to a program that takes no words.
    """
    if not run_files.is_running(agent_id):
        raise ConflictError(f"run {agent_id}: it is not under way (any more), so there is nothing to answer")
    waiting = run_files.open_approvals(run_files.read_events(run_files.path_of(agent_id, "active")))
    if call_id not in waiting or asked_ms not in (None, waiting[call_id]):
        raise ConfigError(f"run {agent_id}, call", repr(call_id)[:80], f"one that waits for an answer: {list(waiting)}")
    _tell(agent_id, {"approval": call_id, "asked": waiting[call_id], "approved": approved})


def _tell(agent_id: str, word: Mapping[str, Any]) -> None:
    """Leave a word, and wait until it is taken."""
    path = run_files.folder() / f"{agent_id}_{time.time_ns()}{_SUFFIX}"
    atomic_files.write_atomic(path, json.dumps(word) + "\n")
    give_up_s = time.monotonic() + _HEARD_WITHIN_S
    while path.exists():
        if time.monotonic() > give_up_s and run_files.is_running(agent_id):
            path.unlink(missing_ok=True)
            raise ConflictError(
                f"run {agent_id}: the program that carries it out takes no words; end or answer it where it was started"
            )
        if not run_files.is_running(agent_id):
            path.unlink(missing_ok=True)
            return
        time.sleep(_AGAIN_S)


def named_in(name: str) -> str | None:
    """The run that a file of this name is a word to; None if it is no word."""
    agent_id, _, rest = name.partition("_")
    return agent_id if rest.endswith(_SUFFIX) and run_files.is_agent_id(agent_id) else None


def take_messages(agent_id: str) -> list[Mapping[str, Any]]:
    """The words to a run, oldest first; their files are gone then."""
    words: list[Mapping[str, Any]] = []
    for path in sorted(run_files.folder().glob(f"{agent_id}_*{_SUFFIX}")):
        try:
            word = json.loads(path.read_bytes())
            path.unlink()
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as exc:
            log.warning("%s: a word that cannot be read (%s); it is passed over", path, exc)
            continue
        if isinstance(word, dict):
            words.append(word)
    return words
