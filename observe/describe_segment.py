"""One segment described: its frames told apart, the ones worth it read; it draws nothing and knows no command.

Answers come through a `Batch` with a ledger, so that a run which is killed pays nothing twice. Those of earlier runs
stand in screen.jsonl, and are taken from there while picture and prompts are the same.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from muse.batch import Batch, BatchRequest
from muse.errors import InvalidReply, MuseError, ReplyError
from muse.types.formatting import pluralize, total_usd
from observe import extract
from observe.llm.checked_call import object_of
from observe.llm.prompts import prompt_of
from observe.screens import frame_store
from observe.screens.categories import Category, listed
from observe.screens.frame_store import Kept, Line, State
from observe.screens.frames import Frame, changed_frames, inputs_of
from observe.segments.results import OnStep, SegmentDone
from observe.segments.segments import Segment

CONTEXT = "observe.describe.frame"
_MOST_SAID = 2_000
_NOT_ASKED = "not asked: the run ended before"


class Job(Struct, frozen=True):
    """What a run works with: the categories, and how frames are asked about."""

    categories: Mapping[str, Category]
    prompt: str
    force: bool = False

    @property
    def mark(self) -> str:
        """A hash of all that is asked."""
        marks = "".join(f"{one.mark}{one.importance}{one.extraction}" for one in self.categories.values())
        return hashlib.sha256(f"{self.prompt}\n{marks}".encode()).hexdigest()[:16]


def frame_prompt(categories: Mapping[str, Category]) -> str:
    """What is asked about a frame, with the categories and the journal's identity filled in."""
    return prompt_of("frame", {"categories": listed(categories)})


def frame_schema(categories: Mapping[str, Category]) -> dict[str, Any]:
    """The form of the answer about a frame."""
    text = {"type": "string"}
    return object_of({"why": text, "category": {"type": "string", "enum": sorted(categories)}, "description": text})


def is_current(segment: Segment, job: Job) -> bool:
    """Whether nothing has changed since a segment was described as a whole."""
    state = frame_store.load(segment).state
    return bool(state.made_at) and not state.failed and state.prompts == job.mark and state.inputs == inputs_of(segment)


async def describe_segment(segment: Segment, job: Job, batch: Batch, on_step: OnStep) -> SegmentDone:
    """Describe one segment and keep what came of it, failures too.

    Raises:
        MuseError: the ledger cannot be used.
        OSError: the files cannot be written.
    """
    inputs = await asyncio.to_thread(inputs_of, segment)
    step = _named(segment, on_step)
    loop = asyncio.get_running_loop()

    def say_looked(done: int, of: int) -> None:
        loop.call_soon_threadsafe(step, "looked at", done, of)

    looked = await asyncio.to_thread(changed_frames, segment, say_looked)
    run = _Run(segment, job, batch, step)
    lines = await _tell_apart(looked.frames, run)
    lines = await _select(lines, run)
    lines = await _read_off(lines, looked.frames, run)
    unreadable = tuple(Line(trouble.file, None, error=trouble.error) for trouble in looked.troubles)
    failed = sum(bool(line.error) for line in lines) + any(line.selected_why == extract.BY_RULE for line in lines)
    state = State(
        datetime.now().isoformat(sep=" ", timespec="seconds"),
        inputs,
        job.mark,
        len(lines),
        looked.unchanged,
        looked.blank,
        sum(line.selected for line in lines),
        len(unreadable),
        failed,
        total_usd(run.costs),
        (*(trouble.error for trouble in looked.troubles), *run.problems),
    )
    frame_store.save(segment, state, (*lines, *unreadable))
    return _done(segment, state)


def _named(segment: Segment, on_step: OnStep) -> OnStep:
    """Steps said with the segment they belong to."""
    return lambda what, done, of: on_step(f"{segment.day} {segment.at} {what}", done, of)


def _done(segment: Segment, state: State) -> SegmentDone:
    unreadable = f", {state.unreadable} not readable" if state.unreadable else ""
    like = f" ({state.unchanged} unchanged)" if state.unchanged else ""
    about = f"{pluralize(state.frames, 'frame')}{like}, {state.selected} read{unreadable}"
    about += f", {state.failed} failed" if state.failed else ""
    result, file = "failed" if state.failed else "done", f"{segment.name}/screen.jsonl"
    return SegmentDone(segment.name, result, about, file, state.cost_usd, state.problems)


class _Run:
    """The work on one segment: who asks, what it cost so far, what went wrong."""

    def __init__(self, segment: Segment, job: Job, batch: Batch, on_step: OnStep) -> None:
        self.categories = job.categories
        self.prompt = job.prompt
        self.mark = job.mark
        self.kept = Kept(State(), ()) if job.force else frame_store.load(segment)
        self.problems: list[str] = []
        self.costs: list[float | None] = []
        self._batch = batch
        self._segment = segment.name
        self._on_step = on_step

    async def ask(self, requests: Mapping[str, BatchRequest], what: str) -> None:
        """Have requests asked; an outage that ends the batch is told once.

        What the ledger remembers of a run that was broken off was paid by that one.
        """
        done = 0
        self._on_step(what, done, len(requests))
        for request in requests.values():
            request.segment = self._segment
            self._batch.add(request)
        try:
            async for request in self._batch.drain_batch():
                done += 1
                self._on_step(what, done, len(requests))
                if not request.restored:
                    self.costs.append(request.cost_usd)
        except MuseError as exc:
            self.problems.append(str(exc))


async def _tell_apart(frames: Sequence[Frame], run: _Run) -> list[Line]:
    """A line for each frame with its category, kept or asked for; frames that look the same are asked about once."""
    known = {line.key: line for line in run.kept.lines if line.category in run.categories}
    keys = [hashlib.sha256(f"{run.prompt}\n{frame.mark}".encode()).hexdigest()[:24] for frame in frames]
    schema = frame_schema(run.categories)
    asked = {
        key: BatchRequest([run.prompt, frame.picture], CONTEXT, temperature=0.0, json_schema=schema)
        for frame, key in zip(frames, keys, strict=True)
        if key not in known
    }
    await run.ask(asked, "told apart")
    lines: list[Line] = []
    for frame, key in zip(frames, keys, strict=True):
        place = {"file": frame.file, "at_s": frame.at_s, "offset_s": frame.offset_s, "share": frame.share}
        if key in asked:
            lines.append(_first_line(place, key, asked[key]))
        else:
            lines.append(replace(known[key], **place, error="", said=""))
    run.problems += _told([line for line in lines if line.error])
    return lines


def _first_line(place: Mapping[str, Any], key: str, request: BatchRequest) -> Line:
    if request.response is None:
        return Line(**place, key=key, error=_failure(request), said=_said(request))
    said = json.loads(request.response)
    return Line(
        **place,
        key=key,
        category=said["category"],
        why=said["why"],
        description=said["description"],
        provider=request.provider_used or "",
        model=request.model_used or "",
    )


async def _select(lines: list[Line], run: _Run) -> list[Line]:
    """Mark the lines that more is to be read off; kept choices stand while the frames are the same."""
    is_same = run.kept.state.prompts == run.mark
    if is_same and all(line.selected_why not in {"", extract.BY_RULE} or not line.category for line in lines):
        return lines
    choice = extract.by_rule(lines, run.categories)
    chosen: dict[int, str] = dict(choice.taken)
    if choice.open and len(choice.taken) < extract.MOST_EXTRACTED:
        prompt, schema = extract.question(lines, choice, run.categories)
        request = BatchRequest(prompt, extract.CONTEXT, temperature=0.0, json_schema=schema)
        await run.ask({"": request}, "chosen")
        try:
            if request.response is None:
                raise InvalidReply(_failure(request))
            chosen = extract.read_selection(request.response, choice)
        except InvalidReply as exc:
            run.problems.append(f"{extract.CONTEXT}: {exc}; the first frame of each kind was taken instead")
            chosen = extract.first_of_each(lines, choice, run.categories)
    return [
        replace(line, selected=number in chosen, selected_why=chosen.get(number, "not chosen"))
        for number, line in enumerate(lines)
    ]


async def _read_off(lines: list[Line], frames: Sequence[Frame], run: _Run) -> list[Line]:
    """The lines with what was read off the chosen frames, kept or asked for."""
    known = {(line.key, line.extract_key): line for line in run.kept.lines if line.extract_key and not line.error}
    asked: dict[str, BatchRequest] = {}
    done = list(lines)
    for number, line in enumerate(lines):
        category = run.categories.get(line.category)
        if not line.selected or category is None or not category.prompt:
            done[number] = replace(line, output="", extracted=None, extract_key="")
            continue
        before = known.get((line.key, category.mark))
        if before is not None:
            done[number] = replace(line, extracted=before.extracted, extract_key=category.mark, output=category.output)
        else:
            asked.setdefault(line.key, _extraction(category, frames[number]))
    await run.ask(asked, "read")
    for number, line in enumerate(lines):
        if line.selected and line.key in asked:
            done[number] = _read_line(line, run.categories[line.category], asked[line.key])
    run.problems += _told([line for line in done if line.key in asked and line.error])
    return done


def _extraction(category: Category, frame: Frame) -> BatchRequest:
    schema = {"type": "object"} if category.output == "json" else None
    return BatchRequest([category.prompt, frame.picture], category.context, temperature=0.0, json_schema=schema)


def _read_line(line: Line, category: Category, request: BatchRequest) -> Line:
    if request.response is None:
        return replace(line, extracted=None, extract_key="", error=_failure(request), said=_said(request))
    is_json = category.output == "json"
    return replace(
        line,
        output=category.output,
        extracted=json.loads(request.response) if is_json else request.response.strip(),
        extract_provider=request.provider_used or "",
        extract_model=request.model_used or "",
        extract_key=category.mark,
    )


def _failure(request: BatchRequest) -> str:
    kind = f"{type(request.exception).__name__}: " if request.exception is not None else ""
    return f"{kind}{request.error}" if request.error else _NOT_ASKED


def _said(request: BatchRequest) -> str:
    """What a reply that could not be used said, so that it can be seen."""
    return request.exception.text[:_MOST_SAID] if isinstance(request.exception, ReplyError) else ""


def _told(failed: Sequence[Line]) -> list[str]:
    """Failures as texts: each kind once, with how many frames it met."""
    by_text: dict[str, list[str]] = {}
    for line in failed:
        by_text.setdefault(line.error, []).append(line.file)
    return [
        f"{files[0]}{' and ' + pluralize(len(files) - 1, 'more frame') if len(files) > 1 else ''}: {text}"
        for text, files in by_text.items()
    ]
