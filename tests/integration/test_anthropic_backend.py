"""Anthropic's Messages API for real: needs ANTHROPIC_API_KEY, costs a few cents at most (`make test-integration`)."""

from __future__ import annotations

import pytest

from muse import models
from muse.errors import AuthError, NotFoundError
from tests.integration.live import CONTEXT, Live

PROVIDER = "anthropic"
pytestmark = pytest.mark.live


def test_text(live: Live) -> None:
    live.expect_text()


async def test_async_text(live: Live) -> None:
    await live.expect_async_text()


def test_history_and_system_text(live: Live) -> None:
    live.expect_history()


def test_pictures(live: Live) -> None:
    live.expect_image()


def test_a_schema(live: Live) -> None:
    live.expect_schema()


def test_json(live: Live) -> None:
    live.expect_json()


def test_thinking(live: Live) -> None:
    live.expect_thinking()


def test_a_stream(live: Live) -> None:
    live.expect_stream()


async def test_an_agent_run(live: Live) -> None:
    await live.expect_agent_run()


def test_a_wrong_key_is_an_auth_error_without_the_key(live: Live) -> None:
    wrong = "sk-ant-not-a-key-0123456789abcdefghijk"
    with pytest.raises(AuthError) as caught:
        models.generate("Hello", CONTEXT, api_key=wrong)
    assert wrong not in str(caught.value)


def test_an_unknown_model_is_not_found(live: Live) -> None:
    with pytest.raises(NotFoundError):
        models.generate("Hello", CONTEXT, model="claude-of-nowhere")
