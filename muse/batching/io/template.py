"""Text templates with `{field}` placeholders that are filled from a row. Entry point: `Template`.

A placeholder is a name of letters, digits, '_', '-', '.' and spaces between braces. Other braces are literal, so that a
template may show JSON; `{{name}}` gives `{name}`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from muse.batching.io.cells import stringify
from muse.types.errors import ConfigError

_PLACE = re.compile(r"\{\{(?P<kept>\w[\w .-]*)\}\}|\{(?P<field>\w[\w .-]*)\}")


class Template:
    """A template and the line on which each field first appears; `name` is its name in messages."""

    def __init__(self, text: str, name: str = "template") -> None:
        self.text = text
        self.name = name
        self._lines: dict[str, int] = {}
        for found in _PLACE.finditer(text):
            field = found["field"]
            if field is not None and field not in self._lines:
                self._lines[field] = text.count("\n", 0, found.start()) + 1

    def require(self, fields: Mapping[str, Any], where: str) -> None:
        """Raise if a row lacks a field of the template.

        Raises:
            ConfigError: A field is missing; the message has its line and the fields that the row has.
        """
        for field, line in self._lines.items():
            if field not in fields:
                raise ConfigError(
                    f"{self.name} line {line}",
                    f"{{{field}}}, a field that {where} does not have",
                    f"one of {', '.join(map(str, fields)) or 'none: the row is empty'}"
                    f" ({{{{{field}}}}} for the braces themselves)",
                )

    def fill(self, fields: Mapping[str, Any]) -> str:
        """Return the text with the values of a row: text unchanged, an empty string for None, all else as JSON."""
        return _PLACE.sub(
            lambda found: f"{{{found['kept']}}}" if found["kept"] else _said(fields[found["field"]]), self.text
        )


def _said(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, (str, bytes)):
        return stringify(value)
    return json.dumps(value, ensure_ascii=False, default=stringify)
