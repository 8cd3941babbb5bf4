"""Tool calls in answers and conversations: streamed pieces, arguments, and ids that providers accept.

Entry points: `parse_args`, `args_text`, `ToolCallJoiner`, `fresh_ids`, `fit_ids`, `wire_name`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count
from string import ascii_letters, digits
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from muse.types.messages import Assistant, ToolCall, ToolResults, Turn
from muse.types.surrogates import join_surrogates_in

_decode = msgspec.json.Decoder().decode
# The prefix of the ids that muse gives to calls without one.
OWN_ID = "muse-call-"


def parse_args(said: object) -> Mapping[str, Any]:
    """Return a tool call's arguments, given as JSON text or as an object; null or an empty text gives none.

    A value that is not an object is kept under `_invalid`, so that it is refused where the tool is called.
    """
    if not isinstance(said, str):
        return as_args(said)
    value = _parsed(said)
    if isinstance(value, str) and value.lstrip().startswith("{"):  # encoded twice
        value = _parsed(value)
    return as_args(value)


def as_args(value: object) -> Mapping[str, Any]:
    """Return a decoded value as a tool call's arguments.

    Null gives none. A value that is not an object is kept under `_invalid`, so that it is refused later.
    """
    if isinstance(value, dict):
        return value
    return {} if value is None else {"_invalid": value}


def args_text(said: object) -> str:
    """Return a tool call's arguments as the JSON text of an object, for OpenAI-shaped messages; `{}` for none.

    Text that is an object already is returned unchanged. Any other value is put under `_invalid`, because endpoints
    refuse a conversation with a call whose arguments cannot be read.
    """
    args = parse_args(said)
    if isinstance(said, str) and args and _is_object(said):
        return said
    return json.dumps(args, ensure_ascii=False)


def _is_object(text: str) -> bool:
    try:
        return isinstance(_decode(text), dict)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return False


def wire_name(name: object) -> str:
    """Return the name of a called tool in a form every endpoint accepts: at most 64 letters, digits, `_` and `-`."""
    return _NO_NAME.sub("_", str(name or ""))[:64] or "_"


_NO_NAME = re.compile("[^A-Za-z0-9_-]")


def _parsed(text: str) -> Any:
    """Return a text decoded as JSON; the text itself if it is not JSON."""
    if not text.strip():
        return None
    try:
        return _decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        pass
    try:
        return join_surrogates_in(json.loads(text, strict=False))
    except (ValueError, RecursionError):
        return _said_again(text)


_decoder = json.JSONDecoder(strict=False)


def _said_again(text: str) -> Any:
    """Return the one object that a text repeats, or has after empty ones, as with a repeated call; else `text`."""
    said: list[Any] = []
    rest = text.strip()
    try:
        while rest.startswith("{"):
            value, end = _decoder.raw_decode(rest)
            said += [value] if value and value not in said else []
            rest = rest[end:].lstrip()
    except (ValueError, RecursionError):
        return text
    return join_surrogates_in(said[0]) if len(said) == 1 and not rest else text


class ToolCallJoiner:
    """An accumulator that joins streamed pieces of tool calls in the form of Chat Completions.

    A piece belongs to the call of its id, else to that of its index, else to the last one. Servers leave out ids and
    indices, repeat the name in each piece, or give all calls the same index. A call's name is set only once.
    """

    def __init__(self) -> None:
        self._calls: list[_Joined] = []

    def add(self, pieces: Iterable[Mapping[str, Any]]) -> None:
        """Take the pieces of one event."""
        touched: list[_Joined] = []
        for piece in pieces:
            function = piece.get("function") or {}
            call = self._call_of(piece, function, touched)
            if call is None:
                call = _Joined(place=len(self._calls))
                self._calls.append(call)
            touched.append(call)
            call.take(piece, function)

    def calls(self) -> list[dict[str, Any]]:
        """Return the calls in the form of a whole message, in the order of their indices."""
        ordered = sorted(self._calls, key=lambda call: call.place if call.index is None else call.index)
        return [call.whole() for call in ordered]

    def _call_of(self, piece: Mapping[str, Any], function: Mapping[str, Any], touched: list[_Joined]) -> _Joined | None:
        """Return the call that a piece continues; None if the piece starts a new one."""
        call_id, index, name = str(piece.get("id") or ""), index_of(piece), function.get("name")
        same = [call for call in self._calls if call.call_id == call_id] if call_id else []
        if same:
            return next((call for call in same if index is None or call.index in (None, index)), None)
        if index is not None:
            known = next((call for call in reversed(self._calls) if call.index == index), None)
            if known is None or (call_id and known.call_id and name and not known.goes_on(function)):
                return None
            return None if known.is_followed_by(function) else known
        last = self._calls[-1] if self._calls else None
        if last is None or call_id or any(call is last for call in touched) or last.is_followed_by(function):
            return None
        return last if not name or last.name in ("", name) else None


def index_of(piece: Mapping[str, Any]) -> int | None:
    """Return the index of a piece's call or block; None if the server leaves it out."""
    index = piece.get("index")
    return index if isinstance(index, int) else None


class _Joined:
    """A tool call as far as its pieces have come."""

    __slots__ = ("_args", "_further", "_value", "call_id", "index", "name", "place")

    def __init__(self, place: int) -> None:
        self.place = place
        self.call_id = ""
        self.index: int | None = None
        self.name = ""
        self._args: list[str] = []
        self._value: Any = None
        self._further: dict[str, Any] = {}

    def take(self, piece: Mapping[str, Any], function: Mapping[str, Any]) -> None:
        """Add a piece."""
        self.call_id = self.call_id or str(piece.get("id") or "")
        self.index = index_of(piece) if self.index is None else self.index
        self.name = self.name or str(function.get("name") or "")
        args = function.get("arguments")
        if isinstance(args, str):
            self._args.append(args)
        elif args is not None:
            self._value = args
        self._further |= {key: value for key, value in piece.items() if key not in ("id", "index", "function", "type")}

    def is_followed_by(self, function: Mapping[str, Any]) -> bool:
        """Return True if a piece starts another call.

        It does if it has a name and arguments, and the arguments here are complete.
        """
        is_begun = function.get("name") and function.get("arguments") not in (None, "")
        return bool(is_begun) and self._has_args() and self._is_whole()

    def goes_on(self, function: Mapping[str, Any]) -> bool:
        """Return True if a piece with another id still belongs here.

        It does if it has the same name, and the arguments so far are incomplete. Arguments that begin with a brace
        where none may follow belong to another call.
        """
        if function.get("name") != self.name or not self._has_args() or self._is_whole():
            return False
        begins = str(function.get("arguments") or "").lstrip().startswith("{")
        return not begins or "".join(self._args).rstrip().endswith((":", "[", ","))

    def _has_args(self) -> bool:
        return self._value is not None or any(map(str.strip, self._args))

    def _is_whole(self) -> bool:
        text = "".join(self._args).rstrip()
        return self._value is not None or (text.endswith("}") and isinstance(_parsed(text), dict))

    def whole(self) -> dict[str, Any]:
        """Return the call in the form of a message."""
        arguments = "".join(self._args) or args_text(self._value)
        function = {"name": self.name, "arguments": arguments}
        return {**self._further, "id": self.call_id, "type": "function", "function": function}


class IdRule(Struct, frozen=True):
    """The call ids that a provider accepts.

    Attributes:
        pattern: A pattern that a whole id must match.
        length: The number of characters of a new id.
    """

    pattern: str
    length: int = 24


def fresh_ids(turns: Iterable[Turn], told: Sequence[str]) -> list[str]:
    """Return the ids for the calls of an answer: the given ones, or a new one if it is missing or already used.

    These ids identify the calls and results of a whole run, so no two calls may share one.
    """
    taken = {call.call_id for turn in turns if isinstance(turn, Assistant) for call in turn.calls}
    numbers = count(len(taken))
    return [_fresh(call_id, taken, numbers) for call_id in told]


def _fresh(told: str, taken: set[str], numbers: Iterator[int]) -> str:
    """Return `told`, or a new id if it is empty or used, and add the result to `taken`."""
    found = told if told and told not in taken else next(one for one in _own_ids(numbers) if one not in taken)
    taken.add(found)
    return found


def _own_ids(numbers: Iterator[int]) -> Iterator[str]:
    return (f"{OWN_ID}{number}" for number in numbers)


def fit_ids(turns: tuple[Turn, ...], provider: str, rule: IdRule) -> tuple[Turn, ...]:
    """Return a conversation whose calls have unique ids that `provider` accepts; results keep matching their calls.

    The provider's own turns are replayed unchanged, so their ids stay. The same conversation always gives the same ids.
    """
    if not any(isinstance(turn, Assistant) and turn.calls for turn in turns):
        return turns
    fits = re.compile(rule.pattern).fullmatch
    own = (turn for turn in turns if isinstance(turn, Assistant) and is_own(turn, provider))
    taken = {call.call_id for turn in own for call in turn.calls}
    fitted: list[Turn] = []
    renamed: dict[str, str] = {}
    for turn in turns:
        if isinstance(turn, Assistant) and turn.calls:
            renamed = {}
            is_kept = is_own(turn, provider)
            calls = turn.calls if is_kept else tuple(_fitted(turn.calls, taken, renamed, fits, rule.length))
            fitted.append(replace(turn, calls=calls) if renamed else turn)
        elif isinstance(turn, ToolResults) and renamed:
            results = (replace(one, call_id=renamed.get(one.call_id, one.call_id)) for one in turn.results)
            fitted.append(replace(turn, results=tuple(results)))
        else:
            fitted.append(turn)
    return tuple(fitted)


def is_own(turn: Assistant, provider: str) -> bool:
    """Return True if a turn is replayed to `provider` in the form in which it came."""
    return bool(turn.native) and turn.provider == provider


def _fitted(
    calls: Iterable[ToolCall], taken: set[str], renamed: dict[str, str], fits: Any, length: int
) -> Iterator[ToolCall]:
    for call in calls:
        if call.call_id not in taken and fits(call.call_id):
            taken.add(call.call_id)
            yield call
            continue
        hashes = (_short(f"{call.call_id}#{number}", length) for number in count())
        call_id = renamed[call.call_id] = next(one for one in hashes if one not in taken)
        taken.add(call_id)
        yield replace(call, call_id=call_id)


_LETTERS = ascii_letters + digits


def _short(text: str, length: int) -> str:
    """Return `length` letters and digits derived from `text`, the same each time."""
    from random import Random  # takes 1 ms, which only ids that do not fit need

    return "".join(Random(text.encode(errors="replace")).choices(_LETTERS, k=length))  # noqa: S311 - no secret
