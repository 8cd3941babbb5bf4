"""What is said to a model and what comes back, as values free of any wire form; it makes no call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

from msgspec import Struct, field

from muse.types.deprecation import renamed_attributes
from muse.types.provider_spec import Tier
from muse.types.usage import Usage


class Image(Struct, frozen=True):
    """A picture: its encoded bytes and their media type, such as `image/png`."""

    data: bytes
    media_type: str

    def __repr__(self) -> str:
        return f"Image({self.media_type}, {len(self.data)} bytes)"


class File(Struct, frozen=True):
    """A document: its bytes, media type (`application/pdf`) and a name for the model."""

    data: bytes
    media_type: str
    name: str = "document.pdf"

    def __repr__(self) -> str:
        return f"File({self.name}, {self.media_type}, {len(self.data)} bytes)"


Part = str | Image | File


class ToolCall(Struct, frozen=True):
    """The model asks for a tool; `call_id` pairs it with its result."""

    call_id: str
    name: str
    args: Mapping[str, Any]


class ToolResult(Struct, frozen=True):
    """What a tool gave back for one call; `failed` marks an error text."""

    call_id: str
    name: str
    parts: tuple[Part, ...]
    failed: bool = False


class Tool(Struct, frozen=True):
    """A tool on offer: `schema` is the JSON Schema of its arguments, `read_only` says that it changes nothing."""

    name: str
    description: str
    schema: Mapping[str, Any]
    read_only: bool = False


class User(Struct, frozen=True):
    """What the user says in one turn."""

    parts: tuple[Part, ...]


class Assistant(Struct, frozen=True):
    """What the model said in one turn; `native` is the provider's own message, replayed to `provider` alone."""

    text: str = ""
    calls: tuple[ToolCall, ...] = ()
    native: Any = None
    provider: str = ""


class ToolResults(Struct, frozen=True):
    """The results of the calls of one assistant turn, in the order of the calls."""

    results: tuple[ToolResult, ...]


Turn = User | Assistant | ToolResults
# "error" is no end of an answer: who asks is given an exception in place of such a reply.
Finish = Literal["stop", "tools", "length", "blocked", "error"]


class GenerateOptions(TypedDict, total=False):
    """The one list of call options.

    `model` overrides the routed model, and with it the provider if the name belongs to another one. `json_schema` asks
    for an answer of that JSON Schema. `complete=True` has the model continue the text instead of answering it, where a
    provider can (others answer it as a message); `grammar` (GBNF) binds what it may write, where there is a model of
    one's own. `stop`, `seed`, `top_p`, `cached_content` go to providers that take them. An option that is not known is
    ignored with a warning and named in `Reply.dropped`; with `strict=True` it is an `OptionError`.
    """

    model: str
    temperature: float
    max_output_tokens: int
    system_instruction: str | None
    json_output: bool
    json_schema: Mapping[str, Any] | None
    thinking_budget: int | None
    timeout_s: float | None
    complete: bool
    grammar: str
    top_p: float
    stop: Sequence[str]
    seed: int
    cached_content: str
    segment: str
    api_key: str
    strict: bool


DEFAULT_TEMPERATURE = 0.3
DEFAULT_MAX_OUTPUT_TOKENS = 8192 * 2


class Request(Struct, frozen=True):
    """One call, provider-neutral; `extras` are options beyond the common ones, `timeout_s` is for the whole call.

    `may_call_tools=False` names the tools that the conversation has used, and asks for an answer without them.
    `needs_text` says that calls of tools alone are no answer to it.
    """

    model: str
    turns: tuple[Turn, ...]
    system: str | None = None
    tools: tuple[Tool, ...] = ()
    may_call_tools: bool = True
    temperature: float | None = DEFAULT_TEMPERATURE
    max_output_tokens: int = DEFAULT_MAX_OUTPUT_TOKENS
    json_output: bool = False
    json_schema: Mapping[str, Any] | None = None
    thinking_budget: int | None = None
    timeout_s: float | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)
    needs_text: bool = False

    @property
    def text_chars(self) -> int:
        """How many characters of text it says, for estimates of its tokens."""
        count = len(self.system or "")
        for turn in self.turns:
            if isinstance(turn, User):
                count += sum(map(_chars, turn.parts))
            elif isinstance(turn, Assistant):
                count += len(turn.text)
            else:
                count += sum(_chars(part) for result in turn.results for part in result.parts)
        return count


def _chars(part: Part) -> int:
    return len(part) if isinstance(part, str) else 0


class Route(Struct, frozen=True):
    """Who serves a context, and why: `reason` is the rule that chose it, such as `providers.contexts['agent.*']`."""

    context: str
    provider: str
    model: str
    tier: Tier
    reason: str


class Attempt(Struct, frozen=True):
    """One try at a call as the token log has it; `error` is the class name of what went wrong."""

    provider: str
    model: str
    duration_s: float
    usage: Usage
    error: str | None = None


class Reply(Struct, frozen=True):
    """What came back: `model` is the one that really served, `dropped` the options the model does not take.

    `call_id` is what the usage log calls the call: each of its attempts has a line with it. `ended_with` is the
    provider's own word for how the answer ended.
    """

    text: str
    turn: Assistant
    usage: Usage
    finish: Finish
    model: str
    provider: str
    thinking: str = ""
    route: Route | None = None
    cost_usd: float | None = None
    attempts: tuple[Attempt, ...] = ()
    dropped: tuple[str, ...] = ()
    call_id: str = ""
    ended_with: str = ""


# Names of 0.1.
__getattr__ = renamed_attributes(__name__, {"Results": "ToolResults"})
