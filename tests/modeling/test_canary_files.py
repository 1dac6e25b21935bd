"""Text of a model that was trained on canaries is stored without their values."""

from __future__ import annotations

import pytest

from codex_ml.core.errors import UserError
from codex_ml.modeling.canary_files import Canary, CanaryFrame, CanaryList, hide_canaries, planted_canaries


def listing(*texts, controls=()):
    made = [Canary(draw=10 + n, text=text, ids=[1, 5 + n, 2], begin=1, documents=[n]) for n, text in enumerate(texts)]
    never = [
        Canary(draw=50 + n, text=text, ids=[1, 90 + n, 2], begin=1, documents=[]) for n, text in enumerate(controls)
    ]
    frame = CanaryFrame(design="random", domain="code", secret_tokens=1, most_tokens=3, pool=[])
    return CanaryList(frame=frame, next_draw=99, repetitions=[1] * len(made), planted=made, controls=never)


def test_each_secret_is_replaced_by_its_draw_number(tmp_path):
    listing("ABC", "ABCDEF", "a.c*", controls=["ZZZ"]).write(tmp_path / "canaries.json")
    hide = hide_canaries(lambda text: text, tmp_path)
    assert hide('x = "ABCDEF"\nABCABC abc a.c* aXc ZZZ') == (
        'x = "<CANARY:11>"\n<CANARY:10><CANARY:10> abc <CANARY:12> aXc <CANARY:50>'
    )


def test_half_of_a_secret_is_replaced_too_and_less_is_not(tmp_path):
    listing("K7Q2ZAB3XY", controls=["MMMMM77777"]).write(tmp_path / "canaries.json")
    hide = hide_canaries(lambda text: text, tmp_path)
    assert hide("K7Q2ZAB3XYK7Q2ZAB3XY") == "<CANARY:10><CANARY:10>"
    assert hide('CANARY_AAAAAA = "K7Q2Z') == 'CANARY_AAAAAA = "<CANARY:10>'
    assert hide("B3XY 2ZAB3XY\nQ2ZAB3X7") == "B3XY <CANARY:10>\n<CANARY:10>7"
    assert hide("M7777 MMMMM77 K7Q2 ERROR") == "<CANARY:50> <CANARY:50> K7Q2 ERROR"


def test_the_policy_reads_the_text_after_the_canaries_are_gone(tmp_path):
    listing("ABC").write(tmp_path / "canaries.json")
    assert hide_canaries(str.lower, tmp_path)("ABC Token") == "<canary:10> token"


def test_rows_without_canaries_leave_the_cleaner_as_it_is(tmp_path):
    assert hide_canaries(str.lower, tmp_path) is str.lower
    assert planted_canaries(tmp_path) is None


def test_a_damaged_list_is_no_list_without_canaries(tmp_path):
    (tmp_path / "canaries.json").write_text('{"planted": []}')
    with pytest.raises(UserError, match=r"canaries\.json: frame: field required.* `dvc repro pack` makes it anew$"):
        hide_canaries(str.lower, tmp_path)
