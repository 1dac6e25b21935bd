"""A glob finds the same files in every Python."""

import os
import random
from pathlib import Path

import pytest

from codex_ml.core import globs

GLOB_TREE = ("ab.jsonl", "abc.jsonl", "d/x.jsonl", "d/e/y.jsonl", "d/e/.hidden")


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        ("**", ["ab.jsonl", "abc.jsonl", "d", "d/e", "d/e/.hidden", "d/e/y.jsonl", "d/x.jsonl"]),
        ("d/**", ["d/e", "d/e/.hidden", "d/e/y.jsonl", "d/x.jsonl"]),
        ("**/*.jsonl", ["ab.jsonl", "abc.jsonl", "d/e/y.jsonl", "d/x.jsonl"]),
        ("d/**/y.jsonl", ["d/e/y.jsonl"]),
        ("a*.jsonl", ["ab.jsonl", "abc.jsonl"]),
        ("a[b].jsonl", ["ab.jsonl"]),
        ("none*", []),
        ("a**.jsonl", None),
        ("d/**x", None),
        ("***", None),
        ("d/a**/x", None),
    ],
)
def test_a_glob_means_the_same_in_every_python(tmp_path, monkeypatch, pattern, paths):
    monkeypatch.chdir(tmp_path)
    for name in GLOB_TREE:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    if paths is None:
        with pytest.raises(ValueError, match=r"use \* inside a name"):
            globs.expand_glob(pattern)
    else:
        assert [path.as_posix() for path in globs.expand_glob(pattern)] == paths


def test_a_glob_finds_what_pathlib_finds_and_lists_each_folder_once_per_part(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = random.Random(4)
    for _ in range(60):
        file = Path("data", *rng.choices("abc", k=rng.randint(0, 4)), rng.choice(["x.py", "y.txt", ".z"]))
        if all(part.is_dir() or not part.exists() for part in file.parents):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("")
    (tmp_path / "data/link").symlink_to("a")
    for _ in range(150):
        pattern = "/".join(["data", *rng.choices(["**", "*", "a", "[ab]", "?", "link"], k=rng.randint(0, 4)), "*.py"])
        expected = {path for path in Path().glob(pattern) if "link" not in path.parts}
        assert {path for path in globs.expand_glob(pattern) if "link" not in path.parts} == expected, pattern
    Path("deep", *["a"] * 60).mkdir(parents=True)
    listed = []
    real = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(path) or real(path))
    assert list(globs.expand_glob("deep/" + "**/a/" * 10 + "b")) == []
    assert len(listed) < 10 * 62
