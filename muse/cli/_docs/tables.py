"""The generated parts of the documentation, out of the code alone; it knows no page and nothing of this machine.

A block stands between `<!-- muse:NAME -->` and `<!-- /muse:NAME -->`. Names: `providers`, `provider:NAME`, `contexts`,
`errors`, `commands`, `rooms`.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from muse.cli._docs.module_map import PACKAGES, rooms
from muse.journal.config import Config
from muse.journal.config_loader import Snapshot
from muse.providers import PROVIDER_REGISTRY, specs
from muse.routing import contexts
from muse.types import errors
from muse.types.errors import ConfigError, MuseError
from muse.types.provider_spec import ModelProfile, ProviderSpec, Tier

_HOUSE = Path(__file__).resolve().parents[3]
_BLOCK = re.compile(r"<!-- muse:(?P<name>[\w:.-]+) -->\n(?P<body>.*?)<!-- /muse:(?P=name) -->", re.DOTALL)
_MARK = re.compile(r"<!-- /?muse:([\w:.-]+) -->")
Commands = Mapping[str, tuple[str, str]]


def renew(text: str, commands: Commands, *, where: str) -> str:
    """`text` with every block written anew; `commands` are `{name: (help, example)}`.

    Raises:
        ConfigError: a block without its end, or of a name that nothing makes; file and line are named.
    """
    for mark in _MARK.finditer(_BLOCK.sub(lambda match: "\n" * match[0].count("\n"), text)):
        line = text.count("\n", 0, text.index(mark[0])) + 1
        raise ConfigError(
            f"{where}:{line}", repr(mark[0]), f"<!-- muse:{mark[1]} --> and <!-- /muse:{mark[1]} --> in pairs"
        )

    def written(match: re.Match[str]) -> str:
        line = text.count("\n", 0, match.start()) + 1
        body = block(match["name"], commands, where=f"{where}:{line}")
        return f"<!-- muse:{match['name']} -->\n{body}\n<!-- /muse:{match['name']} -->"

    return _BLOCK.sub(written, text)


def block(name: str, commands: Commands, *, where: str) -> str:
    """One generated block, without its markers and final newline.

    Raises:
        ConfigError: nothing makes a block of this name.
    """
    kind, _, provider = name.partition(":")
    if kind == "provider" and provider in PROVIDER_REGISTRY:
        return _one_provider(_spec(provider))
    if name == "commands":
        return _commands(commands)
    if name not in _BLOCKS:
        known = ", ".join((*sorted(_BLOCKS), "commands", "provider:NAME with NAME as in `muse providers`"))
        raise ConfigError(where, repr(name), f"one of {known}")
    return _BLOCKS[name]()


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; `|` in a cell is escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _spec(name: str) -> ProviderSpec:
    """What a built-in provider declares; no journal.json is asked."""
    return specs(Config())[name]


def _providers() -> str:
    rows = [
        [
            f"`{spec.name}`",
            spec.label,
            _key(spec),
            *(f"`{spec.tiers[tier]}`" if tier in spec.tiers else "–" for tier in Tier),
            ", ".join(name.replace("_", " ") for name in spec.capabilities.names()),
        ]
        for spec in map(_spec, PROVIDER_REGISTRY)
    ]
    return table(("provider", "label", "key", "tier 1", "tier 2", "tier 3", "capabilities"), rows)


def _key(spec: ProviderSpec) -> str:
    if not spec.env_key:
        return "none needed"
    return f"`{spec.env_key}`" + ("" if spec.key_required else " (optional)")


def _one_provider(spec: ProviderSpec) -> str:
    parts = [table(("setting", "value"), list(_settings(spec))), table(("tier", "model"), list(_tier_rows(spec)))]
    if spec.profiles:
        parts.append(table(_PROFILE_HEAD, [_profile_row(profile) for profile in spec.profiles]))
    parts.append(table(("feature", "value"), list(_features(spec))))
    return "\n\n".join(parts)


def _settings(spec: ProviderSpec) -> Iterator[tuple[str, str]]:
    yield "name in `journal.json`", f"`{spec.name}`"
    yield "key", _key(spec)
    if spec.base_url_env or spec.base_url:
        default = f"`{spec.base_url}`" if spec.base_url else "its own" if spec.prefixes else "none, it has to be set"
        yield "address", f"`{spec.base_url_env}`; default: {default}" if spec.base_url_env else default
    yield "model for every tier that `journal.json` leaves open", f"`{spec.model_env}`"
    if spec.extra:
        yield "install", f"`pip install 'muse-router[{spec.extra}]'`"
    if spec.prefixes:
        yield "models known by", ", ".join(f"`{prefix}`" for prefix in spec.prefixes)
    if spec.options:
        yield "further options of a call", ", ".join(f"`{name}`" for name in sorted(spec.options))


def _tier_rows(spec: ProviderSpec) -> Iterator[tuple[str, str]]:
    for tier in Tier:
        model = f"`{spec.tiers[tier]}`" if tier in spec.tiers else "none; name one in `providers.models`"
        yield f"{int(tier)} ({tier.name.lower()})", model


def _features(spec: ProviderSpec) -> Iterator[tuple[str, str]]:
    able = spec.capabilities
    names = set(able.names())
    for name in (field for field in able.__struct_fields__ if field != "max_context_tokens"):
        yield name.replace("_", " "), _yes(name in names)
    yield "largest context", f"{able.max_context_tokens:,} tokens"
    yield (
        "cost",
        "free" if spec.free else "from the price list" if spec.price_id else "logged as unknown without a price",
    )


_PROFILE_HEAD = (
    "models",
    "thinking",
    "a thinking budget of 0",
    "temperature",
    "images",
    "files",
    "schema",
    "longest output",
)


def _profile_row(profile: ModelProfile) -> list[str]:
    thinking = profile.thinking if profile.thinking != "none" else "–"
    efforts = f": {', '.join(profile.efforts)}" if profile.efforts else ""
    return [
        f"`{profile.match}`" if profile.match != "*" else "all others",
        f"{thinking}{efforts}",
        _without_thinking(profile),
        *map(_yes, (profile.temperature, profile.images, profile.files, profile.schema)),
        f"{profile.output_cap:,} tokens" if profile.output_cap else "–",
    ]


def _without_thinking(profile: ModelProfile) -> str:
    """What a thinking budget of 0 becomes."""
    if profile.thinking == "none":
        return "–"
    if profile.thinking_off or profile.efforts[:1] == ("none",):
        return "no thinking"
    return f"effort {profile.efforts[0]}" if profile.efforts else _least_budget(profile)


def _least_budget(profile: ModelProfile) -> str:
    return f"{profile.min_budget:,} tokens" if profile.min_budget else "no thinking"


def _yes(is_so: bool) -> str:
    return "yes" if is_so else "no"


def _contexts() -> str:
    """The registry without a journal: the static rows and the descriptors that muse ships."""
    known = contexts.registry(Snapshot("", (0, 0, 0), Config(), (), {})).contexts
    rows = [
        [f"`{name}`", f"{int(info.tier)}", info.label, info.group, f"`{_source(info.source)}`"]
        for name, info in sorted(known.items())
    ]
    return table(("context", "tier", "label", "group", "declared in"), rows)


def _source(source: str) -> str:
    if not os.path.isabs(source):
        return source.replace(".", "/") + ".py"
    return Path(source).relative_to(_HOUSE).as_posix()


def _errors() -> str:
    return table(("error", "is a", "meaning"), list(_error_rows(MuseError)))


def _error_rows(kind: type[MuseError]) -> Iterator[list[str]]:
    """A class of `muse.types.errors`, then those below it in the order of that file."""
    bases = [base.__name__ for base in kind.__bases__]
    meaning = (inspect.getdoc(kind) or "").partition("\n\n")[0].replace("\n", " ")
    yield [f"`{kind.__name__}`", ", ".join(f"`{base}`" for base in bases), meaning]
    for below in (value for value in vars(errors).values() if isinstance(value, type)):
        if kind in below.__bases__:
            yield from _error_rows(below)


def _commands(commands: Commands) -> str:
    rows = [[f"`muse {name}`", text, f"`{example}`"] for name, (text, example) in commands.items()]
    return table(("command", "what it does", "for example"), rows)


def _rooms() -> str:
    rows = [[f"`{path}`", about] for package in PACKAGES for path, about in rooms(_HOUSE, package)]
    return table(("room", "what it is"), rows)


_BLOCKS: Mapping[str, Callable[[], str]] = {
    "providers": _providers,
    "contexts": _contexts,
    "errors": _errors,
    "rooms": _rooms,
}
