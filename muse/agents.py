"""Requests for agent runs in, events out, one JSON line each: `muse-agents`; it knows no wire form and no tool.

A request is `{"prompt": ..., "persona"?, "provider"?, "model"?, "tier"?, ...}` with any further entry of
`RunConfig` (`muse.agent_loop.run_config`); a persona's own entries stand behind it. Standard output has JSON lines.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import logging
import os
import signal
import stat
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

from muse import models
from muse.agent_loop import loop
from muse.agent_loop.mcp_client import LocalServer
from muse.agent_loop.module_loader import makefile_claim, nearest_makefile
from muse.agent_loop.parent_watch import read_lines_until_parent_exit
from muse.agent_loop.run_config import RunConfig
from muse.agent_loop.stdin_protocol import StdinProtocol
from muse.agent_loop.tool_registry import find_tool_modules, tool_modules
from muse.agent_loop.toolset import Approver, ToolCallPreview
from muse.journal import config_loader, paths, secrets
from muse.journal.config import Config
from muse.journal.lenient_parser import closest_name
from muse.journal.persona_fields import names_in
from muse.journal.personas import DEFAULT_PERSONA, claims_of, get_agent, problems_of
from muse.journal.trust import consent
from muse.policies.execution import Fallback
from muse.providers import backend_of, get_provider_module, specs
from muse.providers._backend.backend import ProviderBackend
from muse.runs.history import format_tool_summary, parse_agent_events_to_turns
from muse.runs.recorder import Emit, RunRecorder, record_run
from muse.terminal.text import escape_output, log_to_stderr
from muse.types.errors import AgentError, ConfigError, cause_of
from muse.types.events import (
    AgentUpdatedEvent,
    ErrorEvent,
    Event,
    FinishEvent,
    JSONEventCallback,
    JSONEventWriter,
    StartEvent,
    ThinkingEvent,
    ToolEndEvent,
    ToolStartEvent,
    now_ms,
)
from muse.types.messages import ToolCall
from muse.types.redaction import RedactedStruct

__all__ = [
    "AgentUpdatedEvent",
    "ErrorEvent",
    "Event",
    "FinishEvent",
    "JSONEventCallback",
    "JSONEventWriter",
    "StartEvent",
    "ThinkingEvent",
    "ToolEndEvent",
    "ToolStartEvent",
    "cancel_on_closed_stdout",
    "format_tool_summary",
    "main",
    "main_async",
    "parse_agent_events_to_turns",
    "resolve_run",
    "run",
    "run_recorded",
]

log = logging.getLogger(__name__)
Hosted = Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None


class ResolvedRun(RedactedStruct, frozen=True):
    """A run ready to go: the provider's module name, and the config for its `run_agent`."""

    _hidden: ClassVar[frozenset[str]] = frozenset({"config"})

    provider: str
    config: Mapping[str, Any]


def resolve_run(request: Mapping[str, Any]) -> ResolvedRun:
    """A request with its persona and its route.

    The request's own entries come before the persona's. Provider, model and tier are those of the request; what it
    leaves out comes from the route of its context, whose registry tier is the persona's `tier`.

    Raises:
        ValueError: no prompt, an unknown provider or a bad limit.
        FileNotFoundError: no such persona, or its text is missing.
        ConfigError: the persona's text or an entry is not usable.
    """
    if not request.get("prompt") and not request.get("resume_from"):
        raise ValueError("Missing 'prompt' in the request")
    house = config_loader.load().config
    persona = get_agent(str(request.get("persona") or DEFAULT_PERSONA), request.get("facet") or None)
    said = {name: value for name, value in request.items() if value is not None}
    _refuse_misspelt(said)
    merged = {**house.agents, **_usable(persona, said), **said, "persona": persona["persona"]}
    if not said.get("disable_mcp"):
        _require_trust(house, persona, is_told=_names_servers(said))
        _require_makefile(merged.get("make"))
    servers = {**house.mcp_servers, **(persona.get("mcp_servers") or {})}
    if servers and not _names_servers(said):
        merged["mcp_servers"] = servers
    context = RunConfig(prompt="-", model="-", persona=persona["persona"], context=said.get("context")).ledger_context
    asked = {name: said.get(name) for name in ("provider", "model", "tier")}
    route = models.resolve(context, **asked)
    provider, model = route.provider, route.model
    known = {name: merged[name] for name in RunConfig.__struct_fields__ if name in merged}
    config = {**known, "context": context, "model": model, "provider": provider, "sees": _sees(provider, model)}
    if config.get("tools") is not None and not config.get("disable_mcp"):  # the packs' modules cost 0.1 s
        config["tools"] = _allowed(config["tools"])
    if config.get("approve"):
        config["approve"] = _allowed(config["approve"], "approve")
    return ResolvedRun(provider, config)


def _usable(persona: Mapping[str, Any], said: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a persona whose `tools` are none where its file has a malformed list; a request's own list goes before it.

    Raises:
        ConfigError: the file has an unknown field or another malformed value; it is named.
    """
    for problem in problems_of(persona["persona"]):
        if not problem.path.endswith(": tools"):
            raise ConfigError(problem.path, problem.found, problem.allowed)
        if "tools" not in said:
            log.warning("%s; the run has no tools", problem)
            persona = {**persona, "tools": []}
    return persona


def _refuse_misspelt(said: Mapping[str, Any]) -> None:
    """See that no entry of a request looks like a misspelt one of those that bound its tools; others may be anybody's.

    Raises:
        ConfigError: one does.
    """
    for name in said:
        if name not in RunConfig.__struct_fields__ and (
            near := closest_name(name, ("tools", "approve", "disable_mcp"))
        ):
            raise ConfigError(name, "an unknown entry of the request", f"{near!r}?")


def _require_trust(house: Config, persona: Mapping[str, Any], *, is_told: bool) -> None:
    """Refuse a run that would use what a project names without the user's consent.

    With `is_told` the request names its servers itself.

    Raises:
        TrustError: an MCP server, a make target or another entry that needs consent has none.
    """
    if not is_told and persona.get("tools") != []:
        consent.require(house.withheld_servers)
    consent.require(claims_of(persona["persona"]))


def _require_makefile(targets: object) -> None:
    """Refuse make targets, whoever names them, of a Makefile that the user has not consented to.

    Raises:
        TrustError: nobody has consented to the Makefile, or it or what it includes has changed since.
    """
    makefile = nearest_makefile(Path(paths.working_folder())) if targets else None
    if makefile is not None:
        consent.require([makefile_claim(makefile)])


def _sees(provider: str, model: str) -> bool:
    """Whether a model takes pictures; of a provider that declares nothing it is supposed."""
    spec = specs().get(provider)
    return spec is None or spec.profile(model).images


def _allowed(tools: Any, field: str = "tools") -> list[str]:
    """A list of tools, of the entry `field`, with the names of packs replaced by those of their tools.

    Raises:
        ConfigError: it is no list of names.
    """
    names = names_in(list(tools) if isinstance(tools, tuple) else tools)
    if names is None:
        raise ConfigError(field, repr(tools), "a list of names of packs or tools, or globs of them")
    known = tool_modules()
    return [tool for name in names for tool in known.get(name, (name,))]


async def run(request: Mapping[str, Any], emit: Emit, *, hosted: Hosted = None) -> bool:
    """One run, its events to `emit`; whether it finished. A failure is one `error` event, never an exception.

    `hosted` are the MCP servers of a request that names none, or what makes them when the first tool is wanted;
    those of the persona and of journal.json join them.
    """
    try:
        prepared = resolve_run(request)
        config = dict(prepared.config)
        if hosted and not _names_servers(request) and _may_use_tools(config):
            own = hosted() if callable(hosted) else hosted
            config["mcp_servers"] = {**own, **(config.get("mcp_servers") or {})}
        if config.get("make") and not config.get("disable_mcp"):
            config |= await _with_make(config)
        await _run_agent(prepared.provider, config, emit)
    except Exception as exc:  # the edge of a run: whatever it was is said in one event
        if not getattr(exc, "_evented", False):
            log.debug("run failed", exc_info=True)
            words = secrets.redact(str(exc) or type(exc).__name__)
            JSONEventCallback(emit).emit({"event": "error", "error": words, "cause": cause_of(exc)})
        return False
    return True


async def _run_agent(provider: str, config: Mapping[str, Any], emit: Emit) -> None:
    """The run, its turns under the policies of its context; a plug-in's own loop runs as it is."""
    if not isinstance(backend_of(provider), ProviderBackend):
        models.require_allowed(config["context"], provider, config["model"])
        try:
            await get_provider_module(provider).run_agent(config, on_event=emit)
        except SystemExit as exc:
            raise AgentError(f"provider {provider!r}: its code ended with SystemExit {exc.code}") from exc
        return

    def tell(step: Fallback) -> None:
        said = {"provider": step.failed.provider, "model": step.failed.model, "error": secrets.redact(str(step.error))}
        to = {"to_provider": step.next.provider, "to_model": step.next.model}
        JSONEventCallback(emit).emit({"event": "fallback", **said, **to})

    model = models.AgentModel(provider, config["model"], tell)
    await loop.run(config, emit, model=model, provider=provider)


def _names_servers(request: Mapping[str, Any]) -> bool:
    """Whether a request says itself which servers its tools come from."""
    return bool(request.get("mcp_server_url") or request.get("mcp_servers"))


def _may_use_tools(config: Mapping[str, Any]) -> bool:
    return not config.get("disable_mcp") and config.get("tools") != []


async def _with_make(config: Mapping[str, Any]) -> dict[str, Any]:
    """What the config of a run with make targets says in their place: their server, and that each call is asked about.

    Raises:
        ConfigError: the targets are not usable.
    """
    from muse.agent_loop import make_tools

    makefile = await make_tools.open_makefile(config["make"], env=config.get("make_env") or ())
    tools = config.get("tools")
    return {
        "mcp_servers": {**(config.get("mcp_servers") or {}), make_tools.SERVER: make_tools.build_server(makefile)},
        "tools": None if tools is None else [*tools, *makefile.tools],
        "approve": [*(config.get("approve") or ()), *makefile.tools],
        "approver": make_tools.asking(config.get("approver"), makefile),
        "tool_timeout_s": config.get("tool_timeout_s") or make_tools.TIMEOUT_S + 30,  # make's own limit comes first
    }


def builtin_tools() -> Mapping[str, Any]:
    """The journal's own tools: the model is offered them at once, their server is made when the first is called."""
    from muse.agent_loop.tool_descriptions import describe_tools

    def make() -> Any:
        from muse.mcp import build_server

        return build_server(found)

    found = find_tool_modules()
    return {"journal": LocalServer(describe_tools(found), make)}


async def main_async(
    source: Iterable[str] | None = None,
    *,
    parallel: int = 1,
    hosted: Hosted = None,
    path: str | Path | None = None,
    single: bool = False,
) -> int:
    """Run the requests of `source` (standard input if None) until its end; 0 if every one of them finished.

    One JSON object a line, blank lines are skipped, a line that is no request is an `error` event and the next ones
    still run. With `parallel` above 1 so many run at once and their events mix, each with its `agent_id`. `single` is
    for the first request alone, whose approvals are refused unless it says `attended`.
    """
    writer, lines, slots = JSONEventWriter(path), StdinProtocol(source or sys.stdin), asyncio.Semaphore(parallel)
    outcomes: list[bool] = []

    def say(event: dict[str, Any]) -> None:
        try:
            writer.emit(event)
        except BrokenPipeError as exc:
            raise asyncio.CancelledError("nobody reads the events any more") from exc

    async def one(request: Mapping[str, Any]) -> None:
        async with slots:
            heard = lines if not single or request.get("attended") is True else None
            outcomes.append(await _answered(request, writer, heard, hosted))

    async def take_all(group: asyncio.TaskGroup) -> None:
        async for line in lines.requests():
            request = _parse(line, say)
            if request is None:
                outcomes.append(False)
            else:
                task = group.create_task(one(request))
                await (task if parallel == 1 else asyncio.sleep(0))
            if single:
                return

    try:
        async with asyncio.TaskGroup() as group:
            await take_all(group)
    finally:
        writer.close()
    return 0 if all(outcomes) else 1


async def _answered(
    request: Mapping[str, Any], writer: JSONEventWriter, lines: StdinProtocol | None, hosted: Hosted
) -> bool:
    """One run whose approvals are asked for among the events and answered among the lines of the source, if any.

    An answer is recorded, but not said again to whoever gave it.
    """
    with record_run(request, writer.emit) as kept:

        async def approve(call: ToolCall) -> bool:
            return lines is not None and await lines.answer(kept.agent_id, call.call_id)

        approver = _recorded(approve, kept, kept.note)
        return await run({**request, "agent_id": kept.agent_id, "approver": approver}, kept.take, hosted=hosted)


async def run_recorded(
    request: Mapping[str, Any], emit: Emit, *, approver: Approver | None, hosted: Hosted = None
) -> bool:
    """As `run`, with each event bearing the run's id and kept in its file in the journal; see `recording`.

    What `approver` is asked, and what it says, are events too: `approval` and `answer`.
    """
    with record_run(request, emit) as kept:
        asked = None if approver is None else _recorded(approver, kept, kept.take)
        return await run({**request, "agent_id": kept.agent_id, "approver": asked}, kept.take, hosted=hosted)


def _recorded(approver: Approver, kept: RunRecorder, tell: Emit) -> Approver:
    """Return `approver`, each question to it an `approval` event of the run, and `tell` given each `answer` event."""

    async def approve(call: ToolCall) -> bool:
        asked = {"event": "approval", "tool": call.name, "args": dict(call.args), "call_id": call.call_id}
        if isinstance(call, ToolCallPreview):
            known = {"server": call.server, "preview": call.preview}
            asked |= {name: value for name, value in known.items() if value}
        kept.take({**asked, "ts": now_ms()})
        approved = await approver(call)
        tell({"event": "answer", "call_id": call.call_id, "approved": approved, "ts": now_ms()})
        return approved

    return approve


def _parse(line: str, say: Emit) -> Mapping[str, Any] | None:
    """A request line; None, and an error event, if it is none."""
    try:
        request = json.loads(line)
    except (ValueError, RecursionError) as exc:
        say({"event": "error", "error": f"Invalid JSON: {exc}", "ts": now_ms()})
        return None
    if not isinstance(request, dict):
        say({"event": "error", "error": f"Invalid JSON: found {line[:60]!r}, expected an object", "ts": now_ms()})
        return None
    return request


def main(argv: list[str] | None = None) -> int:
    """The console script `muse-agents`: 0 if every request finished, 1 if one failed, 130 when interrupted."""
    parser = argparse.ArgumentParser(prog="muse-agents", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", nargs="?", help="requests, one a line (standard input if left out)")
    parser.add_argument("-p", "--parallel", type=int, default=1, metavar="N", help="run so many at once (1)")
    parser.add_argument(
        "--tied", action="store_true", help="take one request; its run ends when standard input does (cortex runs so)"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="say more on standard error")
    if argv is None:
        escape_output()
    args = parser.parse_args(argv)
    if args.parallel < 1:
        parser.error(f"--parallel: found {args.parallel}, expected 1 or more")
    log_to_stderr(logging.BASIC_FORMAT, logging.INFO if args.verbose else logging.WARNING)
    secrets.fill_from(config_loader.load().config)
    if args.tied:
        return run_until_interrupted(read_lines_until_parent_exit(sys.stdin.fileno()), 1, single=True)
    if args.file is None:
        return run_until_interrupted(sys.stdin, args.parallel)
    with ExitStack() as opened:
        try:
            source = opened.enter_context(Path(args.file).open(encoding="utf-8", errors="replace"))
        except (OSError, ValueError) as exc:
            parser.error(f"FILE: found {args.file!r}, which cannot be read ({exc}); expected a file of requests")
        return run_until_interrupted(source, args.parallel)


def run_until_interrupted(source: Iterable[str], parallel: int, *, single: bool = False) -> int:
    """Run the requests of `source`; SIGINT and SIGTERM end the run under way with one `error` event."""

    async def whole() -> int:
        task = asyncio.current_task()
        if task is not None and sys.platform != "win32":
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
            cancel_on_closed_stdout(task)
        return await main_async(source, parallel=parallel, hosted=builtin_tools, single=single)

    try:
        return asyncio.run(whole())
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130
    finally:
        _detach_stdout()


def cancel_on_closed_stdout(task: asyncio.Task[Any]) -> None:
    """Cancel `task` when standard output is a pipe that nobody reads any more."""
    loop = asyncio.get_running_loop()
    try:
        handle = sys.stdout.fileno()
    except io.UnsupportedOperation:  # something in this process stands for it
        return

    def end() -> None:
        loop.remove_reader(handle)
        task.cancel()

    if stat.S_ISFIFO(os.fstat(handle).st_mode):
        loop.add_reader(handle, end)  # nothing comes in there, but the end of its reader does


def _detach_stdout() -> None:
    """See that the interpreter does not fail on its way out over what nobody reads any more."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


if __name__ == "__main__":
    sys.exit(main())
