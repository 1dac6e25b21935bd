"""Every text has signals, letters count in every script, and a text is dropped for the first limit that it breaks."""

import re
from dataclasses import asdict, replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codex_ml.config import Limits, Quality
from codex_ml.data import quality
from codex_ml.data.quality import NOT_APPLICABLE, drop_reason, signals

NONE = Quality.model_validate(
    {name: False if name.startswith("drop_") else None for name in Limits.model_fields} | {"languages": {"text": {}}}
)
THAI, HINDI = "ภาษาไทยเป็นภาษาที่น่าสนใจ", "हिन्दी एक भाषा है"
TEXTS = st.text() | st.text(st.sampled_from("aZ09 \n\r\t#/*-_+é²٣ไ中\u0301\ud800\U0001f600\U00020000"))


def naive(text):
    """The signals that a loop over characters and lines gives."""
    lines = re.split(r"\r\n|\r|\n", text)
    lines = lines[:-1] if lines[-1] == "" else lines
    letters, alphanumeric = sum(map(str.isalpha, text)), sum(map(str.isalnum, text))
    return {
        "bytes": len(text.encode("utf-8", "surrogatepass")),
        "characters": len(text),
        "lines": len(lines),
        "max_line_length": max(map(len, lines), default=0),
        "mean_line_length": sum(map(len, lines)) / max(1, len(lines)),
        "alphanumeric_share": alphanumeric / max(1, len(text)),
        "alphabetic_share": letters / max(1, len(text)),
        "digit_share": (alphanumeric - letters) / max(1, len(text)),
        "comment_share": sum(line.lstrip(" \t").startswith("#") for line in lines) / max(1, len(lines)),
        "blob_share": sum(map(len, re.findall(r"[A-Za-z0-9+/]{60,}", text))) / max(1, len(text)),
    }


def check(text):
    found, wanted = asdict(signals(text, "python")), naive(text)
    assert {name: found[name] for name in wanted} == wanted


@given(TEXTS)
def test_signals_are_those_of_a_plain_loop(text):
    check(text)


@given(st.lists(st.sampled_from(["a", "é", "\n", "\r", "1", " #", "x" * 59, "x" * 60, "/" * 7]), max_size=30))
def test_blocks_are_seamless(pieces):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quality, "BLOCK", 7)
        check("".join(pieces))


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_the_signals_of_a_small_file(ends):
    text = ends.join(["# Größe", "x = 10", "", "\t# 日本"]) + ends
    found = signals(text, "Python")
    assert (found.lines, found.max_line_length, found.mean_line_length) == (4, 7, 18 / 4)
    assert (found.characters, found.bytes) == (18 + 4 * len(ends), 18 + 4 * len(ends) + 2 + 2 * 2)
    assert found.comment_share == 2 / 4
    assert found.alphanumeric_share == (5 + 3 + 2) / found.characters
    assert found.digit_share == 2 / found.characters


def test_every_code_point_is_classed_as_python_does():
    points = [chr(point) for point in range(0x110000)]
    classes = quality._classes("".join(points))
    assert np.flatnonzero(classes >= quality.NUMBER).tolist() == [i for i, c in enumerate(points) if c.isalnum()]
    assert np.flatnonzero(classes == quality.LETTER).tolist() == [i for i, c in enumerate(points) if c.isalpha()]
    assert np.flatnonzero(classes == quality.NEWLINE).tolist() == [10]


@pytest.mark.parametrize(("text", "letters"), [(THAI, 21), (HINDI, 8)])
def test_marks_are_no_letters_but_other_scripts_are_kept(text, letters):
    found = signals(text, "text")
    assert found.alphanumeric_share == letters / len(text) == sum(map(str.isalnum, text)) / len(text)
    assert drop_reason(found, Quality(), "text") == ""


def test_the_empty_text_has_signals():
    assert asdict(signals("", "python")) == {
        "bytes": 0, "characters": 0, "lines": 0, "max_line_length": 0, "mean_line_length": 0.0,
        "alphanumeric_share": 0.0, "alphabetic_share": 0.0, "digit_share": 0.0, "comment_share": 0.0,
        "compression_ratio": 1.0, "generated": False, "xml_header": False, "html_text_share": NOT_APPLICABLE,
        "blob_share": 0.0,
    }  # fmt: skip
    assert signals("", "html").html_text_share == 0.0
    assert drop_reason(signals("", "python"), NONE, "python") == ""


@pytest.mark.parametrize(
    ("language", "text", "lines"),
    [
        ("python", "#!x\nprint '# no'  # no\n\t # yes\n", 2),
        ("python", 'def f(:\n  """', 0),  # no parser is asked
        ("c", "/* a\n * b\n */\n*p = 3;\na /* no */\n// c\n", 4),
        ("javascript", " // a\n\t/** b */\nx\n", 2),
        ("php", "# a\n// b\n$c\n", 2),
        ("sql", "-- a\n- b\n", 1),
        ("latex", "% a\n\\b % c\n", 1),
        ("scheme", ";; a\n(b)\n", 1),
        ("html", "<!-- a -->\n<b>\n", 1),
        ("text", "# a\n", None),
        ("brainfuck", "# a\n", None),
    ],
)
def test_comments_are_found_by_how_a_line_begins(language, text, lines):
    found = signals(text, language)
    assert found.comment_share == (NOT_APPLICABLE if lines is None else lines / found.lines)


@pytest.mark.parametrize(
    ("text", "generated"),
    [
        ("# AUTO-GENERATED\n", True),
        ("// Code generated by protoc-gen-go. DO NOT EDIT.\n", True),
        ("/* @generated */", True),
        ("# This file was automatically generated.", True),
        ("x\n" * 9 + "# do not edit", True),
        ("x\n" * 10 + "# do not edit", False),
        ("x" * 8192 + " do not edit", False),
        ("é" * 4096 + "\ndo not edit", False),
        ("# generated values\n", False),
        ("from .exc import AutogenerateDiffsDetected\n", False),
        ("", False),
    ],
    ids=range(11),
)
def test_generated_files_say_so_in_their_first_ten_lines(text, generated):
    assert signals(text, "python").generated is generated


def test_an_xml_header_is_near_the_start():
    assert signals(" " * 95 + "<?XML version='1.0'?>", "other").xml_header
    assert not signals(" " * 96 + "<?xml version='1.0'?>", "other").xml_header


@pytest.mark.parametrize(
    ("html", "visible"),
    [
        ("<p>one <b>two</b></p>", 6),
        ("one", 3),
        ("<script>var x = '<b>';</script>one<style>p {}</style >", 3),
        ("<SCRIPT>x</SCRIPT>one", 3),
        ("a<!-- <b> -->c", 2),
        ("a<b", 1),
        ("a<script>b</scrip>c", 1),
        ("\u0130<!-- x -->\u0130", 2),  # its lower case is two characters
        ("<" * 1000, 0),
    ],
)
def test_visible_text_of_html(html, visible):
    assert signals(html, "html").html_text_share == visible / len(html)
    assert signals(html, "python").html_text_share == NOT_APPLICABLE


def test_the_compression_ratio_is_that_of_lz4_over_the_start():
    text = "".join(f"line {i}\n" for i in range(500))
    packed = pa.Codec("lz4_raw").compress(text.encode(), asbytes=True)
    assert signals(text, "python").compression_ratio == len(packed) / len(text)
    start = "ab" * 8192
    assert signals(start + text, "python").compression_ratio == signals(start, "python").compression_ratio < 0.05


FINE = signals("def mean(values):\n    # of some numbers\n    return sum(values) / len(values)\n", "python")
LIMITS = [
    ("longest line", {"max_line_length": 40}, {"max_line_length": 41}),
    ("mean line", {"max_mean_line_length": 40}, {"mean_line_length": 40.5}),
    ("few letters", {"min_alphanumeric_share": 0.5}, {"alphanumeric_share": 0.49}),
    ("few alphabetic characters", {"min_alphabetic_share": 0.5}, {"alphabetic_share": 0.49}),
    ("many digits", {"max_digit_share": 0.5}, {"digit_share": 0.51}),
    ("few comments", {"min_comment_share": 0.1}, {"comment_share": 0.0}),
    ("many comments", {"max_comment_share": 0.8}, {"comment_share": 0.9}),
    ("repetition", {"min_compression_ratio": 0.1}, {"compression_ratio": 0.09}),
    ("encoded data", {"max_blob_share": 0.5}, {"blob_share": 0.6}),
    ("little visible text", {"min_html_text_share": 0.2}, {"html_text_share": 0.1}),
    ("few lines", {"min_lines": 2}, {"lines": 1}),
    ("many lines", {"max_lines": 10}, {"lines": 11}),
    ("generated", {"drop_generated": True}, {"generated": True}),
    ("XML", {"drop_xml": True}, {"xml_header": True}),
]


@pytest.mark.parametrize(("reason", "limit", "change"), LIMITS, ids=[reason for reason, _, _ in LIMITS])
def test_each_limit_drops_with_its_own_reason_and_can_be_switched_off(reason, limit, change):
    beyond = replace(FINE, **change)
    only = NONE.model_copy(update=limit)
    assert drop_reason(beyond, only, "python") == reason
    assert drop_reason(FINE, only, "python") == ""
    assert drop_reason(beyond, NONE, "python") == ""
    [value] = limit.values()
    [field] = change
    if not isinstance(value, bool):
        assert drop_reason(replace(FINE, **{field: value}), only, "python") == ""  # a text on a limit is kept


def test_every_limit_has_a_case_above():
    assert [name for _, limit, _ in LIMITS for name in limit] == list(Limits.model_fields)


def test_no_limit_on_what_a_language_does_not_have():
    limits = NONE.model_copy(update={"min_comment_share": 0.5, "min_html_text_share": 0.5})
    assert drop_reason(signals("words and words", "text"), limits, "text") == ""


def test_minified_code_goes_and_a_book_with_a_line_for_each_paragraph_stays():
    banner = "/* a banner */\n" + "var a=b(1);" * 3000
    assert drop_reason(signals(banner, "javascript"), Quality(), "javascript") == "longest line"
    prose = "Call me what you like, it is a long story and it has no end. " * 10 + "\n"
    book = prose + prose.upper() + prose.swapcase() + prose.title()
    assert drop_reason(signals(book, "text"), Quality(), "text") == ""
    assert drop_reason(signals(book, "python"), Quality(), "python") == "mean line"
    assert (
        drop_reason(signals(book, "text"), Quality.model_validate({"languages": {"text": {}}}), "text") == "mean line"
    )


def test_a_language_changes_only_the_limits_that_it_names():
    limits = Quality.model_validate({"max_line_length": 50, "languages": {"HTML": {"max_line_length": None}}})
    long = replace(FINE, max_line_length=51)
    assert drop_reason(long, limits, "python") == "longest line"
    assert drop_reason(long, limits, "Html") == ""
    assert drop_reason(replace(long, alphanumeric_share=0.1), limits, "html") == "few letters"
    assert drop_reason(long, limits, "markdown") == ""  # the defaults stand beside what the user names


def test_one_line_of_megabytes_and_files_of_line_ends_only_have_signals():
    size = 3 << 20
    assert signals("a" * size, "python").max_line_length == size
    found = signals("\n" * size, "python")
    assert (found.lines, found.max_line_length, found.alphanumeric_share) == (size, 0, 0.0)
    assert drop_reason(found, Quality(), "python") == "few letters"
    assert signals("<script" * (size >> 3), "html").html_text_share == 0.0
