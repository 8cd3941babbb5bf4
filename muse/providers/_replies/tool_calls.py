"""Tool calls in answers and conversations: pieces joined, arguments read, ids made unique and fit for a provider."""

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
# How ids begin that muse gives to calls without one.
OWN_ID = "muse-call-"


def parse_args(said: object) -> Mapping[str, Any]:
    """A tool call's arguments from their JSON text, or the object itself; null and nothing mean none.

    What is no object is kept under `_invalid`, to be refused where the tool is called.
    """
    if not isinstance(said, str):
        return as_args(said)
    value = _parsed(said)
    if isinstance(value, str) and value.lstrip().startswith("{"):  # encoded twice
        value = _parsed(value)
    return as_args(value)


def as_args(value: object) -> Mapping[str, Any]:
    """A tool call's arguments; null means none, what is no object is kept under `_invalid`, to be refused."""
    if isinstance(value, dict):
        return value
    return {} if value is None else {"_invalid": value}


def args_text(said: object) -> str:
    """A tool call's arguments as the JSON text of an object, which OpenAI-shaped messages carry; `{}` for none.

    A text that is one stays as it is. What is no object is carried under `_invalid`: endpoints refuse a conversation
    in which a call has arguments that cannot be read.
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
    """The name of a called tool as every endpoint takes it back: letters, digits, `_` and `-`, at most 64 of them."""
    return _NO_NAME.sub("_", str(name or ""))[:64] or "_"


_NO_NAME = re.compile("[^A-Za-z0-9_-]")


def _parsed(text: str) -> Any:
    """A text as JSON; itself if it is none."""
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
    """The object that a text says more than once, or after empty ones, as when a call is repeated; else `text`."""
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
    """Joins the streamed pieces of tool calls in the form of Chat Completions.

    A piece belongs to the call of its id, else to that of its index, else to the last one. Servers leave out ids and
    indices, repeat the name in each piece, or give all calls the same index; a call's name is set once.
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
        """The calls as a whole message has them, in the order of their indices."""
        ordered = sorted(self._calls, key=lambda call: call.place if call.index is None else call.index)
        return [call.whole() for call in ordered]

    def _call_of(self, piece: Mapping[str, Any], function: Mapping[str, Any], touched: list[_Joined]) -> _Joined | None:
        """The call that a piece goes on with; None if it begins one."""
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
    """The number of a piece's call or block; None where the server leaves it out."""
    index = piece.get("index")
    return index if isinstance(index, int) else None


class _Joined:
    """A call as far as its pieces have come."""

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
        """Whether a piece begins another call: it has a name and arguments, and the arguments here are whole."""
        is_begun = function.get("name") and function.get("arguments") not in (None, "")
        return bool(is_begun) and self._has_args() and self._is_whole()

    def goes_on(self, function: Mapping[str, Any]) -> bool:
        """Whether a piece under another id still belongs here: it has the same name, and arguments are cut off.

        Arguments that begin with a brace where none may follow are those of another call.
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
        """The call as a message has it."""
        arguments = "".join(self._args) or args_text(self._value)
        function = {"name": self.name, "arguments": arguments}
        return {**self._further, "id": self.call_id, "type": "function", "function": function}


class IdRule(Struct, frozen=True):
    """Which ids of calls a provider takes: those that `pattern` fits as a whole; new ones have `length` characters."""

    pattern: str
    length: int = 24


def fresh_ids(turns: Iterable[Turn], told: Sequence[str]) -> list[str]:
    """The ids of the calls of an answer: those that were told, or new ones where one is missing or is taken.

    Calls and results of a whole run are told apart by these ids, so no two calls may share one.
    """
    taken = {call.call_id for turn in turns if isinstance(turn, Assistant) for call in turn.calls}
    numbers = count(len(taken))
    return [_fresh(call_id, taken, numbers) for call_id in told]


def _fresh(told: str, taken: set[str], numbers: Iterator[int]) -> str:
    """`told`, or a new id in its place; it is added to `taken`."""
    found = told if told and told not in taken else next(one for one in _own_ids(numbers) if one not in taken)
    taken.add(found)
    return found


def _own_ids(numbers: Iterator[int]) -> Iterator[str]:
    return (f"{OWN_ID}{number}" for number in numbers)


def fit_ids(turns: tuple[Turn, ...], provider: str, rule: IdRule) -> tuple[Turn, ...]:
    """A conversation whose calls all have ids that `provider` takes, each another one; a call and its result alike.

    The provider's own turns are replayed as they are, so their ids stay. The same conversation gives the same ids.
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
    """Whether a turn is replayed to `provider` in the form in which it came."""
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
    """`length` letters and digits that follow from `text`, the same each time."""
    from random import Random  # 1 ms, and only an id that does not fit pays it

    return "".join(Random(text.encode(errors="replace")).choices(_LETTERS, k=length))  # noqa: S311 - no secret
