"""What a provider declares about itself, once: names, models, what each model family takes; it makes no call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import IntEnum
from fnmatch import fnmatchcase
from typing import Any, ClassVar, Literal

from msgspec import Struct
from msgspec.structs import replace

from muse.types.deprecation import renamed_attributes
from muse.types.redaction import RedactedStruct
from muse.types.trust_claim import Claim


class Tier(IntEnum):
    """How capable a model is asked for: 1 the most capable, 3 the fastest and cheapest."""

    PRO = 1
    FLASH = 2
    LITE = 3


TierModels = Mapping[int, str]


class Capabilities(Struct, frozen=True):
    """What a provider can do; known without a key and without its SDK."""

    streaming: bool = True
    threads: bool = True
    tools: bool = True
    vision: bool = False
    files: bool = False
    system_prompt: bool = True
    message_history: bool = True
    max_context_tokens: int = 128_000
    structured_output: bool = False
    function_calling: bool = False

    def names(self) -> tuple[str, ...]:
        """The abilities that are there, in order of declaration, for tables."""
        marks = {
            "streaming": self.streaming,
            "threads": self.threads,
            "tools": self.tools,
            "vision": self.vision,
            "files": self.files,
            "system_prompt": self.system_prompt,
            "message_history": self.message_history,
            "structured_output": self.structured_output,
            "function_calling": self.function_calling,
        }
        return tuple(name for name, present in marks.items() if present)


Thinking = Literal["none", "budget", "effort", "adaptive"]


class ModelProfile(Struct, frozen=True):
    """What one family of models accepts; `match` is a glob over lower-case model names.

    `thinking` says how a thinking budget is sent: not at all, as a number of tokens, as an effort word, or as the
    provider's adaptive mode with an effort word. `efforts` are the words the family takes, weakest first; the first is
    what a budget of 0 becomes, unless `thinking_off` names the mode by which the family stops thinking. `min_budget`
    is the least number of tokens a budget may have. `output_cap` is the largest output limit in tokens, `output_limit`
    the name of that field where one wire form has two.
    """

    match: str
    thinking: Thinking = "none"
    efforts: tuple[str, ...] = ()
    thinking_off: str = ""
    min_budget: int = 0
    temperature: bool = True
    images: bool = True
    files: bool = False
    schema: bool = True
    output_cap: int | None = None
    output_limit: str = "max_tokens"

    def budget(self, wanted: int) -> int:
        """The tokens for thinking that are sent for a wanted number: 0 stops it where that can be, else the least."""
        return 0 if wanted == 0 and self.thinking_off else max(wanted, self.min_budget)

    def limit(self, max_output_tokens: int, thinking_budget: int | None) -> int:
        """The output limit that is sent: thinking and text together, so a budget comes on top, up to the cap."""
        room = self.budget(thinking_budget) if thinking_budget is not None and self.thinking != "none" else 0
        wanted = max_output_tokens + room
        return min(wanted, self.output_cap or wanted)

    def effort(self, budget: int) -> str:
        """The effort word nearest to a budget in tokens.

        The steps 1,024 / 8,192 / 24,576 for low / medium / high are those that Google documents for its
        OpenAI-compatible endpoint; above the last one comes the strongest word the family has below "max".
        """
        if budget <= 0:
            return self.efforts[0]
        wanted = next((word for word, top in _EFFORT_STEPS if budget <= top), "xhigh")
        if wanted in self.efforts:
            return wanted
        spoken = [word for word in self.efforts if word != "max"]
        return spoken[-1] if wanted in ("high", "xhigh") else spoken[0]


_EFFORT_STEPS = (("low", 1_024), ("medium", 8_192), ("high", 24_576))


class ProviderSpec(RedactedStruct, frozen=True):
    """One provider as registry, settings page, docs tables and cost lookup need it.

    `prefixes` are the lower-case beginnings of its model names, by which a provider is inferred from a model;
    `profiles` are searched in order, the first match counts; `options` are the call options beyond the common ones that
    it takes; `extra` is the pip extra that brings its SDK; `price_id` its name in the price list; `batch_price` is what
    its batch service charges as a share of the list price, None if it has no such service. `endpoint_paths` are path
    endings cut off an address that names the endpoint itself, the longest first. What an `is_local` provider
    is asked never leaves this machine. `plugin` is the package that brings it, "" for a built-in or configured one;
    `broken` marks a provider that cannot be used, each call to which raises an error. `withheld` is set for an
    endpoint of a project's file to which the user has not consented.
    """

    _addresses: ClassVar[frozenset[str]] = frozenset({"base_url"})

    name: str
    label: str
    env_key: str
    tiers: TierModels
    prefixes: tuple[str, ...] = ()
    capabilities: Capabilities = Capabilities()
    profiles: tuple[ModelProfile, ...] = ()
    options: frozenset[str] = frozenset()
    base_url: str | None = None
    base_url_env: str = ""
    endpoint_paths: tuple[str, ...] = ()
    withheld: Claim | None = None
    key_required: bool = True
    extra: str = ""
    price_id: str | None = None
    free: bool = False
    is_local: bool = False
    batch_price: float | None = None
    plugin: str = ""
    broken: bool = False

    @property
    def model_env(self) -> str:
        """The variable that names the model where journal.json names none: `<NAME>_MODEL`."""
        return f"{self.name.upper()}_MODEL"

    def having(self, **changes: Any) -> ProviderSpec:
        """A copy with some fields changed."""
        return replace(self, **changes)

    def profile(self, model: str) -> ModelProfile:
        """What the family of `model` accepts; the last profile is the provider's own default."""
        name = model.lower()
        for profile in self.profiles:
            if fnmatchcase(name, profile.match):
                return profile
        return _ANY_MODEL


_ANY_MODEL = ModelProfile("*")


def provider_of(model: str, specs: Mapping[str, ProviderSpec]) -> str | None:
    """The provider that serves `model`, told by the longest matching prefix; None if no one claims it.

    A spec whose tiers name the model outright wins over any prefix. A plug-in gets no model that a built-in or
    configured provider claims. Plug-ins with the same claim give `"one or other"`, which is the name of no provider.
    """
    plugins = [spec for spec in specs.values() if spec.plugin]
    if not plugins:
        return _claimed(model, specs.values())
    owner = _claimed(model, (spec for spec in specs.values() if not spec.plugin)) or _claimed(model, plugins)
    if owner is None or not specs[owner].plugin:
        return owner
    most = _claim(model, specs[owner])
    return " or ".join(sorted(spec.name for spec in plugins if _claim(model, spec) == most))


def _claimed(model: str, specs: Iterable[ProviderSpec]) -> str | None:
    name = model.lower()
    best: tuple[int, str] | None = None
    for spec in specs:
        if model in spec.tiers.values():
            return spec.name
        for prefix in spec.prefixes:
            if name.startswith(prefix) and (best is None or len(prefix) > best[0]):
                best = (len(prefix), spec.name)
    return best[1] if best else None


def _claim(model: str, spec: ProviderSpec) -> int:
    """How strong a provider's claim to a model is: more than any prefix if it names it, the prefix's length, or 0."""
    if model in spec.tiers.values():
        return len(model) + 1
    name = model.lower()
    return max((len(prefix) for prefix in spec.prefixes if name.startswith(prefix)), default=0)


# Names of 0.1.
__getattr__ = renamed_attributes(__name__, {"Profile": "ModelProfile", "Spec": "ProviderSpec"})
