"""Anthropic's Messages API for real: needs ANTHROPIC_API_KEY, costs a few cents at most (`make test-integration`)."""

from __future__ import annotations

from tests.integration.backend import Backend


class TestAnthropic(Backend):
    """The Messages API."""

    provider = "anthropic"
    wrong_key = "sk-ant-not-a-key-0123456789abcdefghijk"
    wrong_model = "claude-of-nowhere"
