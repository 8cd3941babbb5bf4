"""OpenAI's Responses API for real: needs OPENAI_API_KEY, costs a few cents at most (`make test-integration`)."""

from __future__ import annotations

from tests.integration.backend import Backend


class TestOpenAI(Backend):
    """The Responses API."""

    provider = "openai"
    wrong_key = "sk-not-a-key-0123456789abcdefghijk"
    wrong_model = "gpt-of-nowhere"
