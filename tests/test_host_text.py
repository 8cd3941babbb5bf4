"""Shows how values read on a page, and that no text of a model or a tool gets a say in it."""

from __future__ import annotations

import pytest
from markupsafe import Markup

from apps.host.formatting import day, format_count, format_duration, format_usd, markdown, when

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[a](javascript:alert(1))",
    "[a](data:text/html;base64,PHNjcmlwdD4=)",
    "![a](http://evil.example/pixel.png)",
    "<style>*{display:none}</style>",
    "<a href='https://evil.example' onclick='x()'>a</a>",
    "<iframe src=//evil.example></iframe>",
    "[x]: javascript:alert(1)\n\n[x]",
    "<form action=//evil.example><input name=csrf_token></form>",
    "[a](java&#115;cript:alert(1))",
    "[a](javascript&colon;alert(1))",
    "[a](<\x01javascript:alert(1)>)",
    "<JAVASCRIPT:alert(1)>",
    "[![a](data:image/svg+xml,<svg/onload=alert(1)>)](vbscript:x)",
    "| <script> | [x](javascript:1) |\n|---|---|\n|<img src=x onerror=1>|b|",
    "<svg><style><!--</style><img title='--&gt;&lt;img src=1 onerror=alert(1)&gt;'>",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_markdown_brings_nothing_that_acts(text: str) -> None:
    html = markdown(text)
    assert isinstance(html, Markup)
    for tag in (
        "<script",
        "<img",
        "<style",
        "<iframe",
        "<form",
        "<input",
        "onclick=x",
        'href="javascript',
        'href="data',
    ):
        assert tag not in html.lower()


def test_markdown_is_shown_as_it_is_meant() -> None:
    html = markdown("# Title\n\n- *one*\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n[more](https://example.org)")
    assert "<h1>Title</h1>" in html
    assert "<em>one</em>" in html
    assert "<td>1</td>" in html
    assert 'href="https://example.org" rel="noopener noreferrer nofollow"' in html
    assert markdown(None) == ""


def test_half_a_character_is_shown_as_a_sign_for_it() -> None:
    assert markdown("a \ud83d b") == "<p>a \ufffd b</p>\n"
    assert markdown("a \ud83d\ude00 b") == "<p>a \U0001f600 b</p>\n"


def test_a_huge_text_is_shown_plain() -> None:
    html = markdown("<b>" + "*" * 300_000)
    assert html.startswith('<pre class="plain">&lt;b&gt;')


def test_amounts_keep_the_digits_that_tell_something() -> None:
    assert [format_usd(value) for value in (1234.5, 0.5, 0.1150001, 0.0076702, 0.02, 0.00001, 1e-12, -2)] == [
        "$1,234.50",
        "$0.50",
        "$0.1150",
        "$0.0077",
        "$0.02",
        "$0.00001",
        "<$0.0000001",
        "-$2.00",
    ]


def test_counts_and_spans_stay_short() -> None:
    assert [format_count(value) for value in (0, 1e6, 2.25)] == ["0", "1,000,000", "2.2"]
    assert [format_duration(value) for value in (0, 59.96, 60, 3600, 86_400)] == [
        "0 ms",
        "1 min",
        "1 min",
        "1 h",
        "1 d",
    ]
    assert format_duration(None) == "–"


@pytest.mark.parametrize("value", [1762430400, 1762430400.0, 1762430400000, "2025-11-06T12:00:00+00:00"])
def test_a_moment_is_the_same_in_each_form(value: float | str) -> None:
    assert 'datetime="2025-11-06T12:00:00Z"' in when(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_is_shown_as_none(value: float) -> None:
    assert (format_usd(value), format_count(value), format_duration(value)) == ("–", "–", "–")


def test_a_span_backwards_has_its_sign() -> None:
    assert (format_duration(-0.25), format_duration(-90)) == ("-250 ms", "-1 min 30 s")


@pytest.mark.parametrize(
    "value", ["<b>", "yesterday", "1" * 400, "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"]
)
def test_what_is_no_moment_is_shown_as_text(value: str) -> None:
    assert "<time" not in when(value)
    assert "<b>" not in when(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_a_number_that_is_no_moment_is_shown_as_a_number(value: float) -> None:
    assert "<time" not in when(value)


def test_a_day_is_read_out() -> None:
    assert [day(value) for value in ("20261106", "20261131", 20261106)] == [
        "Friday 6 November 2026",
        "20261131",
        "Friday 6 November 2026",
    ]
