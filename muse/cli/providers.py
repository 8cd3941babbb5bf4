"""`muse providers`: what there is to route to, with keys only as present or missing; `--test` makes one live call."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from muse.cli._terminal import terminal
from muse.cli._terminal.terminal import Column
from muse.diagnostics import check, health
from muse.providers import backend_of, get_provider_list, problem_of, specs
from muse.types.provider_spec import Tier

HELP = "List every provider: key, SDK, models, abilities, address; or test one with the cheapest live call."


_USABLE = frozenset({"present", "not needed"})
_STYLES = {"ok": "green", "slow": "yellow", "failing": "red", "no key": "dim"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The list, or the test of one."""
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--test", metavar="NAME", help="make one small live call (a fraction of a cent) and say how it went"
    )


def run(args: argparse.Namespace) -> int:
    """Print the list, or the outcome of the test; 1 if the test failed, else 0."""
    if args.test is not None:
        return _test(args.test, as_json=args.json)
    routed = check.routed_providers()
    seen = _Seen(health.last(), health.open_circuits())
    rows = [_row(entry["name"], routed, seen) for entry in get_provider_list()]
    if args.json:
        terminal.print_json(rows)
    elif terminal.is_terminal():
        _cards(rows)
    else:
        _table(rows)
    return 0


def _test(name: str, *, as_json: bool) -> int:
    report = health.test_connection(name)
    if as_json:
        terminal.print_json(report)
    elif report["success"]:
        terminal.say(f"{name}: {report['model']} answered in {report['duration_s']:.2f} s", "green")
    else:
        terminal.print_error(f"{name}: {report['error']}")
    return 0 if report["success"] else 1


class _Seen(Struct, frozen=True):
    """What is known of how models answer, each by `provider model`."""

    health: Mapping[str, health.Health]
    breakers: Mapping[str, str]


def _row(name: str, routed: Mapping[str, int], seen: _Seen) -> dict[str, Any]:
    """What is known of one provider without a call; it is enabled if it is routed to and has what it needs."""
    problem = problem_of(name)
    if problem is not None:
        return {"name": name, "contexts": routed.get(name, 0), "problem": str(problem)}
    spec = specs().get(name) or backend_of(name).spec
    key, installed = check.key_state(spec), check.is_installed(name)
    return {
        "name": name,
        "label": spec.label,
        "enabled": name in routed and installed and key in _USABLE,
        "contexts": routed.get(name, 0),
        "env_key": spec.env_key,
        "key": key,
        "sdk_installed": installed,
        "extra": spec.extra,
        "models": _models(name),
        "capabilities": list(spec.capabilities.names()),
        "max_context_tokens": spec.capabilities.max_context_tokens,
        "address": check.address_in_words(spec),
        "free": spec.free,
        "health": {row.model: _said(row) for row in seen.health.values() if row.provider == name},
        "breakers": {
            key.partition(" ")[2]: words for key, words in seen.breakers.items() if key.startswith(f"{name} ")
        },
    }


def _said(row: health.Health) -> dict[str, Any]:
    return {"state": row.state, "seconds": round(row.seconds, 3), "why": row.why, "at": round(row.at)}


def _state(row: dict[str, Any]) -> str:
    """How its models answered when they were last asked, and which are left alone, in a few words."""
    states = Counter(found["state"] for found in row["health"].values())
    words = [state if count == len(row["health"]) else f"{count} {state}" for state, count in states.items()]
    return ", ".join([*words, *(f"{model} {said}" for model, said in row["breakers"].items())]) or "-"


def _models(name: str) -> dict[str, str]:
    """The model of each tier that has one, as a route would get it now."""
    return {str(int(tier)): model for tier in Tier if (model := check.model_at(name, tier)) is not None}


def _table(rows: list[dict[str, Any]]) -> None:
    names = ("name", "enabled", "contexts", "key", "sdk", "state", "tier 1", "tier 2", "tier 3", "address", "label")
    cells = [
        [row["name"], *["-"] * 9, row["problem"]]
        if "problem" in row
        else [
            row["name"],
            "yes" if row["enabled"] else "no",
            str(row["contexts"]),
            row["key"],
            "installed" if row["sdk_installed"] else "missing",
            _state(row),
            *(row["models"].get(str(int(tier)), "-") for tier in Tier),
            row["address"],
            row["label"],
        ]
        for row in rows
    ]
    terminal.draw([Column(name) for name in names], cells)


def _cards(rows: list[dict[str, Any]]) -> None:
    """A few lines a provider: what a window of any width has room for."""
    for row in rows:
        terminal.say(f"{row['name']}  {row.get('label', '')}", "bold")
        if "problem" in row:
            terminal.say(f"  {row['problem']}", "red")
            continue
        usable = row["key"] in _USABLE and row["sdk_installed"]
        use = f"enabled, {row['contexts']} contexts" if row["enabled"] else f"not enabled, {row['contexts']} contexts"
        key = f"key {row['key']}" + (f" ({row['env_key']})" if row["env_key"] else "")
        sdk = "SDK installed" if row["sdk_installed"] else f"SDK missing: pip install 'muse-router[{row['extra']}]'"
        terminal.say(f"  {use}; {key}, {sdk}", "green" if usable else "yellow")
        terminal.wrap("  models     ", _tiers(row["models"]) or ["none until journal.json names one"], "   ")
        terminal.wrap("  abilities  ", (name.replace("_", " ") for name in row["capabilities"]), ", ")
        terminal.say(f"  address    {row['address']}")
        for model, found in row["health"].items():
            terminal.say(
                f"  {model}: {found['state']}, {found['seconds']:.1f} s {found['why']}".rstrip(),
                _STYLES[found["state"]],
            )
        for model, words in row["breakers"].items():
            terminal.say(f"  {model}: breaker {words}", "yellow")
        print()


def _tiers(models: dict[str, str]) -> list[str]:
    """`1 model`, `2 model`, `3 model`; tiers that share a model stand together."""
    tiers: dict[str, list[str]] = {}
    for tier, model in models.items():
        tiers.setdefault(model, []).append(tier)
    return [f"{'+'.join(numbers)} {model}" for model, numbers in tiers.items()]
