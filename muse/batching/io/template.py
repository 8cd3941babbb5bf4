"""A text with `{field}` places that are filled from a row; it knows no file and no model.

A place is a name of letters, digits, '_', '-', '.' and blanks between braces. Other braces stand for themselves, so
that a template may show JSON; `{{name}}` gives `{name}`.
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
    """A template and the lines on which it names its fields; `name` is what messages call it."""

    def __init__(self, text: str, name: str = "template") -> None:
        self.text = text
        self.name = name
        self._lines: dict[str, int] = {}
        for found in _PLACE.finditer(text):
            field = found["field"]
            if field is not None and field not in self._lines:
                self._lines[field] = text.count("\n", 0, found.start()) + 1

    def require(self, fields: Mapping[str, Any], where: str) -> None:
        """See that a row has all fields that are named.

        Raises:
            ConfigError: it has not; the text says on which line which field is named, and which ones the row has.
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
        """The text with the values of a row: text as it is, nothing for None, all else as JSON."""
        return _PLACE.sub(
            lambda found: f"{{{found['kept']}}}" if found["kept"] else _said(fields[found["field"]]), self.text
        )


def _said(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, (str, bytes)):
        return stringify(value)
    return json.dumps(value, ensure_ascii=False, default=stringify)
