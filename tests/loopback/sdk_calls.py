"""Asks a server through each vendor's sync SDK, plain and streamed; it does not know muse."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from types import TracebackType
from typing import Self

from anthropic import Anthropic
from anthropic.types import Message, MessageParam
from google import genai
from google.genai.types import GenerateContentResponse, HttpOptions
from openai import OpenAI
from openai.types.chat import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionUserMessageParam,
)
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseIncompleteEvent,
    ResponseStreamEvent,
)

from tests.loopback.outcomes import Outcome
from tests.loopback.sdk_replies import (
    read_anthropic,
    read_chunks,
    read_compatible,
    read_google,
    read_openai,
)

TIMEOUT_S = 5.0
KEY = "sk-loopback"
HELLO = "When does the tide turn?"
CHAT: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": HELLO}]
MESSAGES: list[MessageParam] = [{"role": "user", "content": HELLO}]


class SyncCalls:
    """The sync clients of one server address; each method asks for one model."""

    def __init__(self, url: str, *, timeout_s: float = TIMEOUT_S) -> None:
        """Keep the address; clients are made at first use."""
        self._url = url
        self._timeout_s = timeout_s

    def __enter__(self) -> Self:
        """Return the clients."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the clients that were made."""
        for name in ("openai_client", "anthropic_client", "google_client"):
            if name in self.__dict__:
                self.__dict__[name].close()

    @cached_property
    def openai_client(self) -> OpenAI:
        """A client without retries."""
        return OpenAI(base_url=f"{self._url}/v1", api_key=KEY, max_retries=0, timeout=self._timeout_s)

    @cached_property
    def anthropic_client(self) -> Anthropic:
        """A client without retries."""
        return Anthropic(base_url=self._url, api_key=KEY, max_retries=0, timeout=self._timeout_s)

    @cached_property
    def google_client(self) -> genai.Client:
        """A client without retries."""
        options = HttpOptions(base_url=self._url, timeout=round(self._timeout_s * 1000))
        return genai.Client(api_key=KEY, http_options=options)

    def openai(self, model: str) -> Response:
        """Ask the Responses API."""
        return self.openai_client.responses.create(model=model, input=HELLO)

    def openai_stream(self, model: str) -> list[ResponseStreamEvent]:
        """Ask the Responses API for events."""
        return list(self.openai_client.responses.create(model=model, input=HELLO, stream=True))

    def compatible(self, model: str) -> ChatCompletion:
        """Ask Chat Completions."""
        return self.openai_client.chat.completions.create(model=model, messages=CHAT)

    def compatible_stream(self, model: str) -> list[ChatCompletionChunk]:
        """Ask Chat Completions for chunks, with counts at the end."""
        return list(
            self.openai_client.chat.completions.create(
                model=model, messages=CHAT, stream=True, stream_options={"include_usage": True}
            )
        )

    def anthropic(self, model: str) -> Message:
        """Ask the Messages API."""
        return self.anthropic_client.messages.create(model=model, messages=MESSAGES, max_tokens=64)

    def anthropic_stream(self, model: str) -> Message:
        """Ask the Messages API for events, put together by the SDK."""
        with self.anthropic_client.messages.stream(model=model, messages=MESSAGES, max_tokens=64) as stream:
            return stream.get_final_message()

    def google(self, model: str) -> GenerateContentResponse:
        """Ask generateContent."""
        return self.google_client.models.generate_content(model=model, contents=HELLO)

    def google_stream(self, model: str) -> list[GenerateContentResponse]:
        """Ask streamGenerateContent."""
        models = self.google_client.models
        return list(models.generate_content_stream(model=model, contents=HELLO))

    def outcome(self, provider: str, model: str, *, stream: bool) -> Outcome:
        """Ask and read the reply."""
        asks: dict[tuple[str, bool], Callable[[], Outcome]] = {
            ("openai", False): lambda: read_openai(self.openai(model)),
            ("openai", True): lambda: read_openai(last_response(self.openai_stream(model))),
            ("compatible", False): lambda: read_compatible(self.compatible(model)),
            ("compatible", True): lambda: read_chunks(self.compatible_stream(model)),
            ("anthropic", False): lambda: read_anthropic(self.anthropic(model)),
            ("anthropic", True): lambda: read_anthropic(self.anthropic_stream(model)),
            ("google", False): lambda: read_google([self.google(model)]),
            ("google", True): lambda: read_google(self.google_stream(model)),
        }
        return asks[provider, stream]()


def last_response(events: Sequence[ResponseStreamEvent]) -> Response:
    """Return the reply of a stream's last event, after comparing it with the deltas."""
    last = events[-1]
    assert isinstance(last, ResponseCompletedEvent | ResponseIncompleteEvent), last.type
    assert joined(events) == last.response.output_text
    assert [event.sequence_number for event in events] == list(range(len(events)))
    return last.response


def joined(events: Iterable[ResponseStreamEvent]) -> str:
    """Return the text of the deltas."""
    return "".join(event.delta for event in events if event.type == "response.output_text.delta")
