"""A checkpoint is complete or absent, and is read only if every byte is as it was written."""

from __future__ import annotations

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from codex_ml.core.errors import UserError
from codex_ml.train.checkpoint import (
    copy_weights,
    damage,
    load_newest,
    load_optimizer,
    load_weights,
    optimizer_tensors,
    save_checkpoint,
)

FILES = ["best/00000001.safetensors", "model.safetensors", "optimizer.safetensors", "state.json"]


def save(folder, step, *, keep=9):
    tensors = {"w": torch.full((3,), float(step))}
    best = folder.parent / f"{folder.name}-best-{step}/00000001.safetensors"
    best.parent.mkdir()
    save_file(tensors, best)
    parts = dict.fromkeys(("model", "optimizer", "ema"), tensors)
    save_checkpoint(folder, step=step, tensors=parts, best=[best], state={"best": [{"step": step}]}, keep=keep)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_was_saved_comes_back(tmp_path):
    save(tmp_path, 7)
    found = load_newest(tmp_path)
    for part in (found.weights, found.ema, found.optimizer, load_file(found.folder / "best/00000001.safetensors")):
        assert part.keys() == {"w"}
        assert torch.equal(part["w"], torch.full((3,), 7.0))
    assert found.state == {"best": [{"step": 7}], "step": 7}
    assert damage(tmp_path / "step-00000007") is None


def test_nothing_saved_is_no_checkpoint(tmp_path):
    assert load_newest(tmp_path) is None
    assert load_newest(tmp_path / "missing") is None


def test_checkpoint_without_a_validation_has_no_best_weights(tmp_path):
    save_checkpoint(tmp_path, step=1, tensors={"model": {}, "optimizer": {}}, best=[], state={}, keep=1)
    assert load_newest(tmp_path).ema is None
    assert names(tmp_path / "step-00000001") == [
        "manifest.json",
        "model.safetensors",
        "optimizer.safetensors",
        "state.json",
    ]


def flip(file):
    """The same length, one byte XORed, at the start, in the middle and at the end."""
    data = file.read_bytes()
    for place in (0, len(data) // 2, len(data) - 1):
        yield data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def cut(file):
    data = file.read_bytes()
    for length in (0, 1, len(data) // 2, len(data) - 1):
        yield data[:length]


@pytest.mark.parametrize("how", [flip, cut])
@pytest.mark.parametrize("name", FILES)
def test_damaged_file_is_named_and_the_checkpoint_before_is_used(tmp_path, caplog, name, how):
    save(tmp_path, 1)
    save(tmp_path, 2)
    file = tmp_path / "step-00000002" / name
    for number, data in enumerate(how(file), start=1):
        file.write_bytes(data)
        assert damage(tmp_path / "step-00000002") == f"{name} does not match its SHA-256"
        assert load_newest(tmp_path).state["step"] == 1
        assert len(caplog.records) == number
        assert caplog.records[-1].levelname == "WARNING"
        assert f"step-00000002 is damaged ({name} does not match its SHA-256)" in caplog.messages[-1]


@pytest.mark.parametrize("name", FILES)
def test_deleted_file_is_named_and_the_checkpoint_before_is_used(tmp_path, caplog, name):
    save(tmp_path, 1)
    save(tmp_path, 2)
    (tmp_path / "step-00000002" / name).unlink()
    assert load_newest(tmp_path).state["step"] == 1
    assert f"step-00000002 is damaged ({name} is missing)" in caplog.text


def test_manifest_that_cannot_be_trusted_is_damage(tmp_path, caplog):
    """No byte can be lost, except the last one, a newline without meaning."""
    save(tmp_path, 1)
    save(tmp_path, 2)
    manifest = tmp_path / "step-00000002/manifest.json"
    whole = manifest.read_bytes()
    for data in [*flip(manifest), *cut(manifest)][:-1]:
        manifest.write_bytes(data)
        assert damage(manifest.parent)
        assert load_newest(tmp_path).state["step"] == 1
    manifest.write_text("{}")
    assert damage(manifest.parent).startswith("manifest.json does not list model.safetensors, optimizer.safetensors")
    manifest.unlink()
    assert "manifest.json is missing" in damage(manifest.parent)
    manifest.write_bytes(whole)
    assert damage(manifest.parent) is None


def test_damaged_best_weights_of_one_checkpoint_are_whole_in_the_one_before(tmp_path):
    """Both keep the weights of the same validation."""
    best = tmp_path / "best/00000001.safetensors"
    best.parent.mkdir()
    save_file({"w": torch.zeros(3)}, best)
    for step in (1, 2):
        save_checkpoint(
            tmp_path / "run", step=step, tensors={"model": {}, "optimizer": {}}, best=[best], state={}, keep=2
        )
    with (tmp_path / "run/step-00000002/best/00000001.safetensors").open("r+b") as handle:
        handle.write(b"\xff")
    assert load_newest(tmp_path / "run").state["step"] == 1


def test_no_whole_checkpoint_is_no_checkpoint(tmp_path, caplog):
    save(tmp_path, 1)
    save(tmp_path, 2)
    for folder in tmp_path.iterdir():
        (folder / "model.safetensors").unlink()
    assert load_newest(tmp_path) is None
    assert len(caplog.records) == 2


def test_unfinished_folder_of_a_killed_process_is_not_seen_and_goes_away(tmp_path):
    save(tmp_path, 1)
    shutil.copytree(tmp_path / "step-00000001", tmp_path / ".step-00000002.tmp-1")
    assert load_newest(tmp_path).state["step"] == 1
    save(tmp_path, 2)
    assert names(tmp_path) == ["step-00000001", "step-00000002"]


@pytest.mark.parametrize("keep", [1, 2, 5])
def test_newest_are_kept(tmp_path, keep):
    for step in (2, 4, 6, 8, 10_000_000):
        save(tmp_path, step, keep=keep)
    assert (
        names(tmp_path) == ["step-00000002", "step-00000004", "step-00000006", "step-00000008", "step-10000000"][-keep:]
    )


def test_damaged_newer_checkpoint_does_not_push_out_the_one_just_saved(tmp_path):
    """A run that lost step 8 and starts again must be able to resume from step 3."""
    save(tmp_path, 8, keep=1)
    (tmp_path / "step-00000008/model.safetensors").write_bytes(b"")
    save(tmp_path, 3, keep=1)
    found = load_newest(tmp_path)
    assert found is not None
    assert found.state["step"] == 3


def test_loaded_tensors_do_not_change_with_the_file(tmp_path):
    save(tmp_path, 1)
    found = load_newest(tmp_path)
    file = tmp_path / "step-00000001/model.safetensors"
    with file.open("r+b") as handle:
        handle.write(b"\xff" * file.stat().st_size)
    assert torch.equal(found.weights["w"], torch.ones(3))


@pytest.fixture
def trained():
    """A model and its optimizer after one step."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return model, optimizer


def test_weights_of_another_model_are_refused(trained):
    model, _ = trained
    weights = copy_weights(model)
    with pytest.raises(UserError, match=r"^the checkpoint belongs to another model: \['1\.bias'\] differ$"):
        load_weights(model, {name: value for name, value in weights.items() if name != "1.bias"})
    with pytest.raises(UserError, match=r"^the checkpoint belongs to another model: \['2\.weight'\] differ$"):
        load_weights(model, {**weights, "2.weight": torch.zeros(1)})
    with pytest.raises(UserError, match=r"^the checkpoint's 0\.weight is \(3, 4\), not \(4, 3\)$"):
        load_weights(model, {**weights, "0.weight": weights["0.weight"].T})


def test_copied_weights_do_not_follow_the_model(trained):
    model, _ = trained
    before = copy_weights(model)
    kept = before["0.weight"].clone()
    with torch.no_grad():
        model[0].weight.add_(1)
    assert torch.equal(before["0.weight"], kept)
    load_weights(model, before)
    assert torch.equal(model[0].weight, kept)


def test_optimizer_goes_on_as_if_it_had_not_stopped(trained):
    model, optimizer = trained
    weights, saved = copy_weights(model), optimizer_tensors(model, optimizer)
    assert set(saved) == {f"{n}/{k}" for n, _ in model.named_parameters() for k in ("step", "exp_avg", "exp_avg_sq")}
    optimizer.step()
    expected = copy_weights(model)

    load_weights(model, weights)
    fresh = torch.optim.AdamW(model.parameters(), lr=0.1)
    load_optimizer(model, fresh, saved)
    fresh.step()
    for name, value in copy_weights(model).items():
        assert torch.equal(value, expected[name])


@pytest.mark.parametrize("missing", ["1.bias/", "1.bias/exp_avg_sq", "1.bias/step", ""])
def test_missing_optimizer_state_is_an_error(trained, missing):
    model, optimizer = trained
    saved = {key: value for key, value in optimizer_tensors(model, optimizer).items() if not key.startswith(missing)}
    with pytest.raises(UserError, match="optimizer state does not belong to this model"):
        load_optimizer(model, torch.optim.AdamW(model.parameters()), saved)


def test_optimizer_state_of_another_model_is_refused(trained):
    model, optimizer = trained
    saved = {f"other.{key}": value for key, value in optimizer_tensors(model, optimizer).items()}
    with pytest.raises(UserError, match="optimizer state does not belong to this model"):
        load_optimizer(model, torch.optim.AdamW(model.parameters()), saved)
