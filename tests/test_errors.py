"""The error tree as it is drawn: who is a kind of whom, and what each text says."""

from __future__ import annotations

import inspect
import re

import pytest

from muse import errors
from muse.errors import (
    ConfigError,
    ContentsError,
    DeadlineExceeded,
    LimitError,
    MissingKeyError,
    MuseError,
    ProviderError,
    ReplyError,
    TruncatedReply,
    UnknownProviderError,
)

CLASSES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_error_is_a_muse_error_and_stands_in_the_drawn_tree(kind: type[Exception]) -> None:
    assert issubclass(kind, MuseError)
    assert re.search(rf"\b{kind.__name__}\b", errors.__doc__ or "")


@pytest.mark.parametrize("kind", [ConfigError, ContentsError, ReplyError, UnknownProviderError, MissingKeyError])
def test_what_callers_caught_as_value_error_still_is_one(kind: type[Exception]) -> None:
    assert issubclass(kind, ValueError)


def test_a_deadline_is_a_timeout_too() -> None:
    assert issubclass(DeadlineExceeded, TimeoutError)
    assert issubclass(DeadlineExceeded, LimitError)


def test_a_config_error_says_where_what_was_found_and_what_is_allowed() -> None:
    error = ConfigError("providers.contexts['agent.*'].tier", "'flash'", "1, 2 or 3")
    assert str(error) == "providers.contexts['agent.*'].tier: found 'flash', expected 1, 2 or 3"
    assert (error.path, error.found, error.allowed) == (
        "providers.contexts['agent.*'].tier",
        "'flash'",
        "1, 2 or 3",
    )


def test_an_unknown_provider_error_names_the_valid_ones_in_order() -> None:
    error = UnknownProviderError("gogle", ["openai", "google"], path="providers.default")
    assert str(error).startswith("Unknown provider: 'gogle'. Valid providers: google, openai")
    assert "providers.default" in str(error)


def test_a_missing_key_error_names_the_variable_and_where_to_set_it() -> None:
    text = str(MissingKeyError("OPENAI_API_KEY"))
    assert text.startswith("OPENAI_API_KEY not found in environment")
    assert ".env" in text


def test_a_provider_error_reads_as_who_what_and_message() -> None:
    error = ProviderError("Slow down", provider="openai", model="gpt", status=429, code="rate", retry_after_s=2.0)
    assert str(error) == "openai gpt: 429 rate: Slow down"
    assert (error.status, error.code, error.retryable, error.retry_after_s) == (429, "rate", False, 2.0)


def test_a_provider_error_without_details_is_its_message() -> None:
    assert str(ProviderError("No answer")) == "No answer"


def test_a_truncated_reply_keeps_the_partial_text() -> None:
    error = TruncatedReply("cut off", text="Once upon", provider="google", model="gemini")
    assert (error.text, error.provider, error.model) == ("Once upon", "google", "gemini")
