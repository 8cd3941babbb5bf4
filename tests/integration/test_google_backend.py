"""The Gemini API for real: needs GOOGLE_API_KEY, costs a few cents at most (`make test-integration`)."""

from __future__ import annotations

from tests.integration.backend import Backend


class TestGoogle(Backend):
    """The Gemini API."""

    provider = "google"
    wrong_key = "AIzaSyA-not-a-key-0123456789abcdefghijk"
    wrong_model = "gemini-of-nowhere"
