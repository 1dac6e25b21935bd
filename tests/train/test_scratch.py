"""The folder of a run: one folder per recipe, one run at a time in each."""

from __future__ import annotations

from dataclasses import replace

import accelerate
import pytest

from codex_ml.core.errors import CheckFailed
from codex_ml.core.lock import ProcessLock
from codex_ml.modeling.hardware import Hardware
from codex_ml.train.scratch import fingerprint, run_folder

HARDWARE = Hardware("cpu", "fp32", compile=False, threads=2, capability="AVX2")
RECORD = {
    "seed": 1,
    "params": {"train": {"lr": 0.001}},
    "deps": {"data/packed": {"sha256": "00", "size": 1}},
    "environment": {"python": "3.11.7", "threads": 2, "packages": {"torch": "2.13.0", "numpy": "2.0.0"}},
}


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 2},
        {"params": {"train": {"lr": 0.0010000000000000002}}},
        {"params": {"train": {"lr": 0.001, "max_steps": 1}}},
        {"deps": {"data/packed": {"sha256": "01", "size": 1}}},
        {"environment": {**RECORD["environment"], "python": "3.11.8"}},
        {"environment": {**RECORD["environment"], "packages": {"torch": "2.13.1", "numpy": "2.0.0"}}},
    ],
)
def test_another_recipe_has_another_folder(change):
    assert fingerprint({**RECORD, **change}, HARDWARE) != fingerprint(RECORD, HARDWARE)


@pytest.mark.parametrize(
    "change", [{"device": "cuda"}, {"precision": "bf16"}, {"compile": True}, {"threads": 1}, {"capability": "AVX512"}]
)
def test_other_hardware_has_another_folder(change):
    assert fingerprint(RECORD, replace(HARDWARE, **change)) != fingerprint(RECORD, HARDWARE)


def test_order_of_keys_is_no_difference():
    turned = {key: RECORD[key] for key in reversed(RECORD)}
    assert fingerprint(turned, replace(HARDWARE)) == fingerprint(RECORD, HARDWARE)


def test_folder_is_named_by_the_recipe_and_removed_when_its_run_ends(tmp_path):
    with run_folder(tmp_path, RECORD, HARDWARE) as folder:
        assert folder == tmp_path / fingerprint(RECORD, HARDWARE)
        assert folder.is_dir()
        with run_folder(tmp_path, {**RECORD, "seed": 2}, HARDWARE) as other:  # at the same time
            assert other != folder
    assert not folder.exists()
    assert not other.exists()


def test_failed_run_keeps_its_folder_and_lets_others_in(tmp_path):
    with pytest.raises(RuntimeError), run_folder(tmp_path, RECORD, HARDWARE) as folder:
        raise RuntimeError
    assert folder.is_dir()
    with run_folder(tmp_path, RECORD, HARDWARE) as again:
        assert again == folder


def test_end_of_a_run_leaves_its_folder_to_who_waits(tmp_path):
    lock = tmp_path / f"{fingerprint(RECORD, HARDWARE)}.lock"
    second = ProcessLock(lock, "train", "works")
    with run_folder(tmp_path, RECORD, HARDWARE) as folder:
        assert not second.try_acquire()
    assert folder.is_dir()
    assert second.try_acquire()
    second.close()
    with run_folder(tmp_path, RECORD, HARDWARE):
        pass
    assert not folder.exists()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"deps": {"data/packed": {"sha256": "01", "size": 1}}}, "data/packed"),
        ({"environment": {**RECORD["environment"], "packages": {"torch": "2.13.1", "numpy": "2.0.0"}}}, "torch"),
    ],
)
def test_a_process_that_reads_or_has_something_else_is_refused(tmp_path, monkeypatch, change, named):
    first = [fingerprint(RECORD, HARDWARE), {**RECORD["deps"], **RECORD["environment"]["packages"]}]
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(accelerate, "PartialState", lambda cpu: None)
    monkeypatch.setattr(accelerate.utils, "broadcast_object_list", lambda own: first)
    with run_folder(tmp_path, {**RECORD, "environment": {**RECORD["environment"], "threads": 1}}, HARDWARE) as folder:
        assert folder == tmp_path / first[0]  # of another kind of machine
    with (
        pytest.raises(CheckFailed, match=f"process 1 differs from the first process in {named}"),
        run_folder(tmp_path, {**RECORD, **change}, HARDWARE),
    ):
        pass
