"""A Markdown file's front matter, `---` lines around YAML, apart from its body; it knows no field."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from muse.errors import ConfigError

_FRONT = re.compile(r"\A\ufeff?---[ \t]*\r?\n(?P<fields>.*?)^---[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)


class _Loader(yaml.SafeLoader):
    """YAML's plain values; a reference to another node, by which a small file becomes a huge value, is refused."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """A node of the document.

        Raises:
            yaml.YAMLError: it is a reference.
        """
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="references (*name) are not taken", problem_mark=mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """The fields of an object.

        Raises:
            yaml.YAMLError: two have one name.
        """
        found = super().construct_mapping(node, deep=deep)
        if len(found) < len(node.value):
            names = [key.value for key, _ in node.value]
            twice = next((name for name in names if names.count(name) > 1), "a field")
            raise yaml.MarkedYAMLError(problem=f"{twice} stands there twice", problem_mark=node.start_mark)
        return found


def split(text: str, *, where: str) -> tuple[Mapping[str, Any], str]:
    """`(fields, body)` of a text that begins with front matter.

    Raises:
        ConfigError: there is none, or it is no YAML object; the text names `where` and the line.
    """
    front = _FRONT.match(text)
    if front is None:
        raise ConfigError(where, "no front matter", "a first line ---, fields as `name: value`, and another line ---")
    try:
        fields = yaml.load(front["fields"], Loader=_Loader)  # noqa: S506 - a SafeLoader, narrowed
    except yaml.MarkedYAMLError as exc:
        line = exc.problem_mark.line + 2 if exc.problem_mark else 1  # the lines before it: --- and counting from 0
        raise ConfigError(f"{where}:{line}", f"no YAML ({exc.problem})", "fields as `name: value`") from exc
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        raise ConfigError(where, f"no YAML ({exc})", "fields as `name: value`") from exc
    if not isinstance(fields, Mapping):
        raise ConfigError(where, f"front matter that is a {type(fields).__name__}", "fields as `name: value`")
    for name in fields:
        if not isinstance(name, str):
            raise ConfigError(where, f"{name!r} as the name of a field", "names that are text")
    return fields, text[front.end() :]


def find(text: str) -> tuple[str, int]:
    """`(the lines of the front matter, where the body begins)`; `("", 0)` for a text that has none."""
    front = _FRONT.match(text)
    return (front["fields"], front.end()) if front else ("", 0)


def body_of(text: str) -> str:
    """The text without its front matter, if it has any."""
    return text[find(text)[1] :]


def join(fields: Mapping[str, str], body: str) -> str:
    """A page: front matter of fields that are one line of YAML each, then the body."""
    return "\n".join(("---", *(f"{name}: {value}" for name, value in fields.items()), "---", body))
