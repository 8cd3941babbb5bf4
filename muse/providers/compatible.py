"""OpenAI-shaped endpoints (Chat Completions): one class for all, and a row of data for each endpoint.

Entry points: `ROWS`, `spec_of`, `module_of`.

Source of the Azure row: its page on the v1 API, which has the same paths below
`https://<resource>.openai.azure.com/openai/v1`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any, ClassVar

from muse.journal.config import CompatibleEndpoint
from muse.providers._backend.fitting import ToolRules
from muse.providers._base import Capabilities, Credentials, EncodedRequest, ModelProfile, Payload, ProviderSpec, bind
from muse.providers._chat import ChatAccumulator, add_tools_and_format, chat_messages, decode_completion
from muse.providers._sdk_base import SdkProvider
from muse.types.errors import UnavailableError
from muse.types.messages import DEFAULT_TEMPERATURE, Reply, Request

_OPTIONS = frozenset({"top_p", "stop", "seed"})
_SEES = Capabilities(vision=True, structured_output=True, function_calling=True)
_TEXT_ONLY = Capabilities(structured_output=True, function_calling=True)
_EFFORTS = ("none", "minimal", "low", "medium", "high")

_ENDPOINTS = ("/chat/completions", "/completions", "/responses")

_ROWS = (
    ProviderSpec(
        "openrouter",
        "OpenRouter",
        "OPENROUTER_API_KEY",
        tiers={1: "anthropic/claude-opus-5.5", 2: "google/gemini-3.8-flash", 3: "openai/gpt-6-luna"},
        capabilities=Capabilities(vision=True, files=True, structured_output=True, function_calling=True),
        profiles=(ModelProfile("*", "effort", _EFFORTS, files=True),),
        base_url="https://openrouter.ai/api/v1",
        price_id="openrouter",
    ),
    ProviderSpec(
        "lobechat",
        "LobeChat",
        "LOBECHAT_API_KEY",
        {},
        base_url="http://localhost:3210/api",
        key_required=False,
        capabilities=_SEES,
    ),
    ProviderSpec(
        "mindbridge",
        "MindBridge",
        "MINDBRIDGE_API_KEY",
        {},
        base_url="https://api.mindbridge.ai/v1",
        key_required=False,
        capabilities=_SEES,
    ),
    ProviderSpec(
        "ollama",
        "Ollama (on this machine)",
        "OLLAMA_API_KEY",
        {},
        base_url="http://localhost:11434/v1",
        key_required=False,
        free=True,
        capabilities=_SEES,
    ),
    ProviderSpec(
        "digitalocean",
        "DigitalOcean Inference",
        "DIGITALOCEAN_API_KEY",
        {},
        base_url="https://inference.do-ai.run/v1",
        profiles=(ModelProfile("*", images=False),),
        capabilities=_TEXT_ONLY,
    ),
    ProviderSpec(
        "azure",
        "Azure OpenAI",
        "AZURE_API_KEY",
        {},
        profiles=(
            ModelProfile("gpt-4*", output_limit="max_completion_tokens"),
            ModelProfile("*", "effort", _EFFORTS, temperature=False, output_limit="max_completion_tokens"),
        ),
        price_id="azure",
        capabilities=_SEES,
    ),
)


def _row(spec: ProviderSpec) -> ProviderSpec:
    """Return a row with the fields that follow from its name and from being OpenAI-shaped."""
    name = f"{spec.name.upper()}_BASE_URL"
    return spec.having(base_url_env=name, endpoint_paths=_ENDPOINTS, options=_OPTIONS, extra="openai")


ROWS: Mapping[str, ProviderSpec] = {spec.name: _row(spec) for spec in _ROWS}


def spec_of(gateway: CompatibleEndpoint) -> ProviderSpec:
    """Return the spec of a user-defined endpoint (`providers.compatible.<name>` in journal.json)."""
    return _row(
        ProviderSpec(
            gateway.name,
            gateway.label or gateway.name,
            gateway.env_key,
            tiers=gateway.models,
            base_url=gateway.base_url,
            key_required=bool(gateway.env_key),
            profiles=(ModelProfile("*", images=gateway.images),),
            capabilities=_SEES if gateway.images else _TEXT_ONLY,
            withheld=gateway.withheld,
        )
    )


_modules: dict[str, ModuleType] = {}


def module_of(spec: ProviderSpec) -> ModuleType:
    """Return a module with `generate`, `agenerate` and `run_agent` for one row; made once per row."""
    known = _modules.get(spec.name)
    if known is None or known.SPEC is not spec:
        known = _modules[spec.name] = ModuleType(
            f"muse.providers.{spec.name}", f"{spec.label}, by way of muse.providers.compatible."
        )
        known.SPEC = spec  # type: ignore[attr-defined]
        known.__all__ = ["generate", "agenerate", "run_agent"]  # type: ignore[attr-defined]
        known.generate, known.agenerate, known.run_agent = bind(CompatibleProvider(spec))  # type: ignore[attr-defined]
    return known


class CompatibleProvider(SdkProvider):
    """Chat Completions at the address of one spec."""

    sdk = "openai"
    path: ClassVar[str] = "/chat/completions"
    tool_rules: ClassVar[ToolRules | None] = ToolRules()

    def __init__(self, spec: ProviderSpec) -> None:
        self.spec = spec

    def access(self, api_key: str | None = None) -> Credentials:
        """Return the credentials like any provider, but require an address.

        Raises:
            UnavailableError: Neither the row nor the environment names an address.
        """
        access = super().access(api_key)
        if access.base_url is None:
            raise UnavailableError(
                self.spec.base_url_env, "nothing", "the endpoint's address, such as https://host/openai/v1"
            )
        return access

    def connect(self, sdk: Any, access: Credentials, *, is_async: bool, **wiring: Any) -> Any:
        kind = sdk.AsyncOpenAI if is_async else sdk.OpenAI
        return kind(api_key=access.key or "none", base_url=access.base_url, **wiring)

    def encode(self, request: Request) -> EncodedRequest:
        profile = self.spec.profile(request.model)
        dropped: list[str] = []
        payload: Payload = {
            "model": request.model,
            "messages": chat_messages(request, profile, self.spec.name),
            profile.output_limit: profile.limit(request.max_output_tokens, request.thinking_budget),
        }
        if profile.temperature and request.temperature is not None:
            payload["temperature"] = request.temperature
        elif request.temperature not in (None, DEFAULT_TEMPERATURE):
            dropped.append("temperature")
        if profile.thinking == "effort" and request.thinking_budget is not None:
            payload["reasoning_effort"] = profile.effort(request.thinking_budget)
        elif request.thinking_budget:
            dropped.append("thinking_budget")
        taken = _OPTIONS if profile.temperature else _OPTIONS - {"top_p"}
        payload |= {name: value for name, value in request.extras.items() if name in taken}
        dropped += [name for name in request.extras if name in _OPTIONS - taken]
        add_tools_and_format(payload, request)
        return EncodedRequest(payload, tuple(dropped))

    def decode(self, raw: Mapping[str, Any], request: Request) -> Reply:
        return decode_completion(raw, request, self.spec.name)

    def streamed(self, payload: Payload) -> Payload:
        return payload | {"stream": True, "stream_options": {"include_usage": True}}

    def gather(self) -> ChatAccumulator:
        return ChatAccumulator(self.spec.name)
