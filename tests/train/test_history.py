"""The history only grows, and a checkpoint records which part of it belongs to it."""

from __future__ import annotations

import hashlib
import json
import shutil

import pytest

from codex_ml.core.hashing import sha256_of
from codex_ml.train import history as module
from codex_ml.train.checkpoint import damage, export_newest, load_checkpoint, load_newest, save_checkpoint
from codex_ml.train.history import History, damage_of, read_points

POINTS = [{"step": step, "train/loss": 1 / step, "train/lr": 3e-4 / step} for step in range(1, 40)]


def filled(file, points, kept=0):
    history = History(file, kept)
    for point in points:
        history.append(point)
    return history


def saved(folder, step, history):
    tensors = {"model": {}, "optimizer": {}}
    save_checkpoint(folder, step=step, tensors=tensors, best=[], state={"history": history.mark()}, keep=9)


def test_points_come_back_exactly_and_the_mark_is_that_of_the_bytes(tmp_path):
    history = filled(tmp_path / "new/h", POINTS)
    data = (tmp_path / "new/h").read_bytes()
    assert list(history.points()) == POINTS
    assert [json.loads(line) for line in data.splitlines()] == POINTS
    assert history.mark() == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
@pytest.mark.parametrize("cut", [0, 1, 17, len(POINTS)])
def test_a_history_goes_on_from_any_mark_with_the_same_bytes(tmp_path, monkeypatch, cut, chunk):
    monkeypatch.setattr(module, "CHUNK", chunk)
    filled(tmp_path / "whole", POINTS)
    kept = filled(tmp_path / "cut", POINTS[:cut]).mark()["bytes"]
    with (tmp_path / "cut").open("ab") as handle:
        handle.write(b'{"step": 99}\n{"st')  # of steps after the checkpoint, the last one killed
    resumed = filled(tmp_path / "cut", POINTS[cut:], kept)
    assert (tmp_path / "cut").read_bytes() == (tmp_path / "whole").read_bytes()
    assert resumed.mark() == filled(tmp_path / "again", POINTS).mark()
    assert list(resumed.points()) == POINTS


def test_a_part_is_read_up_to_its_length(tmp_path):
    mark = filled(tmp_path / "h", POINTS[:5]).mark()
    filled(tmp_path / "h", POINTS[5:], mark["bytes"])
    assert list(read_points(tmp_path / "h", mark["bytes"])) == POINTS[:5]
    assert list(read_points(tmp_path / "h", 0)) == []


def test_what_lies_after_a_mark_cannot_damage_it_and_every_byte_before_can(tmp_path):
    file = tmp_path / "h"
    mark = filled(file, POINTS[:2]).mark()
    data = file.read_bytes()
    file.write_bytes(data + b"anything")
    assert damage_of(file, mark) is None
    for place in range(len(data)):
        file.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        assert damage_of(file, mark) == "history.ndjson does not match its SHA-256"
        file.write_bytes(data[:place])
        assert damage_of(file, mark) == "history.ndjson ends too early"
    file.unlink()
    assert damage_of(file, mark) == "history.ndjson is missing"


def test_the_size_of_a_checkpoint_does_not_depend_on_its_step(tmp_path):
    sizes = []
    history = History(tmp_path / "history.ndjson")
    for number in (10, 1000):
        for step in range(number):
            history.append({"step": step, "train/loss": 0.5})
        saved(tmp_path, number, history)
        sizes.append(sum(file.stat().st_size for file in (tmp_path / f"step-{number:08d}").iterdir()))
    assert sizes[1] - sizes[0] <= 5  # digits of the step and of the length


def test_an_exported_checkpoint_has_its_own_history(tmp_path):
    history = filled(tmp_path / "run/history.ndjson", POINTS[:3])
    saved(tmp_path / "run", 3, history)
    history.append(POINTS[3])
    export_newest(tmp_path / "run", tmp_path / "last")
    shutil.rmtree(tmp_path / "run")
    assert damage(tmp_path / "last") is None
    assert list(load_checkpoint(tmp_path / "last").points()) == POINTS[:3]
    (tmp_path / "last/history.ndjson").unlink()
    assert damage(tmp_path / "last") == "history.ndjson is missing"


def test_checkpoints_are_ordered_by_number_and_other_names_are_left_alone(tmp_path):
    history = History(tmp_path / "history.ndjson")
    for step in (99_999_999, 100_000_000):
        saved(tmp_path, step, history)
    for name in ("step-00000002 (copy)", "step-200000000.bak", "step-x"):
        shutil.copytree(tmp_path / "step-99999999", tmp_path / name)
    assert load_newest(tmp_path).state["step"] == 100_000_000
    before = sha256_of(tmp_path / "step-x/state.json")
    save_checkpoint(tmp_path, step=100_000_001, tensors={"model": {}, "optimizer": {}}, best=[], state={}, keep=1)
    assert sorted(path.name for path in tmp_path.glob("step-*")) == [
        "step-00000002 (copy)", "step-100000001", "step-200000000.bak", "step-x",
    ]  # fmt: skip
    assert sha256_of(tmp_path / "step-x/state.json") == before
