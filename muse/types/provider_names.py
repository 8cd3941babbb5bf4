"""The names of the built-in providers, known without importing any of them."""

from __future__ import annotations

import os
from functools import lru_cache

FAMILY = ("google", "openai", "anthropic")
SHIPPED = (*FAMILY, "echo", "local")
PREFIXES = {
    "google": ("gemini-", "gemma-"),
    "openai": ("gpt-", "o1", "o3", "o4", "chatgpt-", "codex-"),
    "anthropic": ("claude-",),
    "echo": ("echo-",),
    "local": ("smollm2",),
}
"""The beginnings of the shipped providers' model names: they stay theirs where their file cannot be loaded."""
ROWS = ("openrouter", "lobechat", "mindbridge", "ollama", "digitalocean", "azure")
_FOLDER = os.path.join(os.path.dirname(os.path.dirname(__file__)), "providers")


@lru_cache(maxsize=1)
def provider_files() -> tuple[str, ...]:
    """Return the names of the provider files in `muse/providers`: the shipped ones first, then the others by name."""
    found = {name[:-3] for name in os.listdir(_FOLDER) if name.endswith(".py") and name[0] != "_"} - {"compatible"}
    return (*(name for name in SHIPPED if name in found), *sorted(found.difference(SHIPPED)))


@lru_cache(maxsize=1)
def built_in_names() -> frozenset[str]:
    """Return every built-in name in its folded form."""
    return frozenset(normalize_name(name) for name in (*provider_files(), *ROWS))


def normalize_name(name: str) -> str:
    """Return the form in which two names clash: case, `-` or `_`, and outer blanks do not tell providers apart.

    Names make the names of environment variables, which differ by none of these.

    >>> normalize_name(" Open-Router ")
    'open_router'
    """
    return name.strip().casefold().replace("-", "_")
