"""Shows that what stands in the journal is found, in what order, how it is shown, and what may be asked."""

from __future__ import annotations

import re
import shutil
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.journal_entries import write_entry
from tests.journal_folder import ROOT
from think.entries.entries import kind_of, read_entries
from think.entries.passages import PASSAGE_CHARS, passages_of
from think.search.index import SearchIndex
from think.search.query import MARK, MOST_CHARS, MOST_WORDS, SNIPPET_CHARS, Found, Query, QueryError, search

EXAMPLE = ROOT / "fixtures" / "journal"
FACTS = re.findall(r"^\| \d+ \| .*? \| `(\d{8}/[^`]+)` \| (.+?) \|$", (EXAMPLE / "FACTS.md").read_text("utf-8"), re.M)
HELD = [(path, words) for path, words in FACTS if kind_of(path)]


@pytest.fixture(name="root", scope="module")
def _root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example journal."""
    root = tmp_path_factory.mktemp("example") / "journal"
    shutil.copytree(EXAMPLE, root)
    return root


@pytest.fixture(name="example", scope="module")
def _example(root: Path) -> Iterator[SearchIndex]:
    """The example's index; no test that uses it changes the files."""
    index = SearchIndex(root)
    yield index
    index.close()


@pytest.fixture(name="index")
def _index(tmp_path: Path) -> Iterator[SearchIndex]:
    """The index of an empty journal."""
    index = SearchIndex(tmp_path)
    yield index
    index.close()


def _entries(found: Found) -> list[str]:
    return [hit.entry for hit in found.hits]


def _text(root: Path, entry: str) -> str:
    found = {one.name: one.text for one in read_entries(root, entry.partition("#")[0])}
    return found[entry]


# --- what is found


@pytest.mark.parametrize(("path", "words"), HELD, ids=[words[:40] for _, words in HELD])
def test_each_fact_of_the_example_is_found_by_its_words(example: SearchIndex, path: str, words: str) -> None:
    found = search(Query(words, limit=5), example)
    assert path in [entry.partition("#")[0] for entry in _entries(found)]


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ("What did I decide about the release on Tuesday?", "12 November"),
        ("Who is the intern?", "Tomasz"),
        ("What is the budget for the thermal camera?", "2,400 pounds"),
        ("When is my holiday?", "21 December to 1 January"),
        ("how many croissants did Saltmarsh lose", "140"),
        ("Which pull request fixes the humidity?", "482"),
    ],
)
def test_a_question_is_answered_by_one_of_the_first_passages(example: SearchIndex, question: str, said: str) -> None:
    found = search(Query(question, limit=3), example)
    assert any(said in hit.snippet.replace(MARK, "") for hit in found.hits)


def test_words_match_in_other_forms_cases_and_without_accents(index: SearchIndex) -> None:
    write_entry(index.root, "20260105/notes/0900_cafe.md", "# Café\n\nThe bakers RELEASED it.")
    index.refresh()
    for words in ("cafe releasing", "CAFÉ", unicodedata.normalize("NFD", "café"), "baker release"):
        assert search(Query(words), index).total == 1, words


def test_what_stands_in_quotation_marks_or_holds_no_blank_stays_together(index: SearchIndex) -> None:
    write_entry(index.root, "20260105/notes/0900_a.md", "Ada Berg met Bert Lund about CW-318.")
    write_entry(index.root, "20260105/notes/0910_b.md", "Berg and Ada: CW 17, page 318.")
    index.refresh()
    assert search(Query("Ada Berg"), index).total == 2
    assert _entries(search(Query('"Ada Berg"'), index)) == ["20260105/notes/0900_a.md"]
    assert _entries(search(Query("CW-318"), index)) == ["20260105/notes/0900_a.md"]
    assert search(Query('a stray " quote Ada'), index).total == 2


@pytest.mark.parametrize(
    "words", ["Tuesday handshake", "3 November handshake", "2026-11-03 handshake", "20261103 handshake"]
)
def test_the_names_of_a_day_find_what_is_of_that_day(index: SearchIndex, words: str) -> None:
    for day in ("20261102", "20261103", "20261104"):
        write_entry(index.root, f"{day}/notes/0900_note.md", "A handshake.")
    index.refresh()
    assert search(Query(words), index).hits[0].day == "20261103"


def test_passages_with_all_words_come_before_those_with_any(index: SearchIndex) -> None:
    write_entry(index.root, "20260105/notes/0900_often.md", "# Quince\n\nquince quince quince")
    write_entry(index.root, "20260105/notes/0910_both.md", f"A quince {'and other things ' * 30} near a plum.")
    write_entry(index.root, "20260105/notes/0920_other.md", "plum plum")
    index.refresh()
    found = search(Query("quince plum"), index)
    assert found.total == 3
    assert _entries(found)[0] == "20260105/notes/0910_both.md"


def test_days_and_kind_limit_what_is_found(example: SearchIndex) -> None:
    everywhere = search(Query("release", limit=50), example)
    within = search(Query("release", "20261103", "20261104", "note", limit=50), example)
    expected = [hit for hit in everywhere.hits if "20261103" <= hit.day <= "20261104" and hit.kind == "note"]
    assert sorted(_entries(within)) == sorted(hit.entry for hit in expected)
    assert 0 < within.total == len(expected) < everywhere.total


def test_pages_hold_every_hit_once(example: SearchIndex) -> None:
    whole = search(Query("Jonas door test", limit=100), example)
    pages = [search(Query("Jonas door test", limit=7, offset=offset), example) for offset in range(0, 100, 7)]
    assert [hit for page in pages for hit in page.hits] == list(whole.hits)
    assert {page.total for page in pages} == {whole.total}


def test_a_large_journal_ranks_by_the_rarer_words(index: SearchIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    for minute in range(10, 30):
        write_entry(index.root, f"20260105/notes/09{minute}_n.md", "Common words and more words.")
    write_entry(index.root, "20260106/notes/0900_rare.md", "Common words with a quince.")
    monkeypatch.setattr("think.search.query._CANDIDATES", 5)
    index.refresh()
    found = search(Query("quince nowhere common"), index)
    assert _entries(found) == ["20260106/notes/0900_rare.md"]
    assert f"{MARK}Common{MARK}" in found.hits[0].snippet


# --- how it is shown


def test_a_hit_in_a_transcript_has_speaker_clock_time_and_where_to_read_on(example: SearchIndex, root: Path) -> None:
    hit = search(Query('"So decided"', kind="transcript"), example).hits[0]
    assert (hit.entry, hit.speaker, hit.time) == ("20261103/140000_2040/transcript.jsonl", "Beatriz", "14:32")
    assert hit.snippet.startswith(f"{MARK}So decided{MARK}, at 14:32.")
    assert _text(root, hit.entry)[hit.offset :].startswith("14:32 Beatriz: So decided, at 14:32.")


def test_the_offset_of_a_hit_leads_to_its_words(example: SearchIndex, root: Path) -> None:
    for word in ("croissants", "soak", "Tomasz", "Dublin", "pounds"):
        for hit in search(Query(word, limit=50), example).hits:
            marked = re.search(re.escape(MARK) + "(.+?)" + re.escape(MARK), hit.snippet)
            assert marked
            assert marked[1] in _text(root, hit.entry)[hit.offset : hit.offset + PASSAGE_CHARS]


def test_a_long_line_is_cut_around_the_word(index: SearchIndex) -> None:
    write_entry(index.root, "20260105/notes/0900_long.md", f"{'before ' * 90}needle {'after ' * 2_000}")
    index.refresh()
    snippet = search(Query("needle"), index).hits[0].snippet
    assert f"{MARK}needle{MARK}" in snippet
    assert len(snippet) < SNIPPET_CHARS + 20
    assert snippet.startswith("… before")
    assert snippet.endswith("after …")


def test_an_insight_is_found_under_the_heading_of_its_section(example: SearchIndex) -> None:
    hit = search(Query("Nightwatch stays Thursday", kind="insight"), example).hits[0]
    assert hit.title == "Decisions of Tuesday 3 November 2026: Nightwatch 1.8 stays on Thursday 5 November 2026"


def test_control_characters_surrogates_and_bad_lines_are_left_out(
    index: SearchIndex, caplog: pytest.LogCaptureFixture
) -> None:
    lines = (
        '{"start_s": 1, "text": "Quince\\u0002 \\ud800 tree\\u0000"}\nno json\n[1]\n{"start_s": true, "text": "Plum"}\n'
    )
    write_entry(index.root, "20260105/090000_60/transcript.jsonl", lines)
    index.refresh()
    hit = search(Query("quince"), index).hits[0]
    assert hit.snippet == f"{MARK}Quince{MARK} ? tree\nPlum"
    assert "2 lines are no JSON objects" in caplog.text


# --- what may be asked


@pytest.mark.parametrize("text", ["", " ", "?!", "🙂", "\x00", '"""', "' OR --", "\ud800"])
def test_a_query_without_words_says_what_would_be_right(example: SearchIndex, text: str) -> None:
    if not any(char.isalnum() for char in text):
        with pytest.raises(QueryError, match="expected what to look for"):
            search(Query(text), example)
    else:
        assert search(Query(text), example).total >= 0


def test_a_huge_query_says_how_much_may_be_asked(example: SearchIndex) -> None:
    with pytest.raises(QueryError, match=f"expected {MOST_CHARS} at most"):
        search(Query("word " * 100_000), example)
    with pytest.raises(QueryError, match=f"expected {MOST_WORDS} at most"):
        search(Query(" ".join(f"w{number}" for number in range(MOST_WORDS + 1))), example)


def test_fillers_alone_are_looked_for_as_they_are(example: SearchIndex) -> None:
    assert search(Query("who are you"), example).total > 0


@pytest.mark.parametrize(
    "text", ["title:release", "release*", "NEAR(a b)", "a AND OR NOT", "(release", "-release", "^release", "a\x00b"]
)
def test_the_query_language_of_the_index_is_out_of_reach(example: SearchIndex, text: str) -> None:
    assert search(Query(text), example).total >= 0


@given(st.text(max_size=60))
def test_any_text_is_a_query_or_told_what_would_be_one(example: SearchIndex, text: str) -> None:
    try:
        found = search(Query(text, limit=3), example)
    except QueryError:
        assert not any(char.isalnum() for char in text)
    else:
        assert len(found.hits) == min(3, found.total)
        assert all(char.isprintable() or char == "\n" for hit in found.hits for char in hit.snippet)


# --- how Markdown becomes passages


_MARKDOWN = st.lists(
    st.sampled_from(["alpha ", "bravo ", "c" * 40 + " ", " ", "\n", "\n\n", "\r\n", "\n# ", "\n- ", "\n> "]),
    max_size=400,
)


@given(_MARKDOWN.map("".join))
def test_no_word_of_a_markdown_text_is_lost_and_each_line_says_where_it_is(text: str) -> None:
    passages = passages_of(text, "", "")
    lines = [line for passage in passages for line in passage.lines]
    said = " ".join([*(line.text for line in lines), *(passage.heading for passage in passages)])
    assert set(re.findall(r"\w+", text)) <= set(re.findall(r"\w+", said))
    for line in lines:
        assert len(line.text) <= PASSAGE_CHARS
        assert line.text.split()[:1] == [] or line.text.split()[0] in text[line.offset :]
