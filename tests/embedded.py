"""The embedded model's real weights, the mark of the tests that need them and the engine, and the engine's end."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from muse.providers._local import process
from muse.providers._local.engine import Engine
from muse.providers._local.weights import WeightsMissing, find_weights


def _weights() -> Path | None:
    try:
        return find_weights(None).path
    except WeightsMissing:
        return None


WEIGHTS = _weights()
needs_model = pytest.mark.skipif(
    WEIGHTS is None or importlib.util.find_spec(process.PACKAGE) is None,
    reason="needs xllamacpp and the weights: muse local fetch",
)


@pytest.fixture(scope="module", name="engine_of_this_file")
def _engine_of_this_file() -> Iterator[None]:
    """Stop the engine that the tests of a file started."""
    yield
    if WEIGHTS is not None:
        Engine.shared(WEIGHTS).stop()
