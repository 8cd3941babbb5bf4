"""Names that were renamed still work, and warn."""

from __future__ import annotations

from importlib import import_module

import pytest

from muse import models
from tests.journal_folder import run

RENAMED = [
    ("muse.models", "ladder_of", "fallback_chain"),
    ("muse.models", "hearing", "capture_replies"),
    ("muse.models", "prepare", "prepare_call"),
    ("muse.models", "standings", "limit_statuses"),
    ("muse.providers._base", "Spec", "ProviderSpec"),
]

QUIET = "import warnings; warnings.simplefilter('ignore'); "


@pytest.mark.parametrize(("module", "name", "now"), RENAMED)
def test_a_renamed_attribute_is_the_new_one_and_warns(module: str, name: str, now: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"{module}.{name} was renamed to"):
        assert getattr(import_module(module), name) is getattr(import_module(module), now)


def test_an_attribute_that_never_was_is_an_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        models.nothing  # noqa: B018


@pytest.mark.parametrize(
    "code",
    [
        "from muse.spec import Spec, Tier; print(Spec.__name__)",
        "from muse.messages import Results as Spec; print(Spec.__name__)",
        "from muse.run_files import control as Spec; print(Spec.__name__)",
        "import muse.run_files.control as Spec; print(Spec.__name__)",
        "from muse.batching.asker import Asker as Spec; print(Spec.__name__)",
    ],
)
def test_a_renamed_module_can_be_imported(code: str) -> None:
    now = {"ProviderSpec", "ToolResults", "muse.runs.control", "muse.run_files.control", "MuseActor"}
    assert run(QUIET + code).strip() in now
    with pytest.raises(AssertionError, match="was renamed to"):
        run(code)  # warnings are errors there


def test_a_renamed_module_leaves_the_new_one_as_it_is() -> None:
    code = "import muse.spec, muse.types.provider_spec as now; print(now.__spec__.name, now.__name__)"
    assert run(QUIET + code).split() == ["muse.types.provider_spec"] * 2
