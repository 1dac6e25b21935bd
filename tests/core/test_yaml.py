"""YAML is read with the eyes of DVC: what a stage computes with is what dvc.lock records."""

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
    "2024-05-06x": "2024-05-06x",
}  # fmt: skip


@pytest.mark.parametrize("scalar", SCALARS)
def test_a_scalar_is_what_dvc_records(tmp_path, scalar):
    file = tmp_path / "params.yaml"
    file.write_text(f"a: {scalar}\n")
    ours, theirs = read_yaml(file)["a"], load_yaml(str(file))["a"]
    assert (type(ours), ours) == (type(theirs), theirs)
    assert (type(ours), ours) == (type(SCALARS[scalar]), SCALARS[scalar])


def test_whole_files_are_what_dvc_records(repository, project, tmp_path):
    anchors = tmp_path / "anchors.yaml"
    anchors.write_text("base: &b {lr: 2.5e-4, decay: 1e-1}\ntrain:\n  <<: *b\n  decay: 0\nlist: [no, 010, 1e1]\n")
    for file in (project / "params.yaml", repository / "dvc.yaml", anchors):
        assert read_yaml(file) == load_yaml(str(file))
    assert read_yaml(anchors)["train"] == {"lr": 2.5e-4, "decay": 0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", 'p.yaml:3: found duplicate key "a" with value "3" (original value: "1")'),
        ("x:\n  k: 1\n  k: 1\n", 'p.yaml:3: found duplicate key "k" with value "1" (original value: "1")'),
        ("train:\n\tlr: 1\n", "p.yaml:2: a tab cannot indent YAML; use spaces"),
        ("a: [1, 2\nb: 3\n", "p.yaml:2: expected ',' or ']', but got ':'"),
        ("a: b: c\n", "p.yaml:1: mapping values are not allowed here"),
        ("a: 'open\n", "p.yaml:2: found unexpected end of stream"),
        ("a: 1\n---\nb: 2\n", "p.yaml:2: but found another document"),
        ("a: *unknown\n", "p.yaml:1: found undefined alias 'unknown'"),
    ],
)  # fmt: skip
def test_a_broken_file_is_refused_with_its_line(text, message):
    with pytest.raises(UserError) as error:
        parse_yaml(text, "p.yaml")
    assert str(error.value) == message


def test_a_tag_never_runs_code(tmp_path):
    mark = tmp_path / "mark"
    with pytest.raises(UserError, match=r"^p\.yaml:1: could not determine a constructor"):
        parse_yaml(f"a: !!python/object/apply:pathlib.Path.touch ['{mark}']\n", "p.yaml")
    assert not mark.exists()


@pytest.mark.parametrize("text", ["a: \x07\n", "a: !!int x\n", "[" * 600], ids=["control", "bad int", "deep"])
def test_what_the_library_cannot_place_is_refused_by_name(text):
    with pytest.raises(UserError, match=r"^p\.yaml: not YAML: "):
        parse_yaml(text, "p.yaml")


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
