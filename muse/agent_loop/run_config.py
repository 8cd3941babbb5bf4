"""One agent run as it was asked for: the entries of its config, typed and checked; it runs nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

from msgspec import field

from muse.agent_loop.mcp_client import ToolServer, require_url, servers_of
from muse.agent_loop.toolset import Approver, ToolPolicy
from muse.routing.contexts import agent_context
from muse.types.errors import ConfigError
from muse.types.messages import DEFAULT_MAX_OUTPUT_TOKENS
from muse.types.redaction import RedactedStruct

DEFAULT_MAX_TURNS = 32
DEFAULT_MAX_TOOL_CALLS = 200
DEFAULT_TOOL_TIMEOUT_S = 300.0


class RunConfig(RedactedStruct, frozen=True):
    """A run's config; `tools` is the allow-list (None all, empty none), `approve` globs of tools to ask about.

    `make` are globs of make targets that are offered as tools, each call of which is asked about; `make_env` names
    the variables that make gets besides those of `muse.agent_loop.make_tools`.
    `max_tokens` bounds each reply, `max_total_tokens` and `max_cost_usd` the whole run, `timeout_s` (seconds) model
    calls and tools together, `tool_timeout_s` each call of a tool. `continue_from` takes up a finished run with a new
    prompt, `resume_from` goes on with one that was cut off. `images` are paths below the journal folder that go with
    the prompt; with `sees=False` those of earlier prompts are named to the model, not shown.
    """

    _hidden: ClassVar[frozenset[str]] = frozenset({"mcp_servers", "mcp_server_url"})

    prompt: str
    model: str
    max_tokens: int = DEFAULT_MAX_OUTPUT_TOKENS
    max_turns: int = DEFAULT_MAX_TURNS
    max_tool_calls: int = DEFAULT_MAX_TOOL_CALLS
    max_total_tokens: int | None = None
    max_cost_usd: float | None = None
    thinking_budget: int | None = None
    timeout_s: float | None = None
    tool_timeout_s: float = DEFAULT_TOOL_TIMEOUT_S
    instruction: str | None = None
    extra_context: str | None = None
    mcp_server_url: str | None = None
    mcp_servers: Mapping[str, Any] = field(default_factory=dict)
    disable_mcp: bool = False
    tools: Collection[str] | None = None
    approve: Sequence[str] = ()
    approver: Approver | None = None
    make: Sequence[str] = ()
    make_env: Sequence[str] = ()
    agent_id: str | None = None
    persona: str = "default"
    continue_from: str | None = None
    resume_from: str | None = None
    context: str | None = None
    stream: bool = False
    images: Sequence[str] = ()
    sees: bool = True

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> RunConfig:
        """The known entries of `config`; None counts as left out.

        Raises:
            ValueError: `prompt` or `model` is missing, or a limit is not a number above 0.
        """
        for name in ("prompt", "model"):
            if not config.get(name):
                raise ValueError(f"Missing {name!r} in config")
            if not isinstance(config[name], str):
                raise ConfigError(name, repr(config[name])[:200], "text")
        for name in _LIMITS:
            limit = config.get(name)
            if limit is not None and (isinstance(limit, bool) or not isinstance(limit, (int, float)) or limit <= 0):
                raise ConfigError(name, repr(limit), "a number above 0")
        images = config.get("images") or ()
        if not isinstance(images, (list, tuple)) or not all(isinstance(name, str) for name in images):
            raise ConfigError("images", repr(images)[:200], "a list of paths below the journal folder")
        return cls(**{name: config[name] for name in cls.__struct_fields__ if config.get(name) is not None})

    @property
    def ledger_context(self) -> str:
        """The context under which the run's calls are logged: the given one, or that of its persona."""
        if self.context:
            return self.context
        owner, _, name = self.persona.rpartition(":")
        return agent_context(owner, name)

    @property
    def policy(self) -> ToolPolicy:
        """What of the servers' tools the run may use."""
        return ToolPolicy(self.tools, self.approve, self.approver)

    def servers(self) -> tuple[ToolServer, ...]:
        """The MCP servers of the run; none if tools are switched off or nothing is allowed.

        Raises:
            RuntimeError: tools are wanted and there is no server.
            ConfigError: an entry of `mcp_servers` is not usable.
        """
        if self.disable_mcp or (self.tools is not None and not self.tools):
            return ()
        named = servers_of(self.mcp_servers)
        if self.mcp_server_url:
            return (ToolServer("main", url=require_url(self.mcp_server_url)), *named)
        if not named:
            raise RuntimeError("MCP server URL not provided in config")
        return named


_LIMITS = (
    "max_tokens",
    "max_turns",
    "max_tool_calls",
    "max_total_tokens",
    "max_cost_usd",
    "timeout_s",
    "tool_timeout_s",
)
