"""What is known of each provider without a call: key state, models, abilities, health; it holds no key's value."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Literal

from msgspec import Struct

from muse.diagnostics import check, health
from muse.diagnostics.health import Health
from muse.errors import ConfigError
from muse.journal import dotenv_file, secrets
from muse.journal.config import Config
from muse.policies import circuit_breaker
from muse.providers import backend_of, get_provider_list, problem_of, specs
from muse.types.provider_spec import ProviderSpec, Tier
from muse.usage_log import prices

Level = Literal["ok", "warn", "bad", "muted"]
_LEVELS: Mapping[str, Level] = {"ok": "ok", "slow": "warn", "failing": "bad", "no key": "muted"}


class Model(Struct, frozen=True):
    """The model of a tier: who names it, how it answered when it was last asked, and its breaker.

    `is_failing` says that calls have failed since it last answered a test.
    """

    name: str
    tiers: tuple[int, ...]
    priced: bool
    health: Health | None
    breaker: str
    is_failing: bool = False

    @property
    def level(self) -> Level:
        """How its last answer looks."""
        return _LEVELS[self.health.state] if self.health else "muted"


class Card(Struct, frozen=True):
    """One provider; `problem` is set, and little else, where it cannot be loaded."""

    name: str
    label: str
    problem: str = ""
    env_key: str = ""
    key: str = ""
    key_from: str = ""
    key_in_journal: bool = False
    key_is_optional: bool = False
    contexts: int = 0
    is_installed: bool = True
    extra: str = ""
    capabilities: tuple[str, ...] = ()
    max_context_tokens: int = 0
    address: str = ""
    address_env: str = ""
    models: tuple[Model, ...] = ()
    lack: str = ""
    is_free: bool = False

    @property
    def is_ready(self) -> bool:
        """Whether a call could be sent now."""
        has_key = self.key in ("present", "not needed")
        return not (self.problem or self.lack) and self.is_installed and has_key and bool(self.models)

    @property
    def _health(self) -> tuple[Level, str]:
        """Return how it answered the last test and the calls since; "not tested" where nobody knows."""
        states = {
            "failing" if model.is_failing else model.health.state if model.health is not None else "not tested"
            for model in self.models
        }
        if states == {"not tested"}:
            return "muted", "not tested"
        if "failing" not in states:
            return ("ok", "ok") if "ok" in states else ("warn", "slow") if "slow" in states else ("muted", "not tested")
        return ("bad", "failing") if states <= {"failing", "not tested"} else ("warn", "partly failing")

    @property
    def state(self) -> tuple[Level, str]:
        """Whether it answers, as far as is known, in a level and words."""
        if self.problem:
            return "bad", "cannot be used"
        if not self.is_installed:
            return "warn", "SDK missing"
        if self.is_ready:
            return self._health
        if self.key == "malformed":
            return "bad", "key malformed"
        if self.key == "missing":
            return "muted", "no key"
        return ("warn", "not set up") if self.lack else ("muted", "no model")


def cards(config: Config) -> list[Card]:
    """Every provider there is: those that serve something first, then those that are ready, then the others."""
    routed = check.routed_providers()
    seen = _look(config)
    found = [_card(row["name"], row["label"], config, routed.get(row["name"], 0), seen) for row in get_provider_list()]
    return sorted(found, key=lambda card: (-card.contexts, not card.is_ready, card.label.casefold()))


def lacks(found: Sequence[Card]) -> Mapping[str, str]:
    """What keeps providers from answering now, in words, by name; those that are ready are not in it."""
    return {card.name: card.state[1] for card in found if not card.is_ready}


def card(name: str, config: Config) -> Card:
    """One provider.

    Raises:
        FileNotFoundError: there is none of that name.
    """
    label = next((row["label"] for row in get_provider_list() if row["name"] == name), None)
    if label is None:
        raise FileNotFoundError(f"provider: found {name[:60]!r}, expected one of the page's")
    seen = _look(config)
    return _card(name, label, config, check.routed_providers().get(name, 0), seen)


def env_keys() -> Mapping[str, list[str]]:
    """The variables that hold the keys of providers, each with the names of who uses it."""
    found: dict[str, list[str]] = {}
    for row in get_provider_list():
        if row["env_key"]:
            found.setdefault(row["env_key"], []).append(row["name"])
    return found


class _Seen(Struct, frozen=True):
    """What is known of how models answer, each by `provider model`; `failing` have failed since they last answered."""

    health: Mapping[str, Health]
    breakers: Mapping[str, str]
    failing: frozenset[str]


def _look(config: Config) -> _Seen:
    """Read the results of tests and the breakers of the journal."""
    tested = health.last()
    monotonic_at_0 = time.time() - time.monotonic()
    failed_at = {
        key: state.until - config.policies.breaker.cool_down_s + monotonic_at_0
        for key, state in circuit_breaker.circuit_states()
        if state.failures
    }
    failing = (key for key, at in failed_at.items() if key not in tested or tested[key].at < at)
    return _Seen(tested, health.open_circuits(), frozenset(failing))


def _card(name: str, label: str, config: Config, contexts: int, seen: _Seen) -> Card:
    problem = problem_of(name)
    if problem is not None:
        return Card(name, label, problem=secrets.redact(str(problem)), contexts=contexts)
    spec = specs().get(name) or backend_of(name).spec
    key = check.key_state(spec)
    lack = check.missing_requirement(name) if key in ("present", "not needed") else None
    return Card(
        name=name,
        label=spec.label,
        env_key=spec.env_key,
        key=key,
        key_from=_key_from(spec, config),
        key_in_journal=_is_in_journal(spec),
        key_is_optional=not spec.key_required,
        contexts=contexts,
        is_installed=check.is_installed(name),
        extra=spec.extra,
        capabilities=tuple(ability.replace("_", " ") for ability in spec.capabilities.names()),
        max_context_tokens=spec.capabilities.max_context_tokens,
        address=check.address_in_words(spec),
        address_env=spec.base_url_env,
        models=_models(spec, seen),
        lack=secrets.redact(str(lack)) if lack is not None else "",
        is_free=spec.free,
    )


def _key_from(spec: ProviderSpec, config: Config) -> str:
    """Where the key in force is from, in words; empty where there is none."""
    place = secrets.key_source(spec.env_key) if spec.env_key else None
    if place is None:
        return ""
    if place == "the environment" and config.env.get(spec.env_key) == os.environ.get(spec.env_key):
        return "the environment, as env in journal.json says"
    if place == str(dotenv_file.dotenv_path()):
        return "the journal's .env"
    return place if place == "the environment" else check.shown(place)


def _is_in_journal(spec: ProviderSpec) -> bool:
    """Whether the journal's own `.env` says the key: that one can be deleted here."""
    try:
        return bool(spec.env_key) and dotenv_file.has_value(spec.env_key)
    except ConfigError:  # saving a key says what is wrong with that file
        return False


def _models(spec: ProviderSpec, seen: _Seen) -> tuple[Model, ...]:
    """The models of its tiers, and those that were asked or failed besides."""
    tiers: dict[str, list[int]] = {}
    for tier in Tier:
        model = check.model_at(spec.name, tier)
        if model is not None:
            tiers.setdefault(model, []).append(int(tier))
    asked = [key.partition(" ")[2] for key in (*seen.health, *seen.breakers) if key.startswith(f"{spec.name} ")]
    return tuple(
        Model(
            model,
            tuple(tiers.get(model, ())),
            spec.free or prices.is_priced(model, spec.price_id),
            seen.health.get(f"{spec.name} {model}"),
            seen.breakers.get(f"{spec.name} {model}", ""),
            f"{spec.name} {model}" in seen.failing,
        )
        for model in dict.fromkeys((*tiers, *asked))
    )
