"""The categories of screens, out of their JSON and text files; it knows no picture and asks nothing.

The files stand in `observe/categories` and in the folders that journal.json names under `descriptors.categories`.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from msgspec import Struct

from muse.errors import ConfigError
from muse.journal import config_loader, descriptors
from muse.journal.descriptors import Descriptor
from muse.journal.lenient_parser import Problem
from muse.journal.prompts import identity_fields, load_prompt
from muse.routing.contexts import category_context

log = logging.getLogger(__name__)

Output = Literal["markdown", "json"]
Importance = Literal["high", "normal", "low", "ignore"]


class Category(Struct, frozen=True):
    """A kind of screen: what it is (`description`), and how and when more is read off it.

    `prompt` is "" where there is no text file: its frames are told apart, and nothing is read off them.
    """

    name: str
    description: str
    context: str
    output: Output = "markdown"
    importance: Importance = "normal"
    extraction: str = ""
    prompt: str = ""
    data: Mapping[str, Any] = {}

    @property
    def metadata(self) -> dict[str, Any]:
        """All that its file says, with `output`, `importance`, `context` and `prompt` filled in."""
        filled = {"output": self.output, "importance": self.importance, "extraction": self.extraction}
        return {**self.data, **filled, "context": self.context, "prompt": self.prompt}

    @property
    def mark(self) -> str:
        """A hash of what an extraction depends on."""
        return hashlib.sha256(f"{self.context}\n{self.output}\n{self.prompt}".encode()).hexdigest()[:16]


def find_categories() -> dict[str, Category]:
    """The categories as of now, by name; what is wrong with a file is a warning, and the others count.

    Raises:
        ConfigError: journal.json cannot be read.
    """
    snapshot = config_loader.load()
    further = snapshot.config.descriptors
    base = os.path.dirname(snapshot.path)
    found = [one for one in descriptors.find(further, base).descriptors if one.kind == "category"]
    fields = identity_fields(snapshot.config.identity)
    known: dict[str, Category] = {}
    for descriptor in found:
        category = _category(descriptor, fields)
        if isinstance(category, Problem):
            log.warning("%s; the category is left out", category)
        else:
            known[descriptor.name] = category
    for folder in {os.path.dirname(one.path) for one in found} | {str(Path(base, path)) for path in further.categories}:
        for path in _lone_texts(Path(folder)):
            log.warning("%s: found no %s.json beside it; the text is not used", path, path.stem)
    return dict(sorted(known.items()))


def listed(categories: Mapping[str, Category]) -> str:
    """The categories for a prompt: `- name: description`, in the order of the alphabet."""
    return "\n".join(f"- {name}: {categories[name].description}" for name in sorted(categories))


def _category(descriptor: Descriptor, fields: Mapping[str, str]) -> Category | Problem:
    data = descriptor.data
    description = data.get("description")
    if not isinstance(description, str) or not description.strip():
        return Problem(
            f"{descriptor.path}: description", repr(description), "a sentence that says what the screen shows"
        )
    try:
        prompt = load_prompt(descriptor.name, os.path.dirname(descriptor.path), fields).text
    except FileNotFoundError:
        prompt = ""
        log.warning("%s: found no %s.txt beside it: nothing is read off such frames", descriptor.path, descriptor.name)
    except ConfigError as exc:
        return Problem(exc.path, exc.found, exc.allowed)
    except (OSError, UnicodeDecodeError) as exc:
        return Problem(str(Path(descriptor.path).with_suffix(".txt")), f"an unreadable text ({exc})", "text in UTF-8")
    return Category(
        descriptor.name,
        " ".join(description.split()),
        category_context(descriptor.name),
        _one_of(descriptor, "output", "markdown", get_args(Output)),
        _one_of(descriptor, "importance", "normal", get_args(Importance)),
        str(data.get("extraction") or ""),
        prompt,
        data,
    )


def _one_of(descriptor: Descriptor, field: str, default: str, allowed: Sequence[str]) -> Any:
    """A field that has one of a few values; any other is a warning, and the default counts."""
    found = descriptor.data.get(field, default)
    if found in allowed:
        return found
    log.warning("%s", Problem(f"{descriptor.path}: {field}", repr(found), f"{', '.join(allowed)}; {default} counts"))
    return default


def _lone_texts(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.glob("*.txt")) if not path.with_suffix(".json").exists())
