"""Lists of texts of a user's own are scored pair by pair; what does not fit is one line."""

from __future__ import annotations

import doctest
import math

import pytest

from codex_ml.core.errors import UserError
from codex_ml.evaluate.metrics import own_texts
from codex_ml.evaluate.metrics.own_texts import text_metrics


def test_the_example_in_its_docstring_is_so():
    found = doctest.testmod(own_texts)
    assert (found.attempted, found.failed) == (1, 0)


def test_without_names_it_gives_every_metric_on_pairs():
    values = text_metrics(["def f():\n    return 1\n"], ["def f():\n    return 1\n"], language="python")
    assert values["exact_match"] == values["parse_rate"] == values["complexity"] == 1
    assert "bits_per_byte" not in values
    assert math.isnan(text_metrics(["x"], ["x"])["parse_rate"])


@pytest.mark.parametrize(
    ("outputs", "references", "names", "message"),
    [
        (["a", "b", "c"], ["a"], (), "found 3 items as outputs and 1 items as references"),
        (["a", "b", "c"], [["a"], ["b"], ["c"]], ["bleu"], "pair 1: reference must be a text, found list"),
        (["a", None], ["a", "b"], ["bleu"], "pair 2: output must be a text, found NoneType"),
        (["abc"], "abc", ["bleu"], "found 1 items as outputs and one text as references"),
        (["a"], ["a"], ["perplexity"], "perplexity is a metric of the likelihood of a document"),
        (["a"], ["a"], ["blue"], "there is no metric 'blue'; did you mean bleu"),
    ],
)
def test_what_does_not_fit_is_refused(outputs, references, names, message):
    with pytest.raises(UserError) as caught:
        text_metrics(outputs, references, names=names)
    assert message in str(caught.value) and "\n" not in str(caught.value)
