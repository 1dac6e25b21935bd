"""Folders of very many files are listed and hashed in the order of their names, in a few bytes of memory per file."""

from __future__ import annotations

import hashlib
import json
import os
import random
import tracemalloc
from pathlib import Path

import pytest

from codex_ml.cli.checks.data import data_problems
from codex_ml.cli.param_rules import Params
from codex_ml.core import hashing
from codex_ml.core.errors import UserError
from codex_ml.core.pipeline import StageSpec
from codex_ml.core.tree import files_of, scan
from codex_ml.ingest import readers
from codex_ml.ingest.config import Source
from codex_ml.ingest.readers import plan_source, source_bytes

COUNT = 2500
MOST = 200  # bytes per file
NAMES = ["a", "a.b", "a b", "a-", "b", "ab", "\x01", "ä", "\ue000", "\U0001f600", "A", ".x", "~"]


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    flat = folder / "data/raw/flat"
    flat.mkdir(parents=True)
    for number in range(COUNT):
        (flat / f"some_module_name_{number:06d}.py").write_text(f"x = {number}\n")
    return folder


def check(path):
    spec = StageSpec("ingest", "", "", deps=(path,), params=(), outs=(), uncached=frozenset())
    return list(data_problems(Params(), {"ingest": spec}))


WALKS = {
    "scan": lambda path: sum(1 for _ in scan(Path(path))),
    "files_of": lambda path: sum(1 for _ in files_of(Path(path))),
    "hash_path": lambda path: hashing.hash_path(Path(path)),
    "size of a folder": lambda path: source_bytes(Source(kind="files", path=path)),
    "size of a glob": lambda path: source_bytes(Source(kind="jsonl", path=f"{path}/**/*.py")),
    "tasks of a folder": lambda path: sum(1 for _ in plan_source(Source(kind="files", path=path), max_bytes=9)),
    "tasks of a glob": lambda path: sum(
        1 for _ in plan_source(Source(kind="files", path=f"{path}/**/*.py"), max_bytes=9)
    ),
    "tasks of files of records": lambda path: sum(
        1 for _ in plan_source(Source(kind="csv", path=f"{path}/*/*"), max_bytes=9)
    ),
    "check": check,
}


@pytest.mark.parametrize("walk", WALKS.values(), ids=WALKS)
def test_a_file_costs_less_than_two_hundred_bytes(many, monkeypatch, walk):
    monkeypatch.chdir(many)
    monkeypatch.setattr(readers, "BATCH_FILES", 50)  # what a task holds does not grow with the folder
    walk("data/raw")  # imports, caches
    # one of three: Python's own table of names that pathlib keeps grows now and then
    assert any(peak_of(walk) < MOST * COUNT + 200_000 for _ in range(3))


def peak_of(walk):
    tracemalloc.start()
    try:
        walk("data/raw")
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def random_tree(folder, seed):
    dice = random.Random(seed)
    for _ in range(dice.choice([0, 1, 40, 120])):
        path = folder.joinpath(*dice.choices(NAMES, k=dice.randint(1, 4)))
        if path.exists() or any(above.is_file() for above in path.parents):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if dice.random() < 0.1:
            path.symlink_to(dice.choice([folder, *folder.rglob("*")]))
        else:
            path.write_bytes(dice.choice([b"", b"x" * dice.randrange(30)]))
    return folder


@pytest.mark.parametrize("seed", range(12))
def test_names_come_in_the_order_of_whole_paths_and_the_hash_is_that_of_the_list(tmp_path, monkeypatch, seed):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hashing, "CHUNK", 10)  # so that threads hash some of the files
    monkeypatch.setattr(hashing, "HASHED_AHEAD", seed)
    folder = random_tree(tmp_path / "tree", seed)
    folder.mkdir(exist_ok=True)
    entries = list(scan(folder))
    names = [entry.name for entry in entries]
    everything = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not real_folder(path)}
    assert names == sorted(everything)
    assert list(files_of(folder)) == sorted((folder / e.name for e in entries if e.is_file), key=os.fsencode)

    listed = [{"md5": md5_of(folder / e.name), "relpath": e.name} for e in entries if e.is_file]
    hashes = hashing.hash_path(folder)
    assert hashes.md5 == hashlib.md5(json.dumps(listed, sort_keys=True).encode()).hexdigest() + ".dir"  # noqa: S324
    assert hashes.size == sum((folder / e.name).stat().st_size for e in entries if e.is_file)


def real_folder(path):
    return path.is_dir() and not path.is_symlink()


def md5_of(path):
    return hashlib.md5(path.read_bytes()).hexdigest()  # noqa: S324


@pytest.mark.parametrize("seed", range(6))
def test_a_folder_is_read_folder_by_folder_in_the_order_of_names(tmp_path, monkeypatch, seed):
    """The order of the tasks decides the order of refused.ndjson."""
    monkeypatch.chdir(tmp_path)
    folder = random_tree(tmp_path / "tree", seed)
    (folder / "z").mkdir(parents=True)
    (folder / "z/.gitignore").write_text("*.b\n!a.b\n")
    for name in ("a.b", "c.b", "c"):
        (folder / "z" / name).write_text("text\n")

    def below(path):
        for inner in sorted(path.iterdir(), key=os.fsencode):
            if real_folder(inner):
                yield from below(inner)
            elif inner != folder / "z/c.b":
                yield inner.relative_to(folder).as_posix()

    tasks = plan_source(Source(kind="files", path="tree", glob="**"), max_bytes=1000)
    assert [name for task in tasks for name in task.names] == list(below(folder))


def test_what_cannot_be_hashed_is_named_before_a_file_is_hashed(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("x")
    os.mkfifo(tmp_path / "z")
    monkeypatch.setattr(hashing, "hash_file", None)
    with pytest.raises(UserError, match=r"z is a FIFO"):
        hashing.hash_path(tmp_path)
