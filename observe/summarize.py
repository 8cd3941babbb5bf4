"""A segment or a file summed up as Markdown with its sources; it names a context, journal.json says who writes.

A model that holds a few pages at most does not write: of each part of the talk it chooses the sentence that tells most,
and what stands in quotation marks stands word for word in the source.
"""

from __future__ import annotations

from muse.cli._terminal.terminal import is_terminal, say
from muse.errors import InvalidReply
from observe.llm.checked_call import room_of
from observe.segments.results import DayDone, OnStep, SegmentDone, ignore_step
from observe.segments.runner import go_round
from observe.segments.segments import Segment, segments_of
from observe.segments.state_files import drop_failed, not_usable
from observe.summaries.command import Telling, run
from observe.summaries.sources import SCREEN, Source, read_source, transcript_of
from observe.summaries.summary import CONTEXT, Summary, choose_summary, write_summary
from observe.summaries.summary_page import FILE, Head, is_made_from, page_of, put_page
from observe.transcripts.parser import TRANSCRIPTS

_EPILOG = """\
Each segment with a transcript, or with frames that were described (muse describe), is summed up; the result is kept as
summary.md in the segment, with what it was made from. What is unchanged is not asked again; a page that somebody else
wrote or changed is set aside, never overwritten. A file (text, SRT, VTT, JSON of common recorders) is summed up and
printed, and nothing is kept. What is long is summed up in pieces, and the pieces once more.

Who is asked says journal.json:
  muse route observe.summarize --explain

For example:
  muse summarize                             the latest day
  muse summarize 20261103 --segment 140000_2040
  muse summarize meeting.vtt
"""


class DaySummarized(DayDone, frozen=True, kw_only=True):
    """What came of summing up a day."""


async def summarize(source: Source, *, segment: str = "") -> Summary:
    """The summary of what was said and seen; `segment` names it in the token log.

    Raises:
        InvalidReply: a reply did not fit, twice.
        MuseError: a call failed.
    """
    room = room_of(CONTEXT)
    if room.writes:
        return await write_summary(source, room, segment)
    return await choose_summary(source, segment)


async def summarize_day(
    day: str, *, force: bool = False, segment: str | None = None, on_step: OnStep | None = None
) -> DaySummarized:
    """Sum up the segments of a day, or the one that is named; unchanged ones are skipped.

    Raises:
        ConfigError: nothing can be asked at all (no such provider, no key, no model), or there is no such segment.
    """
    found = [one for one in segments_of(day, segment) if transcript_of(one) or (one.folder / SCREEN).is_file()]

    async def work(one: Segment) -> SegmentDone:
        return await _summarize_segment(one, force=force)

    return DaySummarized.of(day, await go_round(found, work, on_step or ignore_step))


async def _summarize_segment(segment: Segment, *, force: bool) -> SegmentDone:
    source = read_source(segment, with_screen=True)
    path, file = segment.folder / FILE, f"{segment.name}/{FILE}"
    if source is None:
        return SegmentDone(segment.name, "skipped", "no words in it", "")
    if not force and is_made_from(path, source.mark):
        return SegmentDone(segment.name, "skipped", "unchanged since it was summed up", file)
    try:
        made = await summarize(source, segment=segment.name)
    except InvalidReply as exc:
        return not_usable(segment.name, path, CONTEXT, exc)
    aside = put_page(path, Head(segment.day, segment.name, segment.start_s, source), made)
    drop_failed(path)
    moved = f" (the page that was there is now {aside.name})" if aside else ""
    return SegmentDone(segment.name, "done", f"{made.title}{moved}", file, made.cost_usd, source.problems)


def main(argv: list[str] | None = None) -> int:
    """Run `muse summarize`; 0 done, 1 something failed, 2 used wrongly.

    Raises:
        MuseError: nothing could be made: no such day or file, no key, no model.
    """
    return run(_COMMAND, argv)


def _show(made: Summary) -> None:
    for line in page_of(made, 0).splitlines():
        say(line, "bold" if line.startswith("#") and is_terminal() else "")


_COMMAND = Telling(
    name="summarize",
    description="Sum up what was said and seen on a day, or what stands in a file.",
    epilog=_EPILOG,
    context=CONTEXT,
    wanted=(*TRANSCRIPTS, SCREEN),
    nothing="no transcript and no frames that were described",
    of_day=summarize_day,
    of_source=summarize,
    show=_show,
)
