"""The journal's search: how long 10,000 entries take to index and to search; it knows no model.

`python -m benchmarks.search` prints the table alone.
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from functools import partial
from itertools import accumulate
from pathlib import Path

from benchmarks.report import Table, at_most
from benchmarks.world import World
from think.search.index import SearchIndex
from think.search.query import Query, search

ENTRIES = 10_000
_QUERIES = 400
_QUICK_QUERIES = 100
_SYLLABLES = "ba bel cor dan del fer gan har jo kel lum mar nor pel quin ras sol tam ven wil yor zan"
_NAMES = "Aldo Brita Cosima Dmitri Esra Fenja Goran Hilde Ines Joost Kaija Lorenz"
# The entries of each day.
_TRANSCRIPTS, _NOTES, _INSIGHTS, _EVENTS = 8, 8, 2, 6
_FREQUENT = "the of and to a in that is we for it on was with as be this have not are"
_A_DAY = _TRANSCRIPTS + _NOTES + _INSIGHTS + _EVENTS


class _Writer:
    """Sentences of made-up words, few of them frequent and most of them rare, as in speech; always the same ones."""

    def __init__(self) -> None:
        self._chance = random.Random(20261103)
        self.words = sorted({"".join(self._chance.choices(_SYLLABLES.split(), k=1 + n % 4)) for n in range(20_000)})
        self._chance.shuffle(self.words)
        self.words[:40] = _FREQUENT.split() * 2
        self._weights = list(accumulate(1 / (rank + 3) for rank in range(len(self.words))))

    def sentence(self, words: int) -> str:
        """Some words and a full stop."""
        return " ".join(self._chance.choices(self.words, cum_weights=self._weights, k=words)).capitalize() + "."

    def name(self) -> str:
        """A person."""
        return self._chance.choice(_NAMES.split())

    def query(self, words: int) -> str:
        """Words as somebody would look for them: neither the most frequent nor only the rarest."""
        return " ".join(self._chance.choices(self.words[40:4_000], k=words))


def make_journal(root: Path, entries: int) -> int:
    """Write a journal of at least `entries` entries; the bytes of its texts."""
    writer = _Writer()
    first = date(2024, 1, 1)
    for number in range(-(-entries // _A_DAY)):
        _make_day(root / f"{first + timedelta(days=number):%Y%m%d}", writer)
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())


def _make_day(day: Path, writer: _Writer) -> None:
    for number in range(_TRANSCRIPTS):
        said = ({"start_s": 20.0 * n, "speaker": writer.name(), "text": writer.sentence(16)} for n in range(40))
        segment = day / f"{9 + number:02d}0000_900"
        segment.mkdir(parents=True)
        (segment / "transcript.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in said), encoding="utf-8")
    for folder, files in (("notes", _NOTES), ("insights", _INSIGHTS)):
        (day / folder).mkdir()
        for number in range(files):
            parts = [f"# {writer.sentence(5)}", *(writer.sentence(30) for _ in range(6))]
            (day / folder / f"{10 + number}15_part.md").write_text("\n\n".join(parts), encoding="utf-8")
    (day / "events.jsonl").write_text("".join(_event(day.name, n, writer) for n in range(_EVENTS)), encoding="utf-8")


def _event(day: str, number: int, writer: _Writer) -> str:
    start = f"{day[:4]}-{day[4:6]}-{day[6:]}T{10 + number}"
    people = [writer.name() for _ in range(4)]
    event = {"start": f"{start}:00:00", "end": f"{start}:30:00", "title": writer.sentence(4), "participants": people}
    return json.dumps({**event, "location": "Video", "notes": writer.sentence(12)}) + "\n"


def tables(world: World) -> Iterator[Table]:
    """Index and search a made-up journal in this process."""
    yield _measure(world.folder / "searched", _QUICK_QUERIES if world.quick else _QUERIES)


def _measure(root: Path, queries: int) -> Table:
    size = make_journal(root, ENTRIES)
    started_s = time.perf_counter()
    index = SearchIndex(root)
    index.refresh()
    cold_s = time.perf_counter() - started_s
    look_ms = sorted(_timed_ms(index.refresh) for _ in range(20))
    writer = _Writer()
    rows = [
        ("index, cold", f"{cold_s:.1f} s", at_most(cold_s, 20)),
        ("look at the files, nothing changed, median", f"{look_ms[10]:.0f} ms", ""),
    ]
    for title, ask in _questions(writer).items():
        spent_ms = sorted(_timed_ms(partial(search, Query(ask()), index)) for _ in range(queries))
        p95_ms = spent_ms[int(0.95 * queries)]
        rows.append((f"{title}, median", f"{spent_ms[queries // 2]:.1f} ms", ""))
        rows.append((f"{title}, p95", f"{p95_ms:.1f} ms", at_most(p95_ms, 30)))
    index.close()
    title = f"Search: {ENTRIES:,} entries, {size / 1e6:.0f} MB of text"
    return Table(
        title,
        ("", "time", "goal"),
        rows,
        "In one process. The first query after 2 s without a look at the files looks first: its time comes on top.",
    )


def _questions(writer: _Writer) -> dict[str, Callable[[], str]]:
    """Queries of three kinds."""
    return {
        "query of two words": lambda: writer.query(2),
        "query of a name and a day": lambda: f"{writer.name()} {writer.query(1)} Tuesday",
        "a question": lambda: f"What did {writer.name()} say about the {writer.query(3)} on 3 March?",
    }


def _timed_ms(call: Callable[[], object]) -> float:
    started_s = time.perf_counter()
    call()
    return (time.perf_counter() - started_s) * 1e3


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory(prefix="muse-search-") as name:
        print(_measure(Path(name) / "journal", _QUERIES).text())


if __name__ == "__main__":
    main()
