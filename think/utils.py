"""The face that the seed names: what feature code takes from here stands in muse; nothing of its own."""

from __future__ import annotations

import argparse
import copy
import logging
import sys
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from muse.agent_loop.mcp_client import open_client, require_url
from muse.journal import config_loader, paths, prompts
from muse.journal.paths import day_path
from muse.journal.personas import get_agent, get_agents
from muse.journal.prompts import Prompt, identity_fields
from muse.journal.secrets import fill_from
from muse.journal.storage import atomic_files
from muse.terminal.text import log_to_stderr

__all__ = [
    "create_mcp_client",
    "day_path",
    "get_agent",
    "get_agents",
    "get_config",
    "get_journal",
    "load_prompt",
    "setup_cli",
]


def create_mcp_client(url: str) -> AbstractAsyncContextManager[Any]:
    """An MCP client for the server at `url`, as an async context manager; its `.session` lists and calls tools.

    Raises:
        RuntimeError: `url` is missing or blank.
    """
    require_url(url)
    return open_client(url)


def get_journal() -> str:
    """The journal folder, made if it is missing."""
    path = paths.journal_path()
    atomic_files.make_folder(path)
    return str(path)


def get_config() -> dict[str, Any]:
    """What journal.json says, as a dict of the caller's own; `identity` always has all its fields.

    A missing file is an empty one.
    """
    data = config_loader.load().data
    given = data.get("identity")
    identity = given if isinstance(given, Mapping) else {}
    return copy.deepcopy({**data, "identity": {**_NO_ONE, **identity}})


_NO_ONE: Mapping[str, Any] = {
    "name": "",
    "preferred": "",
    "bio": "",
    "pronouns": {},
    "aliases": [],
    "email_addresses": [],
    "timezone": "",
}


def load_prompt(name: str, base_dir: str | Path | None = None, context: Mapping[str, Any] | None = None) -> Prompt:
    """The prompt `<name>.txt`, beside the caller's file if `base_dir` is None, with the identity filled in.

    `context` adds fields of the caller's own.

    Raises:
        FileNotFoundError: there is no such file.
        ConfigError: the text has a field that is neither the identity's nor in `context`.
    """
    folder = base_dir or Path(str(sys._getframe(1).f_globals.get("__file__", "."))).parent
    fields = identity_fields(config_loader.load().config.identity) | dict(context or {})
    return prompts.load_prompt(name, folder, fields)


def setup_cli(parser: argparse.ArgumentParser, parse_known: bool = False) -> Any:
    """Add `-v/--verbose` and `-d/--debug`, parse, set logging up, and fill the environment from journal.json's `env`.

    A number or a boolean there is put in as text. Returns the namespace, or `(namespace, rest)` with `parse_known`.
    """
    parser.add_argument("-v", "--verbose", action="store_true", help="say more of what happens")
    parser.add_argument("-d", "--debug", action="store_true", help="say everything, with traces of errors")
    args, rest = parser.parse_known_args() if parse_known else (parser.parse_args(), [])
    level = logging.DEBUG if args.debug else logging.INFO if args.verbose else logging.WARNING
    log_to_stderr(logging.BASIC_FORMAT, level)
    found = config_loader.load()
    own = found.data.get("env")
    said = own if isinstance(own, Mapping) else {}
    numbers = {name: str(said[name]) for name in found.config.env if isinstance(said.get(name), (int, float))}
    fill_from(replace(found.config, env={**found.config.env, **numbers}))
    return (args, rest) if parse_known else args
