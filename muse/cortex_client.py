"""Requests for agent runs and their state, as the seed names the module; `muse.runs.client` defines them."""

from muse.runs.client import (
    cortex_agents,
    cortex_request,
    get_agent_end_state,
    get_agent_status,
    get_agent_thread,
    read_agent_events,
)

__all__ = [
    "cortex_agents",
    "cortex_request",
    "get_agent_end_state",
    "get_agent_status",
    "get_agent_thread",
    "read_agent_events",
]
