"""Static search for the contexts that Python code passes to model calls. Entry points: `scan`, `sites_in`.

The code is parsed, never imported.
"""

from __future__ import annotations

import ast
import os
import threading
import warnings
from collections.abc import Iterator, Mapping
from glob import escape
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from muse.journal.lenient_parser import Problem

# Functions that take a context as a keyword or as the second positional argument.
_BY_PLACE = frozenset(
    {"generate", "agenerate", "reply", "areply", "stream", "astream", "generate_object", "agenerate_object"}
    | {"BatchRequest"}
)
_BY_KEYWORD = _BY_PLACE | {"create"}
_PASSED_OVER = frozenset({"__pycache__", "node_modules", "site-packages"})
_MOST_FILES = 10_000


class CallSite(Struct, frozen=True):
    """A context in the code: a name, or a glob if a part of the text is known only at run time.

    Attributes:
        path: The file.
        line: The line.
        context: The context or glob.
        is_glob: True if `context` is a glob.
        function: The name of the function that is called.
        keywords: The names of the call's keyword arguments.
        is_open: True for a call of `muse.models` whose context cannot be determined; `context` is "" then.
    """

    path: str
    line: int
    context: str
    is_glob: bool = False
    function: str = ""
    keywords: tuple[str, ...] = ()
    is_open: bool = False


def scan(folders: list[Path]) -> tuple[list[CallSite], list[Problem], int]:
    """Return the call sites, the unreadable files and the number of all `.py` files in `folders`.

    Call sites are sorted by path and line. Hidden folders, virtual environments and installed packages inside the
    folders are skipped. A folder may be a single file.
    """
    sites: list[CallSite] = []
    problems: list[Problem] = []
    count = 0
    for path in sorted({file for folder in folders for file in _files(folder)}):
        count += 1
        try:
            sites += _sites_of(path)
        except (OSError, SyntaxError, ValueError, RecursionError) as exc:
            line = f":{exc.lineno}" if isinstance(exc, SyntaxError) and exc.lineno else ""
            problems.append(Problem(f"{path}{line}", f"code that cannot be read ({exc})", "a Python file"))
    return sites, problems, count


def sites_in(tree: ast.AST, path: str) -> list[CallSite]:
    """Return the contexts that the calls of a syntax tree name, in order of their lines."""
    constants = _constants(tree)
    found = [
        _with_call(site, node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        for argument in _context_arguments(node)
        if (site := _site(argument, constants, path)) is not None
    ]
    read_off = {(site.line, site.keywords) for site in found}
    found += (site for site in _open_calls(tree, path) if (site.line, site.keywords) not in read_off)
    found += _named_contexts(tree, path)
    return sorted(found, key=lambda site: (site.line, site.context))


def _open_calls(tree: ast.AST, path: str) -> Iterator[CallSite]:
    """Yield the calls of functions that come from `muse.models`, whatever their context is."""
    modules, functions = {"muse.models"}, set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "muse.models":
            functions |= {alias.asname or alias.name for alias in node.names if alias.name in _BY_PLACE}
        elif isinstance(node, ast.ImportFrom) and node.module == "muse":
            modules |= {alias.asname or alias.name for alias in node.names if alias.name == "models"}
        elif isinstance(node, ast.Import):
            modules |= {alias.asname for alias in node.names if alias.name == "muse.models" and alias.asname}
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id=name)) if name in functions:
                yield _with_call(CallSite(path, node.lineno, "", is_open=True), node)
            case ast.Call(func=ast.Attribute(value=value, attr=name)) if name in _BY_PLACE:
                if ast.unparse(value) in modules:
                    yield _with_call(CallSite(path, node.lineno, "", is_open=True), node)
            case _:
                pass


def _with_call(site: CallSite, call: ast.Call) -> CallSite:
    """Return the site with the name and keywords of its call."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    keywords = tuple(keyword.arg for keyword in call.keywords if keyword.arg is not None)
    return replace(site, function=name, keywords=keywords)


def _named_contexts(tree: ast.AST, path: str) -> Iterator[CallSite]:
    """Yield contexts that a module assigns to a constant: `CONTEXT = "..."`, `TITLE_CONTEXT = "..."`."""
    for node in tree.body if isinstance(tree, ast.Module) else ():
        for name in _bound_names(node):
            value = node.value if isinstance(node, (ast.Assign, ast.AnnAssign)) else None
            if name.endswith("CONTEXT") and isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield CallSite(path, node.lineno, value.value)


_kept: dict[str, tuple[tuple[int, int, int], tuple[CallSite, ...]]] = {}
# Neither `ast.parse` (before Python 3.12) nor `catch_warnings` is thread-safe.
_lock = threading.Lock()


def _sites_of(path: Path) -> tuple[CallSite, ...]:
    """Return the call sites of one file, cached while the file is unchanged."""
    info = os.stat(path)
    stamp = (info.st_ino, info.st_mtime_ns, info.st_size)
    kept = _kept.get(str(path))
    if kept is not None and kept[0] == stamp:
        return kept[1]
    with _lock:
        found = tuple(sites_in(_parse(path), str(path)))
        if len(_kept) >= _MOST_FILES:
            _kept.clear()
        _kept[str(path)] = (stamp, found)
    return found


def _parse(path: Path) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SyntaxWarnings are for the code's author
        return ast.parse(path.read_bytes(), filename=str(path))


def _files(folder: Path) -> Iterator[Path]:
    if folder.is_file():
        yield folder
        return
    for place, folders, files in os.walk(folder):
        folders[:] = [
            name
            for name in folders
            if name not in _PASSED_OVER
            and not name.startswith(".")
            and not os.path.isfile(os.path.join(place, name, "pyvenv.cfg"))
        ]
        yield from (Path(place, name) for name in files if name.endswith(".py"))


def _context_arguments(call: ast.Call) -> Iterator[ast.expr]:
    match call.func:
        case ast.Attribute(attr=name) | ast.Name(id=name) if name in _BY_KEYWORD:
            pass
        case _:
            return
    yield from (keyword.value for keyword in call.keywords if keyword.arg == "context")
    if name in _BY_PLACE and len(call.args) > 1 and not any(isinstance(arg, ast.Starred) for arg in call.args[:2]):
        yield call.args[1]


def _site(node: ast.expr, constants: Mapping[str, str], path: str) -> CallSite | None:
    """Return the context that an argument names; None if it is not text that can be determined."""
    if isinstance(node, ast.Name) and node.id in constants:
        return CallSite(path, node.lineno, constants[node.id])
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return CallSite(path, node.lineno, node.value)
    if isinstance(node, ast.JoinedStr):
        pattern = "".join(_piece(part, constants) for part in node.values)
        return CallSite(path, node.lineno, pattern, is_glob=True)
    return None


def _piece(part: ast.expr, constants: Mapping[str, str]) -> str:
    """Return one part of an f-string as a piece of a glob."""
    if isinstance(part, ast.Constant):
        return escape(str(part.value))
    inner = part.value if isinstance(part, ast.FormattedValue) else part
    if isinstance(inner, ast.Name) and inner.id in constants:
        return escape(constants[inner.id])
    return "*"


def _constants(tree: ast.AST) -> Mapping[str, str]:
    """Return the module-level names that are bound exactly once, to plain text."""
    bound: dict[str, str | None] = {}
    for node in tree.body if isinstance(tree, ast.Module) else ():
        for name in _bound_names(node):
            value = node.value if isinstance(node, (ast.Assign, ast.AnnAssign)) else None
            text = value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else None
            bound[name] = None if name in bound else text
    return {name: text for name, text in bound.items() if text is not None}


def _bound_names(node: ast.stmt) -> Iterator[str]:
    match node:
        case ast.Assign(targets=targets):
            yield from (target.id for target in targets if isinstance(target, ast.Name))
        case ast.AnnAssign(target=ast.Name(id=name)):
            yield name
        case _:
            pass
