"""How good `muse insight` is on the example journal, whichever model answers; it knows the facts and no provider.

    python -m benchmarks.local_quality                       the embedded model
    MUSE_PROVIDER=openai python -m benchmarks.local_quality  another one, with its key set

For each transcript of fixtures/journal it looks whether the chosen sentence bears a fact of FACTS.md (its literal
words), or at least is about one (three telling words in common), and whether the title is made of words of the
sentence. What counting alone would get (the weightiest sentence, or one of the shortlist by chance) stands beside it.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from muse import models
from think.daily_summary.build import CONTEXT, Finding, make_digest
from think.entries.transcripts import Part, read_day
from think.llm.cached_calls import Call, Questions
from think.llm.multiple_choice import MOST_CHOICES
from think.llm.sentence_ranking import Sentence, Weights, sentences_of, telling_words, words_of

EXAMPLE = Path(__file__).resolve().parents[1] / "fixtures" / "journal"
_ROW = re.compile(r"\| \d+ \| (?P<fact>.*) \| `(?P<file>[^`]+)` \| (?P<words>.*) \|")
_IN_COMMON = 3


class Fact(Struct, frozen=True):
    """A row of FACTS.md: what is true, and the words in which its file says so."""

    fact: str
    words: str


class Score(Struct, frozen=True):
    """How one transcript came out; `weightiest` and `by_chance` are what counting alone would have got (0 to 1)."""

    name: str
    sentence: str
    title: str
    has_facts: bool
    bears: bool
    is_about: bool
    is_of_words: bool
    weightiest: tuple[bool, bool]
    by_chance: tuple[float, float]


def main() -> int:
    """Measure and print; 1 if a question failed."""
    os.environ.setdefault("MUSE_PROVIDER", "local")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["JOURNAL_PATH"] = folder
        for source in EXAMPLE.glob("2*"):  # not its journal.json, which routes insights elsewhere
            shutil.copytree(source, Path(folder) / source.name)
        scores, calls, failures = [], [], []
        for day in sorted(path.name for path in EXAMPLE.glob("2*")):
            parts = read_day(day)
            findings, asked = asyncio.run(_ask(day, parts))
            calls += asked
            failures += [f"{day}/{finding.source}: {finding.error}" for finding in findings if finding.error]
            scores += list(_scores(day, parts, findings))
        route = models.route(CONTEXT)
    _print(scores, calls, f"{route.provider} {route.model}")
    print(*failures, sep="\n", file=sys.stderr)
    return 1 if failures else 0


async def _ask(day: str, parts: Sequence[Part]) -> tuple[tuple[Finding, ...], list[Call]]:
    questions = Questions({}, on_answer=lambda _key, _answer: None, on_asked=lambda: None)
    digest = await make_digest(day, parts, questions)
    return digest.findings, questions.calls


def _facts() -> Mapping[str, list[Fact]]:
    """The facts by file."""
    facts: dict[str, list[Fact]] = {}
    for line in (EXAMPLE / "FACTS.md").read_text(encoding="utf-8").splitlines():
        if row := _ROW.fullmatch(line.strip()):
            facts.setdefault(row["file"], []).append(Fact(row["fact"], row["words"]))
    return facts


def _scores(day: str, parts: Sequence[Part], findings: Sequence[Finding]) -> Iterator[Score]:
    """The scores of a day's transcripts."""
    facts = _facts()
    of_day = [fact for file, rows in facts.items() if file.startswith(day) for fact in rows]
    weights = Weights(sentence for part in parts for sentence in sentences_of(part))
    for part, finding in zip(parts, findings, strict=True):
        if not part.segment or finding.error:
            continue
        own = facts.get(f"{day}/{part.source}", [])
        pool = weights.shortlist(sentences_of(part), MOST_CHOICES)
        yield Score(
            f"{day}/{part.segment}",
            finding.sentence,
            finding.title,
            bool(own),
            _bears(finding.sentence, own),
            _is_about(finding.sentence, of_day),
            _is_of_words(finding),
            (_bears(pool[0].text, own), _is_about(pool[0].text, of_day)),
            _by_chance(pool, own, of_day),
        )


def _by_chance(pool: Sequence[Sentence], own: Sequence[Fact], of_day: Sequence[Fact]) -> tuple[float, float]:
    return (
        statistics.mean(_bears(sentence.text, own) for sentence in pool),
        statistics.mean(_is_about(sentence.text, of_day) for sentence in pool),
    )


def _bears(sentence: str, facts: Sequence[Fact]) -> bool:
    """Whether a sentence has the literal words of a fact in it, or is itself a good part of them."""
    said = _bare(sentence)
    return any(_bare(fact.words) in said or (said in _bare(fact.words) and len(said.split()) >= 3) for fact in facts)


def _is_about(sentence: str, facts: Sequence[Fact]) -> bool:
    telling = telling_words(sentence)
    return any(len(telling & telling_words(f"{fact.fact} {fact.words}")) >= _IN_COMMON for fact in facts)


def _is_of_words(finding: Finding) -> bool:
    said = {word.lower() for word in words_of(finding.sentence)}
    return all(word.lower() in said for word in words_of(finding.title))


def _bare(text: str) -> str:
    return " ".join(re.sub(r"\W+", " ", text.lower()).split())


def _print(scores: Sequence[Score], calls: Sequence[Call], who: str) -> None:
    for score in scores:
        mark = "fact " if score.bears else "about" if score.is_about else "  -  "
        print(f"{mark}  {score.name}  {score.title}\n       {score.sentence}")
    with_facts = [score for score in scores if score.has_facts]
    print(f"\n{who}: {len(scores)} transcripts, {len(with_facts)} of them with facts in FACTS.md\n")
    print(f"{'':44}{'model':>8}{'weightiest':>12}{'by chance':>11}{'of':>5}")
    _line("sentence bears a fact of its transcript", [(s.bears, s.weightiest[0], s.by_chance[0]) for s in with_facts])
    _line("sentence is about a fact of its day", [(s.is_about, s.weightiest[1], s.by_chance[1]) for s in scores])
    print(f"{'title is made of words of the sentence':44}{sum(s.is_of_words for s in scores):>8}{len(scores):>28}")
    seconds = [call.duration_s for call in calls]
    print(
        f"\n{len(calls)} calls; {_elapsed(calls) / len(scores):.2f} s a transcript, slowest call {max(seconds):.2f} s"
    )


def _line(name: str, rows: Sequence[tuple[bool, bool, float]]) -> None:
    model, weightiest, chance = (sum(column) for column in zip(*rows, strict=True))
    print(f"{name:44}{model:>8}{weightiest:>12}{chance:>11.1f}{len(rows):>5}")


def _elapsed(calls: Sequence[Call]) -> float:
    """From the first call's start to the last one's end, in seconds."""
    return max(call.started_s + call.duration_s for call in calls) - min(call.started_s for call in calls)


if __name__ == "__main__":
    started_s = time.perf_counter()
    status = main()
    print(f"{time.perf_counter() - started_s:.0f} s in all")
    sys.exit(status)
