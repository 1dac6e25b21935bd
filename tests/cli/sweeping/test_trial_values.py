"""What DVC itself writes into params.yaml for a value of a sweep; the oracle is DVC's code for `-S`."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.cli_parse import to_path_overrides
from dvc.utils.hydra import apply_overrides

from codex_ml.cli.sweeping.search_space import read_axis
from codex_ml.cli.sweeping.study import refusal
from codex_ml.cli.sweeping.trial_experiment import Launch, command
from codex_ml.cli.sweeping.trial_values import check_value, leaves, overrides, value_of
from codex_ml.core.errors import UserError
from codex_ml.core.yaml import parse_yaml


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def read_by_dvc(params: dict[str, str], before: str = "x:\n  a: 5\ny: 3\n") -> Any:
    """params.yaml after DVC set the values of a trial, given by the command line of the trial."""
    Path("params.yaml").write_text(before)
    words = command(Launch("n", params, "0" * 40, Path("l"), 0), "train")
    settings = [words[place + 1] for place, word in enumerate(words) if word == "-S"]
    for path, own in to_path_overrides(settings).items():
        apply_overrides(path, own)
    return parse_yaml(Path("params.yaml").read_text(), "params.yaml")


TEXTS = {
    "08": 8, "0o10": 8, "0x10": 16, "1_000": 1000, "-1": -1, "+1": 1, "100000000000000000000": 10**20,
    "1e-5": 1e-5, ".5": 0.5, "1.": 1.0, "1e22": 1e22, ".inf": math.inf, "-.inf": -math.inf, "1e-3 # c": 1e-3,
    "~": None, "null": None, "Null": None, "true": True, "False": False, "yes": "yes", "1:30": "1:30",
    "inf": "inf", "nan": "nan", "é": "é", "a=b": "a=b", "range(1,3)": "range(1,3)", "'007'": "007", "''": "",
    "a b": "a b", "it's": "it's", "\"it's\"": "it's", "a\\b": "a\\b", "'a\\'": "a\\", "a*": "a*", "$y": "$y",
    "'null'": "null", "'2020-01-01'": "2020-01-01", "!!str 3": "3", "a,b": "a,b", "中": "中", '"a\\n"': "a\n",
    '"\\\\\\n"': "\\\n", "[]": [], "[1e-3, 'x', [true]]": [1e-3, "x", [True]], "[{kind: wheels, n: 08}]": [{"kind": "wheels", "n": 8}],
}  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_dvc_reads_the_value_that_yaml_has(text: str) -> None:
    found = read_by_dvc({"x.a": text})["x"]["a"]
    assert value_of(text) == TEXTS[text]
    assert found == TEXTS[text] and type(found) is type(TEXTS[text])
    assert read_axis(f"x.a=choice({text})" if text not in ("a,b", "range(1,3)") else f"x.a=choice('{text}')")


def test_dvc_reads_any_text_as_it_is() -> None:
    draw = random.Random(7)
    texts = ["".join(draw.choices("\\\\''\"a ,]}:=$#{é\n\t", k=draw.randint(0, 9))) for _ in range(600)]
    texts = [text for text in texts if "${" not in text]
    names = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t"}
    written = ['"' + "".join(names.get(letter, letter) for letter in text) + '"' for text in texts]
    assert read_by_dvc({"x.a": f"[{', '.join(written)}]"})["x"]["a"] == texts
    for text, own in list(zip(texts, written, strict=True))[:20]:
        assert read_by_dvc({"y": own})["y"] == text


@pytest.mark.parametrize("before", ["x: {a: 1, b: {c: 2, d: 3}}", "x: {a: 1}", "x: {a: 1, b: }", "x: {a: 1, b: 7}"])
def test_a_mapping_sets_its_keys_and_keeps_the_others(before: str) -> None:
    given = {"x.b": "{c: 08, e: {f: '1'}}"}
    assert leaves(given) == {"x.b.c": 8, "x.b.e.f": "1"}
    kept = {"d": 3} if "d: 3" in before else {}
    assert read_by_dvc(given, before)["x"] == {"a": 1, "b": {**kept, "c": 8, "e": {"f": "1"}}}


def test_a_mapping_is_checked_with_the_keys_that_params_yaml_has(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace)
    assert refusal({"train.early_stopping": "{patience: 2}"}) == ""
    assert "train.early_stopping.patienc" in refusal({"train.early_stopping": "{patienc: 2}"})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("2020-01-01", "2020-01-01 is a date, which DVC cannot set; quote it if it is a text"),
        ("a${y}", r"DVC reads the text a\$\{y\} as a reference to another value"),
        ("'???'", r"DVC reads the text \?\?\? as a reference"),
        ("[x, '???']", r"DVC reads the text \?\?\? as a reference"),
        ('"\\0"', "a text with a null character"),
        ("{}", "changes nothing; name the keys of the mapping"),
        ("{b: {}}", "changes nothing; name the keys of the mapping"),
        ("{C++: 1}", r"DVC cannot set the key 'C\+\+' of a mapping: expected letters, digits and _"),
        ("[{C++: 1}]", r"DVC cannot set the key 'C\+\+'"),
        ("{1: 2}", "DVC cannot set the key 1 of a mapping"),
        ("[{'null': 2}]", "DVC cannot set the key 'null' of a mapping"),
    ],
)
def test_what_dvc_cannot_set_is_one_line_before_any_work(value: str, message: str) -> None:
    for setting in (f"x.a=choice({value},5)", f"x.a={value}"):
        with pytest.raises(UserError, match=message) as raised:
            read_axis(setting)
        assert str(raised.value).startswith(f"--set {setting}: ")
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("value", ["a\nb: 2", "a\x1bb", "a\x00", "a\udcff", "a\u202eb"])
def test_a_control_character_is_refused_and_shown_as_its_escape(value: str) -> None:
    with pytest.raises(UserError, match="a setting is one line without control characters") as raised:
        read_axis(f"x.a={value}")
    assert str(raised.value).isprintable()


def test_what_is_checked_can_be_written() -> None:
    for text in ("{a: [{b: null}]}", "[[x]]", "1"):
        check_value(value_of(text))
        assert overrides({"x": text})
