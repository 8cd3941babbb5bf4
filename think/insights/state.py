"""What is kept of a topic of a day, a reply that failed among it; it asks nothing."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from muse.errors import ReplyError
from muse.types.messages import Route
from think.insights.validation import Occurrence
from think.output.store import Kept, Shelf, write_json


class KeptTopic(Kept, kw_only=True):
    """The state of a topic."""

    topic: str
    title: str = ""
    sources: tuple[str, ...] = ()
    occurrences: tuple[Occurrence, ...] = ()
    dropped: int = 0


class FailedReply(Struct, frozen=True):
    """A reply that could not be used, also not when it was asked again: what it said, and what is wrong with it."""

    topic: str
    day: str
    context: str
    at: str
    problem: str
    reply: str
    provider: str = ""
    model: str = ""


class TopicShelf(Shelf[KeptTopic]):
    """The files of one topic of one day."""

    def __init__(self, day: str, name: str) -> None:
        super().__init__(day, name, KeptTopic(day=day, topic=name))
        self.failed_path = self.state_path.with_name(f"{name}.failed.json")

    def failed(self) -> FailedReply | None:
        """The reply that failed at the last run, if one did."""
        try:
            return msgspec.json.decode(self.failed_path.read_bytes(), type=FailedReply)
        except FileNotFoundError:
            return None
        except msgspec.MsgspecError as exc:
            return FailedReply(self.name, self.day, "", "", f"{self.failed_path.name} cannot be read ({exc})", "")

    def keep_failed(self, error: ReplyError, route: Route, at: str) -> None:
        """Keep a reply that cannot be used beside the page, which stays as it is."""
        who = {"provider": error.provider or route.provider, "model": error.model or route.model}
        problem = f"{type(error).__name__}: {error}"
        write_json(self.failed_path, FailedReply(self.name, self.day, route.context, at, problem, error.text, **who))

    def forget_failed(self) -> None:
        """Remove the failed reply: a later run did better."""
        self.failed_path.unlink(missing_ok=True)
