"""Live tests: the fixture `live` skips where the provider's key is missing."""

from __future__ import annotations

import os

import pytest

from muse import providers
from tests.journal_folder import JournalFolder

pytest.register_assert_rewrite("tests.integration.live", "tests.integration.backend")

from tests.integration.live import Live  # noqa: E402 - only what is imported after that line shows its asserts


@pytest.fixture
def live(request: pytest.FixtureRequest, journal: JournalFolder) -> Live:
    """The provider that the test class names."""
    provider: str = request.cls.provider
    env_key = providers.specs()[provider].env_key
    if not os.environ.get(env_key):
        pytest.skip(f"needs {env_key}")
    return Live(provider, journal)
