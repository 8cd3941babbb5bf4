"""Topics, setting and mood of a day's transcripts; it names no model, journal.json says who is asked."""

from __future__ import annotations

import msgspec

from muse.cli._terminal.terminal import say
from muse.errors import InvalidReply
from observe.segments.results import DayDone, OnStep, SegmentDone, ignore_step
from observe.segments.runner import go_round
from observe.segments.segments import Segment, segments_of
from observe.segments.state_files import drop_failed, load_json, not_usable, now, save_json
from observe.summaries.command import Telling, run
from observe.summaries.enrichment import CONTEXT, Enrichment, enrich, summary_of
from observe.summaries.sources import read_source, transcript_of
from observe.transcripts.parser import TRANSCRIPTS

FILE = "enrichment.json"
_EPILOG = """\
Of each transcript it is said what it is about (topics), in what setting it was spoken, and in what mood. The result is
kept as enrichment.json in the segment; what is unchanged is not asked again. A reply that does not fit is sent back
once, then kept as enrichment.failed.json, and asked for again the next time. A file (text, SRT, VTT, JSON of common
recorders) is enriched and printed, and nothing is kept.

Who is asked says journal.json:
  muse route observe.enrich --explain

For example:
  muse enrich                             the latest day with a transcript
  muse enrich 20261103 --segment 140000_2040
  muse enrich meeting.vtt --json
"""


class DayEnriched(DayDone, frozen=True, kw_only=True):
    """What came of enriching a day."""


async def enrich_day(
    day: str, *, force: bool = False, segment: str | None = None, on_step: OnStep | None = None
) -> DayEnriched:
    """Enrich the transcripts of a day, or of the one segment that is named; unchanged ones are skipped.

    Raises:
        ConfigError: nothing can be asked at all (no such provider, no key, no model), or there is no such segment.
    """
    found = [one for one in segments_of(day, segment) if transcript_of(one)]

    async def work(one: Segment) -> SegmentDone:
        return await _enrich_segment(one, force=force)

    return DayEnriched.of(day, await go_round(found, work, on_step or ignore_step))


async def _enrich_segment(segment: Segment, *, force: bool) -> SegmentDone:
    source = read_source(segment, with_screen=False)
    path, file = segment.folder / FILE, f"{segment.name}/{FILE}"
    if source is None:
        return SegmentDone(segment.name, "skipped", "no words in its transcript", "")
    if not force and load_json(path).get("made_from") == source.mark:
        return SegmentDone(segment.name, "skipped", "unchanged since it was enriched", file)
    try:
        made = await enrich(source, segment=segment.name)
    except InvalidReply as exc:
        return not_usable(segment.name, path, CONTEXT, exc)
    facts = {"made_at": now(), "made_from": source.mark, "sources": list(source.files)}
    save_json(path, {**msgspec.to_builtins(made), **facts})
    drop_failed(path)
    return SegmentDone(segment.name, "done", summary_of(made), file, made.cost_usd, source.problems)


def main(argv: list[str] | None = None) -> int:
    """Run `muse enrich`; 0 done, 1 something failed, 2 used wrongly.

    Raises:
        MuseError: nothing could be made: no such day or file, no key, no model.
    """
    return run(_COMMAND, argv)


def _show(made: Enrichment) -> None:
    say(summary_of(made))
    say(", ".join(f"{one.name} {one.share:.0%}" for one in made.speakers) or "no speakers named", "dim")


_COMMAND = Telling(
    name="enrich",
    description="Say what the transcripts of a day are about, in what setting and mood.",
    epilog=_EPILOG,
    context=CONTEXT,
    wanted=TRANSCRIPTS,
    nothing="no transcript",
    of_day=enrich_day,
    of_source=enrich,
    show=_show,
)
