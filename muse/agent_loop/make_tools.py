"""Chosen make targets as tools for an agent, each call of which somebody has to approve; it knows no model.

The Makefile is the nearest one from the working folder upwards. A tool takes no arguments, so nothing that a model
writes reaches a shell. What it would run (`make -n`) is shown to whoever is asked.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import anyio
from mcp.server.lowlevel import Server
from mcp_types import CallToolRequestParams, CallToolResult, ListToolsResult, TextContent, Tool, ToolAnnotations
from msgspec import Struct

from muse.agent_loop.module_loader import makefile_claim, nearest_makefile
from muse.agent_loop.toolset import Approver, ToolCallPreview
from muse.journal.secrets import redact
from muse.journal.trust import consent
from muse.types.errors import ConfigError, ToolError, TrustError
from muse.types.messages import ToolCall

log = logging.getLogger(__name__)

SERVER = "make"
TIMEOUT_S = 600.0
_PREVIEW_S = 20.0
_GRACE_S = 3.0
_KEPT_BYTES = 100_000
_TARGET = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]*)::?(?:\s|$)")
_TOLD = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]*)\s*::?[^=#]*##\s*(.+)")
# The variables that make gets, besides LC_* and those that its persona names: no key, no flag of a make above.
_KEPT: tuple[str, ...] = (
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "TERM",
    "LANG",
    "LANGUAGE",
    "TZ",
    "TMPDIR",
    "TEMP",
    "TMP",
)
_KEPT += ("SYSTEMROOT", "JOURNAL_PATH")


class MakeTarget(Struct, frozen=True):
    """A target of a Makefile, what its line says of it, and the name of its tool."""

    name: str
    says: str

    @property
    def tool(self) -> str:
        """The name as every provider takes it."""
        return f"make_{re.sub('[^A-Za-z0-9_-]', '_', self.name)}"[:64]


class Makefile(Struct, frozen=True):
    """The Makefile at `path` with those of its targets that were chosen; `env` names further variables for make."""

    path: Path
    targets: tuple[MakeTarget, ...]
    env: tuple[str, ...] = ()

    @property
    def tools(self) -> tuple[str, ...]:
        """The names of the tools, as they are and as they are told apart from another server's."""
        return tuple(name for target in self.targets for name in (target.tool, f"{SERVER}__{target.tool}"))


async def open_makefile(patterns: object, folder: Path | None = None, *, env: object = ()) -> Makefile:
    """The nearest Makefile from `folder` (the working one) upwards, with the targets that match `patterns`.

    Raises:
        ConfigError: `patterns` is no list of globs, or `env` none of names, there is no Makefile, or no target of it
            matches.
        TrustError: the user has not consented to what the Makefile says now.
    """
    if not isinstance(patterns, (list, tuple)) or not all(isinstance(one, str) and one for one in patterns):
        raise ConfigError("make", repr(patterns), "a list of names of make targets, or globs of them")
    if not isinstance(env, (list, tuple)) or not all(isinstance(one, str) and one for one in env):
        raise ConfigError("make_env", repr(env)[:200], "a list of names of variables that make gets")
    path = _nearest(Path.cwd() if folder is None else folder)
    _, listed = await _make(path, ("-pnqrR", ":"), _PREVIEW_S, env)
    names = sorted(set(_targets_in(listed)))
    chosen = [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]
    if not chosen:
        raise ConfigError("make", f"{list(patterns)!r}, which match nothing", f"a target of {path}: {', '.join(names)}")
    told = _told_in(path)
    return Makefile(path, tuple(MakeTarget(name, told.get(name, "")) for name in chosen), tuple(env))


def _nearest(folder: Path) -> Path:
    path = nearest_makefile(folder)
    if path is None:
        raise ConfigError("make", "no Makefile", f"one in {folder} or above it")
    return path


def _targets_in(listing: str) -> Iterator[str]:
    """The targets in what `make -p` prints: those of its part on files that are not marked as none."""
    _, _, files = listing.partition("\n# Files\n")
    before = ""
    for line in files.splitlines():
        found = _TARGET.match(line)
        if found is not None and before != "# Not a target:":
            yield found[1]
        before = line


def _told_in(path: Path) -> dict[str, str]:
    """What stands behind `##` on a target's line, by target."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return {found[1]: found[2].strip() for line in lines if (found := _TOLD.match(line))}


def build_server(makefile: Makefile) -> Server[Any]:
    """A server in memory with one tool a target."""
    by_tool = {target.tool: target for target in makefile.targets}

    async def listed(_: object, __: object) -> ListToolsResult:
        return ListToolsResult(tools=[_described(target) for target in makefile.targets])

    async def called(_: object, params: CallToolRequestParams) -> CallToolResult:
        target = by_tool.get(params.name)
        if target is None:
            return _answer(f"found {params.name!r}, expected one of {', '.join(by_tool)}", failed=True)
        try:
            return await _called(makefile, target)
        except (ToolError, TrustError) as exc:
            return _answer(str(exc), failed=True)

    return Server(SERVER, on_list_tools=listed, on_call_tool=called)


def _described(target: MakeTarget) -> Tool:
    says = f": {target.says}" if target.says else ""
    return Tool(
        name=target.tool,
        description=f"Run `make {target.name}` in this project{says}. Somebody is asked before it runs.",
        input_schema={"type": "object", "properties": {}, "additionalProperties": False},
        annotations=ToolAnnotations(title=f"make {target.name}", read_only_hint=False, destructive_hint=True),
    )


async def _called(makefile: Makefile, target: MakeTarget) -> CallToolResult:
    """Make a target: what it printed and its exit status; any but 0 is a failure."""
    began_s = time.monotonic()
    status, output = await _make(makefile.path, (target.name,), TIMEOUT_S, makefile.env)
    said = f"{output.rstrip()}\n[exit status {status} after {time.monotonic() - began_s:.1f} s]".lstrip()
    return _answer(said if status == 0 else f"make {target.name} failed\n{said}", failed=status != 0)


def _answer(text: str, *, failed: bool) -> CallToolResult:
    return CallToolResult(content=[TextContent(type="text", text=text)], is_error=failed)


def asking(approver: Approver | None, makefile: Makefile) -> Approver | None:
    """`approver`, which is shown what make would run where it is asked about one of the targets."""
    if approver is None:
        return None
    names = {f"{prefix}{target.tool}": target.name for target in makefile.targets for prefix in ("", f"{SERVER}__")}

    async def ask(call: ToolCall) -> bool:
        target = names.get(call.name)
        if target is None:
            return await approver(call)
        preview = await preview_of(makefile.path, target, makefile.env)
        return await approver(ToolCallPreview(call.call_id, call.name, call.args, server=SERVER, preview=preview))

    return ask


async def preview_of(path: Path, target: str, env: Sequence[str] = ()) -> str:
    """What `make -n` prints for a target; why it prints nothing, if it cannot."""
    try:
        status, output = await _make(path, ("-n", target), _PREVIEW_S, env)
    except (ToolError, TrustError) as exc:
        return f"make -n {target}: {exc}"
    text = output.strip() or f"make -n {target} prints nothing: there is nothing to do"
    return text if status == 0 else f"{text}\n[make -n {target} failed with exit status {status}]"


async def _make(path: Path, words: Sequence[str], timeout_s: float, env: Sequence[str] = ()) -> tuple[int, str]:
    """Run make in the Makefile's folder and in a process group of its own: `(exit status, what it printed)`.

    Its group is killed when the time is up or the caller is cancelled.

    Raises:
        ToolError: there is no make on this machine, or it took longer than `timeout_s`.
        TrustError: the user has not consented to what the Makefile says now: to read it is to run its `$(shell ...)`.
    """
    consent.require([makefile_claim(path)])
    process = await _start(path, words, env)
    try:
        async with asyncio.timeout(timeout_s):
            output = await _read(process.stdout)
            return await process.wait(), output
    except TimeoutError as exc:
        raise ToolError(f"make {' '.join(words)} took longer than {timeout_s:g} s and was ended") from exc
    finally:
        with anyio.CancelScope(shield=True):
            await _end(process)


async def _start(path: Path, words: Sequence[str], env: Sequence[str]) -> asyncio.subprocess.Process:
    """Start make. Who is cancelled meanwhile still has its whole group ended: asyncio would kill the one process alone.

    Raises:
        ToolError: there is no make on this machine.
    """
    with_primary = asyncio.ensure_future(
        asyncio.create_subprocess_exec(
            *("make", "--no-print-directory", "-f", path.name, *words),
            cwd=path.parent,
            env=_environment(os.environ, env),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
    )
    try:
        return await asyncio.shield(with_primary)
    except OSError as exc:
        raise ToolError(f"make cannot be started: {exc}") from exc
    except asyncio.CancelledError:
        with anyio.CancelScope(shield=True), suppress(OSError):
            await _end(await with_primary)
        raise


async def _read(stream: asyncio.StreamReader | None) -> str:
    """What comes out to its end: all of it, or its first and its last 100,000 bytes."""
    head, tail, count = bytearray(), bytearray(), 0
    while stream is not None and (piece := await stream.read(65_536)):
        count += len(piece)
        room = _KEPT_BYTES - len(head)
        head += piece[:room]
        tail += piece[room:]
        del tail[:-_KEPT_BYTES]
    skipped = count - len(head) - len(tail)
    cut = f"\n[… {skipped} bytes left out …]\n".encode() if skipped else b""
    return redact((head + cut + tail).decode("utf-8", errors="replace"))


async def _end(process: asyncio.subprocess.Process) -> None:
    """See that nothing of a process group is left: it is asked to end, and after a grace time killed."""
    try:
        if process.returncode is None:
            _signal(process.pid, signal.SIGTERM)
            async with asyncio.timeout(_GRACE_S):
                await process.wait()
    except TimeoutError:
        log.info("make (process %s) did not end by itself", process.pid)
    finally:
        _signal(process.pid, signal.SIGKILL)
    await process.wait()


def _signal(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        log.debug("process group %s is gone", group)


def _environment(inherited: Mapping[str, str], named: Sequence[str]) -> dict[str, str]:
    """Return the environment of make: paths, user, terminal, locale, and the variables that its persona names."""
    kept = {*_KEPT, *named}
    return {name: value for name, value in inherited.items() if name in kept or name.startswith("LC_")}
