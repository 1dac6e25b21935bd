"""Files that cross a border: read strictly, written as they were read, refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import Field

from codex_ml.core.contract import Contract
from codex_ml.core.errors import UserError


class Inner(Contract):
    written_by = "pack"

    low: float
    names: list[str] = Field(default_factory=list)


class Outer(Contract):
    written_by = "pack"

    form: str = Field(alias="schema")
    count: int
    inner: Inner
    share: float | None = None


WHOLE = {"schema": "x/1", "count": 3, "inner": {"low": 0.5}}


def written(folder: Path, value: object) -> Path:
    file = folder / "a.json"
    file.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return file


@pytest.mark.parametrize("more", [{}, {"share": None}, {"share": 0.25}, {"inner": {"low": 1.0, "names": []}}])
def test_what_is_read_is_written_with_the_same_bytes(tmp_path: Path, more: dict[str, object]) -> None:
    """Absent stays absent, null stays null; the whole form is the one of `write_json`."""
    text = json.dumps(WHOLE | more, indent=2, sort_keys=True) + "\n"
    file = written(tmp_path, text)
    Outer.read(file).write(tmp_path / "b.json")
    assert (tmp_path / "b.json").read_text() == text


def test_a_writer_sets_what_is_there_and_nothing_else(tmp_path: Path) -> None:
    Outer(schema="x/1", count=3, inner=Inner(low=0.5)).write(tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text()) == WHOLE
    assert Outer.read(tmp_path / "a.json").inner.names == []


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({**WHOLE, "count": "3"}, "count: input should be a valid integer"),
        ({**WHOLE, "count": 3.0}, "count: input should be a valid integer"),
        ({**WHOLE, "count": True}, "count: input should be a valid integer"),
        ({**WHOLE, "inner": {"low": None}}, "inner.low: input should be a valid number"),
        ({**WHOLE, "inner": {}}, "inner.low: field required"),
        ({**WHOLE, "inner": {"low": 1, "names": ["a", 2]}}, "inner.names.1: input should be a valid string"),
        ({**WHOLE, "other": 1}, "other: extra inputs are not permitted"),
        ({"schema": "x/1"}, "count: field required"),
        ([], "expected a JSON object, found list"),
        ("null", "expected a JSON object, found NoneType"),
    ],
)
def test_a_foreign_file_is_refused_in_one_line_with_file_and_key(tmp_path: Path, value: object, message: str) -> None:
    file = written(tmp_path, value)
    with pytest.raises(UserError) as refused:
        Outer.read(file)
    assert str(refused.value) == f"{file}: {message}; `dvc repro pack` makes it anew"


def test_a_damaged_or_missing_file_is_refused_in_one_line(tmp_path: Path) -> None:
    file = written(tmp_path, '{"schema": "x/1", "count"')
    with pytest.raises(UserError, match=r"a\.json is not valid JSON: .*; `dvc repro pack` makes it anew$"):
        Outer.read(file)
    file.unlink()
    with pytest.raises(UserError, match=r"a\.json is missing; `dvc repro pack` makes it$"):
        Outer.read(file)
    with pytest.raises(UserError, match=r"a\.json is missing; `dvc repro train` makes it$"):
        Outer.read(file, stage="train")


def test_a_key_is_named_and_its_value_is_not_shown(tmp_path: Path) -> None:
    file = written(tmp_path, {**WHOLE, "count": "a-secret-value"})
    with pytest.raises(UserError) as refused:
        Outer.read(file)
    assert "a-secret-value" not in str(refused.value)


def test_arrays_and_lines_name_the_item_and_the_line(tmp_path: Path) -> None:
    values = [Inner(low=0.0), Inner(low=1.0, names=["a"])]
    Inner.write_array(tmp_path / "a.json", values)
    Inner.write_lines(tmp_path / "a.ndjson", iter(values))
    assert Inner.read_array(tmp_path / "a.json") == values
    assert list(Inner.read_lines(tmp_path / "a.ndjson")) == values
    assert (tmp_path / "a.ndjson").read_text() == '{"low": 0.0}\n{"low": 1.0, "names": ["a"]}\n'
    (tmp_path / "a.json").write_text('[{"low": 0.0}, {"low": "x"}]')
    with pytest.raises(UserError, match=r"a\.json: item 2: low: input should be a valid number"):
        Inner.read_array(tmp_path / "a.json")
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(UserError, match=r"a\.json: expected a JSON array, found dict"):
        Inner.read_array(tmp_path / "a.json")
    (tmp_path / "a.ndjson").write_text('{"low": 0.0}\n{"low": NaN}\n')
    with pytest.raises(UserError, match=r"a\.ndjson:2 is not valid JSON: .*; `dvc repro pack` makes it anew$"):
        list(Inner.read_lines(tmp_path / "a.ndjson"))
    (tmp_path / "a.ndjson").write_text('{"low": 0.0}\n{}\n')
    with pytest.raises(UserError, match=r"a\.ndjson:2: low: field required"):
        list(Inner.read_lines(tmp_path / "a.ndjson"))


def test_a_number_that_is_not_finite_is_never_written() -> None:
    with pytest.raises(ValueError, match="finite"):
        Inner(low=float("nan"))
