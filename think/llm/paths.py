"""Where the texts stand that models are sent; it reads none."""

from __future__ import annotations

from pathlib import Path

_THINK = Path(__file__).parents[1]
TOPICS = _THINK / "insights"
"""The topics that come with muse, and the prompts of the built-in one."""
PROMPTS = _THINK / "prompts"
"""Prompts that serve several topics, and the planner's."""
