"""YAML is read as DVC reads it: what a stage computes with is what dvc.lock records."""

import datetime
import json

import pytest
from dvc.utils.serialize import load_yaml

from codex_ml.core.errors import UserError
from codex_ml.core.yaml import MAX_BYTES, line_of, parse_yaml, read_yaml

# Each of these is another value in YAML 1.1 (PyYAML), or looks as if it were.
SCALARS = {
    "3e-4": 3e-4, "1e-3": 1e-3, "0.0003": 3e-4, "3e-05": 3e-5, "2E6": 2e6, "1e3": 1000.0, "+7": 7, "007": 7, "0o11": 9,
    "0x2F": 47, "1_500": 1500, "11:22:33": "11:22:33", "no": "no", "yes": "yes", "on": "on", "off": "off", "NO": "NO",
    "y": "y", "true": True, "True": True, "false": False, "~": None, "null": None, "": None, ".5": 0.5,
    "1.20": 1.2, '"3e-4"': "3e-4", "'7'": "7", ".inf": float("inf"), "-.INF": float("-inf"), "1.5.2": "1.5.2",
    "2024-05-06x": "2024-05-06x", "017": 17, "0o17": 15, "1e-05": 1e-5, "1_000": 1000, "12:30:45": "12:30:45",
    "0b101": 5, "-0x1F": -31, "1.": 1.0, "+.5e+3": 500.0, "Null": None, "1" * 4000: int("1" * 4000), "!!str 7": "7",
    "!!float 7": 7.0, "0_": 0, "1__0.5_0": 10.5, "-1e-400": -0.0, "1e400": float("inf"), "0o": "0o", "1e+": "1e+",
    "2024-05-06": datetime.date(2024, 5, 6), "2024-5-6": "2024-5-6",
    "2001-1-1t1:02:03.9999995": datetime.datetime(2001, 1, 1, 1, 2, 4),
    "2024-05-06 1:02:03 Z": datetime.datetime(2024, 5, 6, 1, 2, 3, tzinfo=datetime.UTC),
}  # fmt: skip


@pytest.mark.parametrize("scalar", SCALARS)
def test_a_scalar_is_what_dvc_records(tmp_path, scalar):
    file = tmp_path / "params.yaml"
    file.write_text(f"a: {scalar}\n")
    ours, theirs = read_yaml(file)["a"], load_yaml(str(file))["a"]
    assert (type(ours), ours) == (type(theirs), theirs)
    assert (type(ours), ours) == (type(SCALARS[scalar]), SCALARS[scalar])


def test_not_a_number_is_what_dvc_records():
    assert json.dumps(parse_yaml("[.nan, .NaN, -.nan]", "p")) == '[NaN, NaN, "-.nan"]'


def test_whole_files_are_what_dvc_records(repository, project, tmp_path):
    anchors = tmp_path / "anchors.yaml"
    anchors.write_text("base: &b {lr: 2.5e-4, decay: 1e-1}\ntrain:\n  <<: *b\n  decay: 0\nlist: [no, 010, 1e1]\n")
    for file in (project / "params.yaml", repository / "dvc.yaml", anchors):
        assert read_yaml(file) == load_yaml(str(file))
    assert read_yaml(anchors)["train"] == {"lr": 2.5e-4, "decay": 0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", 'p.yaml:3: found duplicate key "a", which line 1 has too'),
        ("x:\n  k: 1\n  k: 1\n", 'p.yaml:3: found duplicate key "k", which line 2 has too'),
        ("1: a\n0x1: b\n", 'p.yaml:2: found duplicate key "1", which line 1 has too'),
        ("b: &b {x: 1}\na:\n  <<: *b\n  <<: *b\n", 'p.yaml:4: found duplicate key "<<", which line 3 has too'),
        ("b: &b {x: 1}\na:\n  <<: *b\n  y: 1\n  y: 2\n", 'p.yaml:5: found duplicate key "y", which line 4 has too'),
        ("a: {<<: 1}\n", "p.yaml:1: expected a mapping, or a list of mappings, after <<"),
        ("train:\n\tlr: 1\n", "p.yaml:2: a tab cannot indent YAML; use spaces, or \\t in double quotes"),
        ("a: 1\t2 # \t\n", "p.yaml:1: a tab cannot indent YAML; use spaces, or \\t in double quotes"),
        ("a: [1, 2\nb: 3\n", "p.yaml:2: did not find expected ',' or ']'"),
        ("a: b: c\n", "p.yaml:1: mapping values are not allowed in this context"),
        ("a: 'open\n", "p.yaml:2: found unexpected end of stream"),
        ("a: 1\n---\nb: 2\n", "p.yaml:2: but found another document"),
        ("%YAML 1.1\n---\na: no\n", "p.yaml:1: a line that begins with % is not read; delete it"),
        ("a: *unknown\n", "p.yaml:1: found undefined alias"),
        ("a: &x 1\nb: &x 2\n", "p.yaml:2: found duplicate anchor"),
        ("a: &x? 1\n", "p.yaml:1: expected a space before the last character of '&x?'"),
        ("a: &x [*x]\n", "p.yaml:1: nested deeper than 100 levels"),
        ("- 1\n- [a: 1]\n", "p.yaml:2: a mapping in brackets needs braces: [{key: value}]"),
        ("? [a]\n: 1\n", "p.yaml:1: a key must be a string or a number"),
        ("{? : 1}\n", "p.yaml:1: a key must be a string or a number"),
        ("a: !\n", "p.yaml:1: a tag without a value; write '' for the empty string"),
        ("a: =\n", "p.yaml:1: could not determine a value for the tag 'tag:yaml.org,2002:value'"),
        ("a: !!set {x, y}\n", "p.yaml:1: could not determine a value for the tag 'tag:yaml.org,2002:set'"),
        ("a: !!int x\n", "p.yaml:1: 'x' looks like a value of type int, but is not valid"),
        ("a: 2024-13-01\n", "p.yaml:1: '2024-13-01' looks like a value of type timestamp, but is not valid"),
        ("a: " + "1" * 5000, f"p.yaml:1: '{'1' * 50}' looks like a value of type int, but is not valid"),
        ("a: 'x\u2028y'\n", "p.yaml:1: an invisible end of line or byte order mark; delete it"),
    ],
)  # fmt: skip
def test_a_broken_file_is_refused_with_its_line(text, message):
    with pytest.raises(UserError) as error:
        parse_yaml(text, "p.yaml")
    assert str(error.value) == message


def test_a_tag_never_runs_code(tmp_path):
    mark = tmp_path / "mark"
    with pytest.raises(UserError, match=r"^p\.yaml:1: could not determine a value for the tag"):
        parse_yaml(f"a: !!python/object/apply:pathlib.Path.touch ['{mark}']\n", "p.yaml")
    assert not mark.exists()


@pytest.mark.parametrize("text", ["a: \x07\n", "a: \ud800\n"], ids=["control", "surrogate"])
def test_what_the_library_cannot_place_is_refused_by_name(text):
    with pytest.raises(UserError, match=r"^p\.yaml: not YAML: "):
        parse_yaml(text, "p.yaml")


@pytest.mark.parametrize("start", ["[", "{a: ", "- ", "? "])
def test_deep_nesting_is_refused_at_once(start):
    for count in (2000, MAX_BYTES // len(start)):
        with pytest.raises(UserError, match=r"^p\.yaml:1: exceeded maximum nesting depth$"):
            parse_yaml(start * count, "p.yaml")


def test_a_hundred_levels_are_read():
    assert json.dumps(parse_yaml("[" * 100 + "]" * 100, "p.yaml")) == "[" * 100 + "]" * 100
    with pytest.raises(UserError, match=r"^p\.yaml:1: nested deeper than 100 levels$"):
        parse_yaml("[" * 101 + "]" * 101, "p.yaml")


def test_aliases_count_as_what_they_stand_for():
    bomb = "a0: &a0 [x, x, x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 40))
    with pytest.raises(UserError, match=r"^p\.yaml:1: more than 50000 values, with aliases expanded$"):
        parse_yaml(bomb, "p.yaml")
    many = "a: &a {x: 1, y: 2}\nb: [" + ", ".join(["*a"] * 10_000) + "]\n"
    assert parse_yaml(many, "p.yaml")["b"] == [{"x": 1, "y": 2}] * 10_000


def test_a_huge_file_is_refused_before_it_is_parsed():
    with pytest.raises(UserError, match=r"^p\.yaml is larger than 256 KiB"):
        parse_yaml("a: 1 #" + "x" * MAX_BYTES, "p.yaml")
    assert parse_yaml("a: 1 #" + "x" * (MAX_BYTES - 6), "p.yaml") == {"a": 1}


def test_an_empty_file_is_an_empty_mapping():
    assert parse_yaml("# nothing\n", "p.yaml") == {}


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(UserError, match=r"a\.yaml is missing; `git checkout .*a\.yaml` brings back the committed one"):
        read_yaml(tmp_path / "a.yaml")
    (tmp_path / "a.yaml").write_bytes(b"abc\xff")
    with pytest.raises(UserError, match=r"a\.yaml is not UTF-8 \(byte 3\)"):
        read_yaml(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        (("a",), 2),
        (("b", "c"), 4),
        (("b", "list", 1), 7),
        (("b", "list", 1, "k"), 8),
        (("flow", "y"), 9),
        (("b", "absent"), 3),
        (("b", "list", 9), 5),
        (("a", "deeper"), 2),
        (("merged", "y"), 10),
        (("absent",), None),
        ((), None),
    ],
)
def test_line_of_a_key_or_of_its_nearest_parent(keys, line):
    text = (
        "# one\na: 1\nb:\n  c: 2\n  list:\n    - 1\n    - j: 1\n      k: 2\nflow: &f {x: 1, y: 2}\nmerged:\n  <<: *f\n"
    )
    assert line_of(text, keys) == line


@pytest.mark.parametrize("number", ["9" * 4301, "0x" + "f" * 4000, "-0o" + "7" * 5000, "0b" + "1" * 15_000])
def test_an_integer_that_python_cannot_print_is_refused(number):
    with pytest.raises(
        UserError, match=r"^params\.yaml:2: '[-0-9a-z]{50}' looks like a value of type int, but is not valid$"
    ):
        parse_yaml(f"a: 1\nb: {number}", "params.yaml")
