"""The packed stream: every token a target exactly once an epoch, ids come back unchanged, step N can be looked up."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codex_ml.data.pack import IGNORE, Rows, row_order, rows_of_step, stream_dtype, write_stream
from codex_ml.errors import UserError

END, PAD = 0, 1


def pack(folder, documents, *, seq_len=8, dtype="<u2", name="train"):
    arrays = (np.array(ids, dtype=np.uint32) for ids in documents)
    stream = write_stream(folder, name, arrays, end=END, dtype=np.dtype(dtype))
    about = {"dtype": dtype, "seq_len": seq_len, "pad": PAD, "streams": {name: stream}}
    (folder / "pack.json").write_text(json.dumps(about))
    return stream


def brute_rows(documents, seq_len):
    """The same by plain lists: inputs, labels, positions."""
    stream, position = [END], [0]
    for ids in documents:
        for place, token in enumerate(ids, start=1):
            stream.append(token)
            position.append(place)
        stream.append(END)
        position.append(0)
    rows = []
    for begin in range(0, len(stream) - 1, seq_len):
        inputs, labels = stream[:-1][begin : begin + seq_len], stream[1:][begin : begin + seq_len]
        restarted = [min(position[begin + i], i) for i in range(len(inputs))]
        rows.append((inputs, labels, restarted))
    return rows


DOCUMENTS = st.lists(st.lists(st.integers(2, 500), max_size=12), min_size=1, max_size=8)


@given(DOCUMENTS, st.integers(8, 13))
@settings(max_examples=60, deadline=None)
def test_rows_are_the_stream_cut_by_position(tmp_path_factory, documents, seq_len):
    folder = tmp_path_factory.mktemp("pack")
    stream = pack(folder, documents, seq_len=seq_len)
    expected = brute_rows(documents, seq_len)
    total = sum(map(len, documents)) + len(documents) + 1
    assert stream == {"documents": len(documents), "tokens": total}
    rows = Rows.open(folder, "train")
    assert len(rows) == len(expected)
    batch = rows.batch(np.arange(len(rows)))
    assert {(a.dtype, a.shape) for a in batch.values()} == {(np.dtype(np.int64), (len(rows), seq_len))}
    for number, (inputs, labels, positions) in enumerate(expected):
        count = len(inputs)
        assert batch["input_ids"][number, :count].tolist() == inputs
        assert batch["labels"][number].tolist() == labels + [IGNORE] * (seq_len - count)
        assert batch["position_ids"][number].tolist() == positions + list(range(seq_len - count))
        assert batch["input_ids"][number, count + 1 :].tolist() == [PAD] * max(0, seq_len - count - 1)


def test_every_token_is_a_target_exactly_once_an_epoch(tmp_path):
    documents = [list(range(10, 10 + n)) for n in (3, 0, 20, 1, 7)]
    pack(tmp_path, documents)
    rows = Rows.open(tmp_path, "train")
    steps = [rows_of_step(len(rows), step=step, batch_rows=1, seed=3) for step in range(len(rows))]
    labels = np.concatenate([rows.batch(step)["labels"].ravel() for step in steps])
    seen = sorted(labels[labels != IGNORE].tolist())
    assert seen == sorted([END] * len(documents) + [token for ids in documents for token in ids])


def test_a_small_stream_by_hand(tmp_path):
    pack(tmp_path, [[5, 6, 7], [], [8, 9]])
    assert np.fromfile(tmp_path / "train.bin", "<u2").tolist() == [0, 5, 6, 7, 0, 0, 8, 9, 0]
    assert np.fromfile(tmp_path / "train.starts", "<u8").tolist() == [0, 4, 5, 8]
    batch = Rows.open(tmp_path, "train").batch(np.array([0]))
    assert batch["input_ids"].tolist() == [[0, 5, 6, 7, 0, 0, 8, 9]]
    assert batch["labels"].tolist() == [[5, 6, 7, 0, 0, 8, 9, 0]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 0, 0, 1, 2]]


def test_no_documents_are_a_stream_without_rows(tmp_path):
    assert pack(tmp_path, []) == {"documents": 0, "tokens": 1}
    assert len(Rows.open(tmp_path, "train")) == 0


@pytest.mark.parametrize(
    ("tokens", "wanted", "dtype"),
    [
        (258, "auto", "<u2"), (65_535, "auto", "<u2"), (65_536, "auto", "<u2"), (65_537, "auto", "<u4"), (151_936, "auto", "<u4"),
        (258, "uint32", "<u4"), (65_536, "uint16", "<u2"),
    ],
)  # fmt: skip
def test_the_width_follows_from_the_largest_id(tokens, wanted, dtype):
    assert stream_dtype(tokens, wanted) == np.dtype(dtype)


def test_uint16_for_too_many_tokens_is_refused():
    with pytest.raises(
        UserError, match=r"^pack\.dtype uint16 holds ids up to 65535; the tokenizer has 65537 tokens: use auto$"
    ):
        stream_dtype(65_537, "uint16")


@pytest.mark.parametrize(("dtype", "ids"), [("<u2", [2, 255, 65_534, 65_535]), ("<u4", [2, 65_535, 65_536, 2**31 - 1])])
def test_ids_come_back_unchanged_at_the_borders(tmp_path, dtype, ids):
    pack(tmp_path, [ids], dtype=dtype)
    assert Rows.open(tmp_path, "train").batch(np.array([0]))["labels"][0, : len(ids)].tolist() == ids


def test_an_id_that_does_not_fit_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"^train: token id 65536 does not fit uint16; use pack\.dtype auto$"):
        pack(tmp_path, [[65_536]])


@pytest.fixture
def packed(tmp_path):
    pack(tmp_path, [[5, 6, 7]], name="val")
    val = json.loads((tmp_path / "pack.json").read_bytes())["streams"]["val"]
    pack(tmp_path, [[5] * 9, [6] * 4])
    about = json.loads((tmp_path / "pack.json").read_bytes())
    about["streams"]["val"] = val
    (tmp_path / "pack.json").write_text(json.dumps(about))
    assert len(Rows.open(tmp_path, "train")) == 2
    assert len(Rows.open(tmp_path, "val")) == 1
    return tmp_path


def cut(name, size):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size])


def swap(suffix):
    def swap(folder):
        train, val = ((folder / f"{part}{suffix}").read_bytes() for part in ("train", "val"))
        (folder / f"train{suffix}").write_bytes(val)
        (folder / f"val{suffix}").write_bytes(train)

    return swap


BIN = r"train\.bin does not hold the 16 tokens that pack\.json tells; `dvc repro pack` makes it$"
STARTS = r"train\.starts does not belong to .*train\.bin; `dvc repro pack` makes both$"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "train.bin").unlink(), BIN),
        (cut("train.bin", 0), BIN),
        (cut("train.bin", -1), BIN),
        (cut("train.bin", -2), BIN),
        (lambda folder: (folder / "train.bin").open("ab").write(b"\0\0"), BIN),
        (swap(".bin"), BIN),
        (cut("train.starts", 0), STARTS),
        (cut("train.starts", -8), STARTS),
        (cut("train.starts", -1), STARTS),
        (swap(".starts"), STARTS),
        (lambda folder: (folder / "train.starts").unlink(), r"train\.starts"),
        (lambda folder: (folder / "pack.json").unlink(), r"pack\.json is missing$"),
        (cut("pack.json", 20), r"pack\.json is not valid JSON: "),
    ],
)
def test_truncated_missing_or_swapped_files_are_refused(packed, damage, message):
    damage(packed)
    with pytest.raises(UserError, match=message):
        Rows.open(packed, "train")


@pytest.mark.parametrize(("rows", "batch"), [(7, 3), (5, 5), (4, 11), (1, 2), (100, 7)])
def test_each_epoch_is_a_permutation_also_across_borders(rows, batch):
    epochs = 4
    steps = -(-epochs * rows // batch)
    order = np.concatenate([rows_of_step(rows, step=step, batch_rows=batch, seed=9) for step in range(steps)])
    for epoch in range(epochs):
        assert sorted(order[epoch * rows : (epoch + 1) * rows].tolist()) == list(range(rows))
        assert (order[epoch * rows : (epoch + 1) * rows] == row_order(rows, seed=9, epoch=epoch)).all()


def test_the_rows_of_a_step_depend_on_nothing_that_ran_before():
    late = rows_of_step(50, step=1000, batch_rows=8, seed=2).tolist()
    row_order.cache_clear()
    for step in range(20):
        rows_of_step(50, step=step, batch_rows=8, seed=2)
    assert rows_of_step(50, step=1000, batch_rows=8, seed=2).tolist() == late
    assert rows_of_step(50, step=1000, batch_rows=8, seed=3).tolist() != late


def test_the_order_of_rows_is_frozen_and_differs_by_epoch_and_seed():
    assert row_order(8, seed=1, epoch=0).tolist() == [5, 0, 1, 4, 2, 6, 3, 7]
    orders = {tuple(row_order(8, seed=seed, epoch=epoch).tolist()) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9
