"""Asks muse over the loopback server, in each way there is, and reports what came; it knows no scenario's meaning."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from muse import models
from muse.errors import MuseError, ReplyError
from muse.types.messages import Reply
from tests.journal_folder import JournalFolder
from tests.loopback.outcomes import Outcome, call
from tests.loopback.server import LoopbackServer, Request, Step
from tests.provider_cases import GATEWAY, Case, Failure, Seen

WAYS = ("sync", "async", "stream", "astream")
CONTEXT = "app.tides.turn"
QUESTION = "When does the tide turn?"


class Desk:
    """One journal and one server; `use` points every context at a provider there."""

    def __init__(self, server: LoopbackServer, journal: JournalFolder, monkeypatch: pytest.MonkeyPatch) -> None:
        self.server = server
        self.journal = journal
        self._monkeypatch = monkeypatch

    def use(self, case: Case, *, url: str | None = None) -> None:
        """Route everything to `case` at `url`, the server's by default."""
        self.reach(case, url=url)
        self.journal.write({"providers": case.providers(url or self.server.url)})

    def reach(self, *cases: Case, url: str | None = None) -> None:
        """Set the variables by which `cases` are reached."""
        for case in cases:
            for name, value in case.environment(url or self.server.url).items():
                self._monkeypatch.setenv(name, value)

    def use_all(self, cases: Sequence[Case]) -> None:
        """Route the context `app.<name>` to each of `cases`."""
        self.reach(*cases)
        contexts = {f"app.{case.name}": {"provider": case.name, "model": case.model} for case in cases}
        self.journal.route(contexts=contexts)

    def ask(self, way: str, contents: Any = QUESTION, *, context: str = CONTEXT, **options: Any) -> Reply:
        """The reply to one call, made in one of the `WAYS`."""
        match way:
            case "sync":
                return models.reply(contents, context, **options)
            case "async":
                return asyncio.run(models.areply(contents, context, **options))
            case "stream":
                with models.stream(contents, context, **options) as stream:
                    return stream.reply
        return asyncio.run(_astreamed(contents, context, options))

    def see(self, way: str, **options: Any) -> Seen:
        """What came of one call: the reply's neutral part, or the error's."""
        try:
            return seen(self.ask(way, **options))
        except MuseError as error:
            return Seen(failure=Failure.of(error), text=error.text if isinstance(error, ReplyError) else "")

    def fail(self, way: str, contents: Any = QUESTION, **options: Any) -> MuseError:
        """The error of a call that is to fail."""
        with pytest.raises(MuseError) as caught:
            self.ask(way, contents, **options)
        return caught.value

    def play(self, case: Case, *steps: Step) -> None:
        """Have the server answer the next requests to `case` with `steps`."""
        self.server.script(case.wire, steps)

    def sent(self, way: str = "sync", contents: Any = QUESTION, **options: Any) -> Request:
        """The one request that arrives at the server when this is asked."""
        before = len(self.server.requests)
        self.ask(way, contents, **options)
        assert len(self.server.requests) == before + 1
        return self.server.requests[before]

    def last_line(self) -> dict[str, Any]:
        """The newest line of the token log."""
        return self.journal.lines()[-1]


async def _astreamed(contents: Any, context: str, options: Mapping[str, Any]) -> Reply:
    async with await models.astream(contents, context, **options) as stream:
        return await stream.reply()


def seen(reply: Reply) -> Seen:
    """A reply without what depends on provider and time."""
    usage = reply.usage
    outcome = Outcome(
        reply.text,
        0 if usage.estimated else usage.input_tokens,
        0 if usage.estimated else usage.output_tokens,
        reply.finish,
        usage.cached_tokens,
        usage.reasoning_tokens,
        reply.thinking,
        tuple(call(made.name, dict(made.args)) for made in reply.turn.calls),
    )
    return Seen(outcome, reply.model, estimated=usage.estimated)


@pytest.fixture(scope="session")
def loopback() -> Iterator[LoopbackServer]:
    """One server for all tests."""
    with LoopbackServer() as server:
        yield server


@pytest.fixture
def server(loopback: LoopbackServer) -> LoopbackServer:
    """The server without requests and scripts of the test before."""
    loopback.reset()
    return loopback


@pytest.fixture
def desk(server: LoopbackServer, journal: JournalFolder, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """The front desk over that server."""
    monkeypatch.delenv(f"{GATEWAY.upper()}_API_KEY", raising=False)
    return Desk(server, journal, monkeypatch)
