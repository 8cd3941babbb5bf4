"""Rules of the code, checked by reading it: deferred imports, imports by computed names, sizes."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tests.journal_folder import ROOT, run

PACKAGES = ("muse", "think", "observe", "apps")

# Imports that wait until they are used: (module or package, what it imports inside a function, why).
LATE: Sequence[tuple[str, str, str]] = (
    ("muse.calls.execute", "muse.calls.hedging", "it brings asyncio, and only who hedges pays its 20 ms"),
    ("muse.policies.retry", "random", "1 ms, and only who tries again pays it"),
    ("muse.providers._replies.tool_calls", "random", "1 ms, and only an id that does not fit pays it"),
    ("muse.providers._backend.backend", "muse.agent_loop.loop", "6 ms, and only who runs agents pays it"),
    ("muse.models", "muse.types.json_schema.patterns", "1 ms, and only who asks for objects pays it"),
    ("muse.types.structured_output", "muse.types.json_text", "1 ms, and only who asks for objects pays it"),
    (
        "muse.types.structured_output",
        "muse.types.json_schema.validation",
        "1 ms, and only who asks for objects pays it",
    ),
    (
        "muse.providers._backend.fitting",
        "muse.types.json_schema.tool_parameters",
        "1 ms, and only a request with tools pays it",
    ),
    ("muse.providers._backend.fitting", "hashlib", "3 ms, and only a tool's name that does not fit pays it"),
    (
        "muse.diagnostics.check",
        "muse.providers._http.proxies",
        "20 ms: urllib.request brings http.client, and only a check needs it",
    ),
    ("muse.usage_log.prices", "genai_prices", "0.1 s, and only a model's first look-up of the day pays it"),
    ("muse.journal.storage.sqlite", "sqlite3", "5 ms, and only who keeps something pays it"),
    ("muse.policies.shared_state", "sqlite3", "5 ms, and only who has a limit or a failing provider pays it"),
    ("muse.policies.cache", "sqlite3", "5 ms, and only who keeps answers pays it"),
    ("muse.policies.pipeline", "muse.policies.cache", "3 ms, and only who keeps answers pays it"),
    ("muse.policies.pipeline", "muse.policies.budget", "5 ms, and only who sets limits or budgets pays it"),
    ("muse.models", "muse.policies.usage_status", "5 ms, and only who asks what is left pays it"),
    ("muse.policies.pipeline", "muse.policies.rate_limiter", "5 ms, and only who sets limits pays it"),
    ("muse.policies.rate_limit_headers", "email", "8 ms, and only a response that names a date pays it"),
    ("muse.types.exif_orientation", "PIL", "30 ms, and only a picture with metadata pays it"),
    ("muse.journal.secrets", "dotenv", "7 ms, and only who has a .env file pays it"),
    ("muse.agent_loop.mcp_client", "mcp", "0.4 s, and only who uses tools pays it"),
    ("muse.agent_loop.mcp_channels", "mcp", "0.4 s, and only who uses tools pays it"),
    ("muse.agents", "muse.agent_loop.tool_descriptions", "40 ms, and only a run that may use tools pays it"),
    ("muse.agents", "muse.mcp", "0.4 s, and only a run that calls a tool pays it"),
    ("muse.agents", "muse.agent_loop.make_tools", "it brings mcp, and only a persona with make targets pays it"),
    ("muse.diagnostics.check", "muse.agent_loop.tool_registry", "0.1 s, and only a whole look pays it"),
    ("muse.types.json_schema.patterns", "urllib.parse", "4 ms, and only who has a schema with references pays it"),
    ("muse.types.json_schema.patterns", "subprocess", "4 ms, and only who has a pattern that may take long pays it"),
    ("muse.types.json_schema.validation", "jsonschema", "50 ms, and only who checks an object pays it"),
    ("muse.types.json_schema.validation", "referencing", "comes with jsonschema"),
    ("muse.journal.entry_points", "importlib", "15 ms, and only who looks for packages pays it"),
    ("muse.journal.lenient_parser", "difflib", "3 ms, and only who misspells something pays it"),
    ("muse.providers.openai", "muse.providers._batch.openai", "it brings asyncio, and only batch services need it"),
    ("muse.providers.anthropic", "muse.providers._batch.anthropic", "as openai's"),
    ("muse.providers.google", "muse.providers._batch.google", "as openai's"),
    ("muse.providers.local", "muse.providers._local.engine", "4 ms, and only who asks the embedded model pays it"),
    (
        "muse.providers.local",
        "muse.providers._local.tool_planner.planner",
        "4 ms, and only tools on the embedded model need it",
    ),
    ("muse.providers._local.server", "xllamacpp", "the engine, loaded in its own process"),
    ("muse.cli", "muse.cli._docs.summary", "only the help of commands from outside reads them"),
    ("muse.cli._terminal.terminal", "rich", "60 ms, and only a terminal draws"),
    ("muse.cli._terminal.run_view", "rich", "60 ms, and only a terminal draws"),
    ("muse.cli.run", "muse.cli.agent", "only who resumes a run pays for what runs agents"),
    ("observe.screens.video", "av", "an extra of its own, and only who has videos needs it"),
    ("muse.cli._terminal.progress", "rich", "60 ms, and only a terminal draws"),
    ("muse.batching.progress_bar", "rich", "60 ms, and only a terminal draws"),
    ("muse.batching.io.parquet", "pyarrow", "0.2 s, and only who has Parquet files pays it"),
    ("muse.batching.ray.cluster", "ray", "0.5 s, and only who asks for it pays it"),
    ("muse.batching.engine", "muse.batching.ray.engine", "only who asks for Ray needs it"),
    ("muse.batching.ray.actor", "pyarrow", "comes with ray.data, and only its pipelines need it"),
    ("muse.cli.local", "rich", "60 ms, and only a progress bar needs it"),
    ("muse.cli.local", "muse.terminal.console", "it brings rich"),
    ("muse.cli", "muse.cli._terminal.consent", "30 ms for the providers, and only a command that calls models pays it"),
    ("muse.journal.trust.consent", "hashlib", "2 ms, and only who has something to consent to pays it"),
    ("muse.cli._terminal.terminal", "muse.terminal.console", "it brings rich"),
    ("muse.cli._terminal.run_view", "muse.terminal.console", "it brings rich"),
    ("muse.cli._terminal.progress", "muse.terminal.console", "it brings rich"),
    ("muse.batching.progress_bar", "muse.terminal.console", "it brings rich"),
    ("muse.providers._http", "httpx2", "60 ms, and only who makes a client pays it"),
    ("muse.providers._http", "muse.providers._http.transport", "it brings httpx2"),
    ("muse.terminal.console", "rich", "20 ms, and only a progress bar needs it"),
)
# Modules that may import by a name they compute: registries of providers, commands and tools, SDKs behind providers.
BY_NAME = {
    "muse.providers",
    "muse.providers._sdk_base",
    "muse.types.deprecation",
    "muse.providers._local.engine",
    "muse.providers.google",
    "muse.cli",
    "muse.agent_loop.tool_registry",
    "apps.host.discovery",
}
VENDORS = ("openai", "anthropic", "google", "xllamacpp", "aiohttp")
SLOW = {*VENDORS, "google.genai", "mcp", "asyncio", "httpx", "httpx2", "pydantic", "genai_prices", "rich", "PIL"}
SLOW |= {"jsonschema", "dotenv", "logging.config", "http.client", "ssl", "email"}

MOST_FUNCTION_LINES = 60
MOST_FILE_LINES = 600


class Import(NamedTuple):
    """One import: by whom, of what, on which line, in which function (None: on top), and whether that is `async`."""

    importer: str
    target: str
    line: int
    function: str | None
    is_async: bool


@cache
def files() -> dict[str, Path]:
    """Every module of the house and its file."""
    found: dict[str, Path] = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(files()[module].read_text(encoding="utf-8"))


@cache
def imports() -> tuple[Import, ...]:
    """All imports of the house, those under TYPE_CHECKING and in functions included."""
    return tuple(found for module in files() for found in _walk(module, tree(module), None, is_async=False))


def _walk(module: str, node: ast.AST, function: str | None, *, is_async: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from _walk(module, child, child.name, is_async=isinstance(child, ast.AsyncFunctionDef))
        elif isinstance(child, (ast.Import, ast.ImportFrom)):
            for target in _targets(module, child):
                yield Import(module, target, child.lineno, function, is_async)
        else:
            yield from _walk(module, child, function, is_async=is_async)


def _targets(module: str, node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    """What is imported: the submodule, where a package's submodule is named, else the module."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    assert not node.level, f"{module} line {node.lineno}: a relative import"
    for alias in node.names:
        name = f"{node.module}.{alias.name}"
        yield name if name in files() else str(node.module)


def ours(target: str) -> bool:
    return target.partition(".")[0] in PACKAGES


def test_provider_files_do_not_know_each_other() -> None:
    names = {f"muse.providers.{path.stem}" for path in (ROOT / "muse" / "providers").glob("[a-z]*.py")}
    assert [one for one in imports() if one.importer in names and one.target in names] == []


def _is_late(one: Import) -> bool:
    return one.function is not None and any(
        one.importer == module and f"{one.target}.".startswith(f"{wanted}.") for module, wanted, _ in LATE
    )


def test_what_is_imported_inside_a_function_is_on_the_list() -> None:
    wrong = [
        f"{one.importer}.{one.function} line {one.line} imports {one.target}"
        for one in imports()
        if one.function is not None and not _is_late(one) and not (one.target == "asyncio" and one.is_async)
    ]
    assert wrong == []


def test_the_list_of_late_imports_has_no_idle_row() -> None:
    late = [one for one in imports() if one.function is not None]
    idle = [row for row in LATE if not any(one.importer == row[0] and one.target.startswith(row[1]) for one in late)]
    assert idle == []


def test_only_registries_import_by_a_computed_name() -> None:
    callers = {
        module
        for module in files()
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Call)
        and (node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", ""))
        in {"import_module", "__import__"}
    }
    assert callers == BY_NAME & set(files())


def test_no_vendor_is_imported_by_its_name_on_top() -> None:
    wrong = [one for one in imports() if one.function is None and one.target.partition(".")[0] in VENDORS]
    assert wrong == []


def test_functions_are_short() -> None:
    long = [
        f"{module} line {node.lineno}: {node.name} has {length} lines"
        for module in files()
        for node in ast.walk(tree(module))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        if (length := _length(node)) > MOST_FUNCTION_LINES
    ]
    assert long == []


def _length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The lines of a function from `def` on, its docstring not counted."""
    first = node.body[0]
    has_docstring = ast.get_docstring(node, clean=False) is not None
    docstring = (first.end_lineno or first.lineno) - first.lineno + 1 if has_docstring else 0
    return (node.end_lineno or node.lineno) - node.lineno + 1 - docstring


def test_files_are_short_and_say_what_they_are() -> None:
    lengths = {module: len(path.read_text(encoding="utf-8").splitlines()) for module, path in files().items()}
    assert {module: lines for module, lines in lengths.items() if lines > MOST_FILE_LINES} == {}
    assert [module for module in files() if not ast.get_docstring(tree(module))] == []


def test_every_test_file_is_short_too() -> None:
    lengths = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in (ROOT / "tests").glob("*.py")}
    assert {name: lines for name, lines in lengths.items() if lines > MOST_FILE_LINES} == {}


def test_importing_the_front_desk_loads_nothing_slow() -> None:
    code = "import sys, muse.models\nprint(*sorted(sys.modules))"
    loaded = set(run(code, COVERAGE_PROCESS_CONFIG="", COVERAGE_PROCESS_START="").split())
    assert "muse.models" in loaded
    assert loaded & SLOW == set()


WITHOUT_VENDORS = """
import importlib, sys

class Nowhere:
    def find_spec(self, name, path=None, target=None):
        if name in BLOCKED or name.startswith(tuple(f"{root}." for root in BLOCKED)):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None

BLOCKED = sys.argv[1].split(",")
sys.meta_path.insert(0, Nowhere())
for name in sys.argv[2].split(","):
    importlib.import_module(name)
from muse import errors
from muse.usage_log import ledger
from muse import models, testing
assert models.resolve_provider("insight.daily")[0] == "google"
with testing.script("Low water at six."):
    assert models.generate("When?", "app.tides", model="echo-1") == "Low water at six."
assert [line["model"] for line in ledger.read()] == ["echo-1"]
assert models.calc_token_cost({"model": "gpt-4o", "usage": {"input_tokens": 10}})["total_cost"] > 0
for model in ("gpt-4o", "claude-x", "gemini-x"):
    try:
        models.generate("Hello", "app.tides", model=model, api_key="key-123456")
    except errors.ConfigError as exc:
        print(exc)
"""


def test_the_core_runs_without_any_vendors_sdk(tmp_path: Path) -> None:
    core = [name for name in files() if name.startswith("muse") and name not in {"muse.__main__"}]
    said = run(WITHOUT_VENDORS, ",".join(VENDORS), ",".join(core), JOURNAL_PATH=str(tmp_path)).splitlines()
    assert len(said) == 3
    for extra, text in zip(("openai", "anthropic", "google"), said, strict=True):
        assert f"muse-router[{extra}]" in text
