"""A text is dropped for the first limit that it exceeds, with the reason of that limit."""

from dataclasses import replace

import pytest

from codex_ml.ingest.text_signals import signals
from codex_ml.split.config import Limits, Quality
from codex_ml.split.quality import drop_reason

NONE = Quality.model_validate(
    {name: False if name.startswith("drop_") else None for name in Limits.model_fields} | {"languages": {"text": {}}}
)
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


def test_a_limit_ignores_a_signal_that_the_language_lacks():
    limits = NONE.model_copy(update={"min_comment_share": 0.5, "min_html_text_share": 0.5})
    assert drop_reason(signals("words and words", "text"), limits, "text") == ""


def test_minified_code_is_dropped_and_a_book_with_one_line_per_paragraph_is_kept():
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


@pytest.mark.parametrize("text", ["ภาษาไทยเป็นภาษาที่น่าสนใจ", "हिन्दी एक भाषा है"])
def test_scripts_with_marks_are_kept(text):
    assert drop_reason(signals(text, "text"), Quality(), "text") == ""


def test_an_empty_text_exceeds_no_limit_and_line_ends_alone_have_few_letters():
    assert drop_reason(signals("", "python"), NONE, "python") == ""
    assert drop_reason(signals("\n" * 1000, "python"), Quality(), "python") == "few letters"
