"""Writing a stream: equal bytes from equal input, windows of bounded memory, no half document."""

import hashlib
import tracemalloc

import numpy as np
import pytest

from codex_ml.data import pack_writer
from codex_ml.data.pack import Rows
from codex_ml.errors import UserError

from .packing import END, example, pack


def documents(count=300, seed=1):
    dice = np.random.Generator(np.random.PCG64(seed))
    return [example(dice.integers(2, 500, size)) for size in dice.geometric(0.08, count)]


def digest(folder):
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}


def test_equal_documents_give_equal_bytes(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        pack(tmp_path / name, documents())
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    assert digest(tmp_path / "a").keys() == {"pack.json", "train.bin", "train.pieces", "train.rows", "train.starts"}


def test_documents_are_whole_where_they_fit(tmp_path):
    pack(tmp_path, documents(), seq_len=64)
    rows = Rows.open(tmp_path, "train")
    sizes = np.diff(rows.starts.astype(np.int64))
    pieces = np.bincount(np.concatenate([rows.documents(row) for row in range(len(rows))]))
    assert (pieces == -(-sizes // 64)).all()
    assert (sizes > 64).any()


def test_only_a_window_of_pieces_is_held_and_costs_little(tmp_path, monkeypatch):
    held = []
    monkeypatch.setattr(pack_writer, "WINDOW", 100)
    placed = pack_writer.best_fit
    monkeypatch.setattr(pack_writer, "best_fit", lambda sizes, room: held.append(len(sizes)) or placed(sizes, room))
    windowed = pack(tmp_path, documents(1000), seq_len=64)
    assert len(held) > 5
    assert set(held[:-1]) == {100}
    monkeypatch.setattr(pack_writer, "WINDOW", 1 << 16)
    whole = pack(tmp_path, documents(1000), seq_len=64)
    assert (whole["tokens"], whole["targets"]) == (windowed["tokens"], windowed["targets"])
    assert 0.95 < windowed["fill"] <= whole["fill"]


def test_memory_does_not_grow_with_the_stream(tmp_path, monkeypatch):
    monkeypatch.setattr(pack_writer, "WINDOW", 500)
    peaks = []
    for count in (2_000, 20_000):
        stream = (example([5, 6, 7] * (number % 9), [True] * (3 * (number % 9)) + [False]) for number in range(count))
        tracemalloc.start()
        pack(tmp_path, stream, seq_len=32)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def test_padded_rows_hold_one_piece_each(tmp_path):
    stream = pack(tmp_path, [[5, 6], [7] * 20, []], layout="padded")
    assert (stream["rows"], stream["pieces"], stream["cut_documents"]) == (5, 5, 1)
    assert Rows.open(tmp_path, "train").pieces.tolist() == [[3, 8], [11, 8], [0, 3], [19, 5], [24, 1]]


@pytest.mark.parametrize(("dtype", "ids"), [("<u2", [2, 255, 65_534, 65_535]), ("<u4", [2, 65_535, 65_536, 2**31 - 1])])
def test_ids_come_back_unchanged_at_the_borders(tmp_path, dtype, ids):
    pack(tmp_path, [ids], dtype=dtype)
    assert Rows.open(tmp_path, "train").batch(np.array([0]))["labels"][0, : len(ids)].tolist() == ids


def test_an_id_that_does_not_fit_is_refused_before_a_byte_of_it_is_written(tmp_path):
    with pytest.raises(UserError, match=r"^train: token id 65536 does not fit uint16; use pack\.dtype auto$"):
        pack(tmp_path, [[3], [4, 65_536]])
    assert np.fromfile(tmp_path / "train.bin", "<u2").tolist() == [END, 3]
    assert not (tmp_path / "pack.json").exists()


@pytest.mark.parametrize("block", [1, 3, 1 << 20])
def test_the_mask_begins_with_the_first_target_that_is_not_trained(tmp_path, monkeypatch, block):
    monkeypatch.setattr(pack_writer, "BLOCK", block)
    pack(tmp_path, [[5, 6], [], [7]])
    assert not (tmp_path / "train.mask").exists()
    pack(tmp_path, [[5, 6], [], example([7, 8], [False, True, True]), [9]])
    assert np.fromfile(tmp_path / "train.mask", "u1").tolist() == [0, 1, 1, 1, 1, 0, 1, 1, 1, 1]


def test_canaries_are_known_by_their_number(tmp_path):
    stream = pack(tmp_path, [[5], example([6], canary=True), [7], example([6], canary=True)])
    assert stream["canaries"] == [1, 3]
    assert Rows.open(tmp_path, "train").canaries == (1, 3)
