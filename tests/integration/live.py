"""What is asked of a real provider, alike for all of them, and what must hold of the answers; it knows no provider."""

from __future__ import annotations

import io
import json
from typing import Any

from PIL import Image, ImageDraw

from muse import models
from muse.providers import get_provider_module
from muse.types.messages import Reply
from tests.journal_folder import JournalFolder

CONTEXT = "muse.test"
PATIENCE_S = 120.0
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "country": {"type": "string"}, "river": {"type": "string"}},
    "required": ["city", "country"],
}


class Live:
    """One provider behind the front desk, with a journal of its own; the cheapest tier answers."""

    def __init__(self, provider: str, journal: JournalFolder) -> None:
        self.provider = provider
        self.journal = journal
        journal.route(contexts={CONTEXT: {"provider": provider, "tier": 3}})

    def ask(self, contents: Any, **options: Any) -> Reply:
        """A reply, with what holds of every one: usage, cost, route, one whole line in the log."""
        reply = models.reply(contents, CONTEXT, timeout_s=PATIENCE_S, **options)
        self.expect_whole(reply)
        return reply

    def expect_whole(self, reply: Reply) -> None:
        """See that nothing is missing in a reply and in its line."""
        line = self.journal.lines()[-1]
        assert reply.text.strip()
        assert (reply.provider, reply.finish) == (self.provider, "stop")
        assert reply.model
        assert reply.usage.input_tokens > 0
        assert reply.usage.output_tokens > 0
        assert not reply.usage.estimated
        assert (reply.cost_usd or 0) > 0, f"no price for {reply.model}"
        assert line["usage"] == reply.usage.as_dict()
        assert (line["model"], line["context"], line["provider"]) == (reply.model, CONTEXT, self.provider)

    def expect_text(self) -> None:
        """A word that was asked for comes back, sync and async alike in form."""
        assert "tide" in self.ask("Say the word 'tide' and nothing else.").text.lower()

    async def expect_async_text(self) -> None:
        """As `expect_text`, awaited."""
        reply = await models.areply("Say the word 'tide' and nothing else.", CONTEXT, timeout_s=PATIENCE_S)
        self.expect_whole(reply)
        assert "tide" in reply.text.lower()

    def expect_history(self) -> None:
        """Roles and system text are understood."""
        turns = [
            {"role": "user", "content": "My name is Fiete."},
            {"role": "assistant", "content": "Hello, Fiete."},
            {"role": "user", "content": "What is my name?"},
        ]
        assert "FIETE" in self.ask(turns, system_instruction="Answer in capital letters only.").text

    def expect_image(self) -> None:
        """Two pictures are seen, and told apart."""
        contents = ["Name the colour of each picture, first one first.", _picture("red"), _picture("blue")]
        words = self.ask(contents).text.lower()
        assert words.index("red") < words.index("blue")

    def expect_schema(self) -> None:
        """A schema in the provider's strict form is kept."""
        reply = self.ask("Which city lies at the mouth of the Elbe?", json_schema=SCHEMA)
        found = json.loads(reply.text)
        assert {"city", "country"} <= set(found)
        place = models.generate_object("Which city lies at the mouth of the Elbe?", CONTEXT, SCHEMA)
        assert isinstance(place["city"], str)

    def expect_json(self) -> None:
        """Plain JSON is JSON."""
        found = json.loads(
            self.ask('Give the colours of the flag of France as {"colours": [...]}.', json_output=True).text
        )
        assert len(found["colours"]) == 3

    def expect_thinking(self) -> None:
        """A budget, none and the model's own way are all taken."""
        for budget in (None, 0, 1_024):
            reply = self.ask("How many weeks are 91 days? Answer with the number.", thinking_budget=budget)
            assert "13" in reply.text

    def expect_stream(self) -> None:
        """A stream comes in pieces, has its usage, and can be left early."""
        with models.stream("Count from one to thirty in words.", CONTEXT, timeout_s=PATIENCE_S) as stream:
            pieces = list(stream)
            self.expect_whole(stream.reply)
        assert len(pieces) > 1
        assert "".join(pieces) == stream.reply.text
        with models.stream("Count from one to three hundred in words.", CONTEXT, timeout_s=PATIENCE_S) as stream:
            next(stream)
        assert self.journal.lines()[-1]["finish"] == "closed"

    async def expect_agent_run(self) -> None:
        """An agent run without tools ends with its answer and the sum of its tokens."""
        events: list[dict[str, Any]] = []
        module = get_provider_module(self.provider)
        config = {"prompt": "Say 'moin'.", "model": models.resolve_provider(CONTEXT)[1], "disable_mcp": True}
        assert "moin" in (await module.run_agent(config, events.append)).lower()
        assert [event["event"] for event in events if event["event"] != "thinking"] == ["start", "finish"]
        assert events[-1]["usage"]["output_tokens"] > 0


def _picture(colour: str) -> bytes:
    buffer = io.BytesIO()
    picture = Image.new("RGB", (96, 96), colour)
    ImageDraw.Draw(picture).rectangle((24, 24, 72, 72), outline="white", width=3)
    picture.save(buffer, "PNG")
    return buffer.getvalue()
