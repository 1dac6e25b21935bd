"""The packed stream: every token is a target exactly once per epoch, ids are unchanged, step N can be looked up."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codex_ml.core.errors import UserError
from codex_ml.modeling.rows import IGNORE, Rows, row_order, rows_of_step, stream_dtype

from .packing import END, example, pack, slow_batch

TEXTS = st.lists(st.integers(2, 500), max_size=30).map(example)
LEARNT = st.lists(st.booleans(), min_size=7, max_size=7).filter(any)
RECORDS = LEARNT.map(lambda trained: example(range(10, 16), trained))
CHATS = LEARNT.map(lambda trained: example(range(20, 26), [False, *trained[:5], False], chat=True))
EXAMPLES = st.lists(TEXTS | RECORDS | CHATS, max_size=12)


@given(EXAMPLES, st.integers(8, 13), st.sampled_from(["packed", "padded"]))
@settings(max_examples=150, deadline=None)
def test_a_batch_equals_the_slow_reference(tmp_path_factory, examples, seq_len, layout):
    folder = tmp_path_factory.mktemp("pack")
    pack(folder, examples, seq_len=seq_len, layout=layout)
    rows = Rows.open(folder, "train")
    everything = np.arange(len(rows))
    batch = rows.batch(everything)
    assert {(a.dtype, a.shape) for a in batch.values()} == {(np.dtype(np.int64), (len(rows), seq_len))}
    assert {key: value.tolist() for key, value in batch.items()} == slow_batch(rows)
    for row in everything:
        alone = rows.batch(everything[row : row + 1])
        assert all((alone[key][0] == batch[key][row]).all() for key in batch)
    backwards = rows.batch(everything[::-1])
    assert all((backwards[key][::-1] == batch[key]).all() for key in batch)


@given(EXAMPLES, st.integers(8, 13), st.sampled_from(["packed", "padded"]))
@settings(max_examples=150, deadline=None)
def test_every_token_is_a_target_once_and_pieces_never_overlap(tmp_path_factory, examples, seq_len, layout):
    """By place in the stream: of a text every token but the END in front, of a chat every token but its first."""
    folder = tmp_path_factory.mktemp("pack")
    stream = pack(folder, examples, seq_len=seq_len, layout=layout)
    rows = Rows.open(folder, "train")
    expected, trained, begin = [], 0, 0
    for made in examples:
        size = len(made.ids)
        expected += range(begin + 2, begin + size + 1) if made.chat else range(begin + 1, begin + size + 2)
        trained += size + 1 if made.trained is None else int(made.trained.sum())
        begin += size + 1
    places = [at for start, length in rows.pieces.tolist() for at in range(start + 1, start + length + 1)]
    assert sorted(places) == expected
    assert int((rows.batch(np.arange(len(rows)))["labels"] != IGNORE).sum()) == stream["targets"] == trained
    assert all(0 < rows.row_pieces(row)[:, 1].sum() <= seq_len for row in range(len(rows)))
    if layout == "padded":
        assert len(rows) == len(rows.pieces)


@given(EXAMPLES, st.integers(8, 13))
@settings(max_examples=60, deadline=None)
def test_positions_restart_at_every_piece_and_no_piece_spans_documents(tmp_path_factory, examples, seq_len):
    folder = tmp_path_factory.mktemp("pack")
    pack(folder, examples, seq_len=seq_len)
    rows = Rows.open(folder, "train")
    for row in range(len(rows)):
        positions = rows.batch(np.array([row]))["position_ids"][0]
        lengths = rows.row_pieces(row)[:, 1].tolist()
        filler = seq_len - sum(lengths)
        assert (
            np.flatnonzero(positions == 0).tolist() == np.cumsum([0, *lengths])[: len(lengths) + (filler > 0)].tolist()
        )
        for document, (start, length) in zip(rows.documents(row).tolist(), rows.row_pieces(row).tolist(), strict=True):
            assert rows.starts[document] <= start < start + length <= rows.starts[document + 1]


def test_every_end_is_trained_once_even_if_it_is_the_pad_token(tmp_path):
    """huggingface/transformers 23530: a mask by id instead of by position would hide it."""
    pack(tmp_path, [[5, 6], [7], [8, 9, 10]], seq_len=8)
    about = json.loads((tmp_path / "pack.json").read_bytes())
    (tmp_path / "pack.json").write_text(json.dumps({**about, "pad": END}))
    rows = Rows.open(tmp_path, "train")
    batch = rows.batch(np.arange(len(rows)))
    assert (batch["labels"] == END).sum() == 3
    assert batch["input_ids"].tolist() == [[0, 5, 6, 0, 8, 9, 10, 0], [0, 7, 0, 0, 0, 0, 0, 0]]
    assert batch["labels"].tolist() == [[5, 6, 0, 8, 9, 10, 0, -100], [7, 0, *[-100] * 6]]


def test_a_small_stream_worked_out_by_hand(tmp_path):
    stream = pack(tmp_path, [[5, 6, 7], [], [8, 9], [*range(10, 22)], [30]])
    assert stream == {
        "documents": 5, "tokens": 24, "targets": 23, "rows": 3, "pieces": 6, "cut_documents": 1,
        "fill": round(23 / 24, 6), "masked": False, "canaries": [],
    }  # fmt: skip
    tokens = [0, 5, 6, 7, 0, 0, 8, 9, 0, *range(10, 22), 0, 30, 0]
    assert np.fromfile(tmp_path / "train.bin", "<u2").tolist() == tokens
    assert np.fromfile(tmp_path / "train.starts", "<u8").tolist() == [0, 4, 5, 8, 21, 23]
    # the first 8 targets of the long one are a row; of the rest, 5 + 3 fill one, 4 + 2 + 1 most of one
    assert np.fromfile(tmp_path / "train.pieces", "<u8").reshape(-1, 2).tolist() == [
        [8, 8], [0, 4], [4, 1], [21, 2], [5, 3], [16, 5]
    ]  # fmt: skip
    assert np.fromfile(tmp_path / "train.rows", "<u8").tolist() == [0, 1, 4, 6]
    assert not (tmp_path / "train.mask").exists()
    rows = Rows.open(tmp_path, "train")
    assert rows.batch(np.array([2, 0, 1]))["input_ids"].tolist() == [
        [0, 8, 9, 17, 18, 19, 20, 21],
        [0, 10, 11, 12, 13, 14, 15, 16],
        [0, 5, 6, 7, 0, 0, 30, 1],
    ]
    assert rows.batch(np.array([2, 1]))["labels"].tolist() == [
        [8, 9, 0, 18, 19, 20, 21, 0],
        [5, 6, 7, 0, 0, 30, 0, -100],
    ]
    assert rows.batch(np.array([1]))["position_ids"].tolist() == [[0, 1, 2, 3, 0, 0, 1, 0]]
    assert [rows.documents(row).tolist() for row in range(3)] == [[3], [0, 1, 4], [2, 3]]


def test_prompts_and_chats_worked_out_by_hand(tmp_path):
    """A record of 2 prompt and 1 completion tokens; a chat of 4 tokens, of which the last 2 are trained."""
    record = example([5, 6, 7], [False, False, True, True])
    chat = example([20, 21, 22, 23], [False, False, True, True, False], chat=True)
    stream = pack(tmp_path, [record, chat, [9]])
    assert np.fromfile(tmp_path / "train.bin", "<u2").tolist() == [0, 5, 6, 7, 0, 20, 21, 22, 23, 0, 9, 0]
    assert np.fromfile(tmp_path / "train.mask", "u1").tolist() == [0, 0, 0, 1, 1, 0, 0, 1, 1, 0, 1, 1]
    assert (stream["masked"], stream["targets"]) == (True, 6)
    batch = Rows.open(tmp_path, "train").batch(np.array([0, 1]))
    assert batch["input_ids"].tolist() == [[0, 5, 6, 7, 20, 21, 22, 1], [0, 9, *[1] * 6]]
    assert batch["labels"].tolist() == [[-100, -100, 7, 0, -100, 22, 23, -100], [9, 0, *[-100] * 6]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 0, 1, 2, 0], [0, 1, 0, 1, 2, 3, 4, 5]]


def test_a_stream_without_documents_has_no_rows(tmp_path):
    stream = pack(tmp_path, [])
    assert (stream["documents"], stream["tokens"], stream["rows"], stream["fill"]) == (0, 1, 0, None)
    rows = Rows.open(tmp_path, "train")
    assert len(rows) == 0
    assert rows.batch(np.arange(0))["labels"].shape == (0, 8)


def test_one_document_shorter_than_a_row_gives_a_row(tmp_path):
    """karpathy/nanoGPT 292: a validation split of one sentence ended in a range error."""
    pack(tmp_path, [[5, 6, 7]], seq_len=256)
    batch = Rows.open(tmp_path, "train").batch(np.array([0]))
    assert batch["labels"][0].tolist() == [5, 6, 7, END, *[IGNORE] * 252]


def test_a_step_larger_than_an_epoch_repeats_rows(tmp_path):
    pack(tmp_path, [[5] * 7, [6] * 7, [7] * 7])
    rows = Rows.open(tmp_path, "train")
    step = rows_of_step(len(rows), step=0, batch_rows=8, seed=1)
    assert sorted(step[:3].tolist()) == sorted(step[3:6].tolist()) == [0, 1, 2]
    assert (rows.batch(step)["labels"] != IGNORE).all()


@pytest.mark.parametrize(
    ("tokens", "wanted", "dtype"),
    [
        (258, "auto", "<u2"), (65_535, "auto", "<u2"), (65_536, "auto", "<u2"), (65_537, "auto", "<u4"), (151_936, "auto", "<u4"),
        (258, "uint32", "<u4"), (65_536, "uint16", "<u2"),
    ],
)  # fmt: skip
def test_the_dtype_follows_from_the_largest_id(tokens, wanted, dtype):
    assert stream_dtype(tokens, wanted) == np.dtype(dtype)


def test_uint16_for_too_many_tokens_is_refused():
    with pytest.raises(
        UserError, match=r"^pack\.dtype uint16 holds ids up to 65535; the tokenizer has 65537 tokens: use auto$"
    ):
        stream_dtype(65_537, "uint16")


@pytest.fixture
def packed(tmp_path):
    pack(tmp_path, [[5, 6, 7]], name="val")
    pack(tmp_path, [[5] * 9, example([6] * 4, [False] * 4 + [True])])
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


def last(name, value):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-8] + value.to_bytes(8, "little"))


def without(key):
    """pack.json as an earlier version wrote it."""

    def remove(folder):
        about = json.loads((folder / "pack.json").read_bytes())
        del about["streams"]["train"][key]
        (folder / "pack.json").write_text(json.dumps(about))

    return remove


def with_value(key, value):
    """pack.json with another value of a key."""

    def replace(folder):
        about = json.loads((folder / "pack.json").read_bytes())
        (folder / "pack.json").write_text(json.dumps({**about, key: value}))

    return replace


def holds(file, count):
    return (
        rf"train\.{file} does not hold {count} numbers, as pack\.json says; name a folder that stage pack wrote whole$"
    )


BELONGS = r"train\.{} does not belong to train\.bin; name a folder that stage pack wrote whole$"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "train.bin").unlink(), holds("bin", 16)),
        (cut("train.bin", 0), holds("bin", 16)),
        (cut("train.bin", -1), holds("bin", 16)),
        (lambda folder: (folder / "train.bin").open("ab").write(b"\0\0"), holds("bin", 16)),
        (swap(".bin"), holds("bin", 16)),
        (cut("train.starts", -8), holds("starts", 3)),
        (swap(".starts"), holds("starts", 3)),
        (last("train.starts", 14), BELONGS.format("starts")),
        (lambda folder: (folder / "train.starts").unlink(), holds("starts", 3)),
        (cut("train.pieces", -16), holds("pieces", 6)),
        (swap(".pieces"), holds("pieces", 6)),
        (cut("train.rows", -8), holds("rows", 3)),
        (last("train.rows", 2), BELONGS.format("rows")),
        (lambda folder: (folder / "train.mask").unlink(), holds("mask", 16)),
        (cut("train.mask", -1), holds("mask", 16)),
        (lambda folder: (folder / "pack.json").unlink(), r"pack\.json is missing; `dvc repro pack` makes it$"),
        (cut("pack.json", 20), r"pack\.json is not valid JSON: "),
        (without("pieces"), r"pack\.json: streams\.train\.pieces: field required; `dvc repro pack` makes it anew$"),
        (
            with_value("seq_len", 0),
            r"pack\.json: seq_len: input should be greater than 0; `dvc repro pack` makes it anew$",
        ),
        (
            lambda folder: (folder / "pack.json").write_text("[]"),
            r"pack\.json: expected a JSON object, found list; `dvc repro pack` makes it anew$",
        ),
    ],
)
def test_truncated_missing_or_swapped_files_are_refused(packed, damage, message):
    damage(packed)
    with pytest.raises(UserError, match=message):
        Rows.open(packed, "train")


@pytest.mark.parametrize(("rows", "batch"), [(7, 3), (5, 5), (4, 11), (1, 2), (100, 7)])
def test_each_epoch_is_a_permutation_also_across_steps(rows, batch):
    epochs = 4
    steps = -(-epochs * rows // batch)
    order = np.concatenate([rows_of_step(rows, step=step, batch_rows=batch, seed=9) for step in range(steps)])
    for epoch in range(epochs):
        assert sorted(order[epoch * rows : (epoch + 1) * rows].tolist()) == list(range(rows))
        assert (order[epoch * rows : (epoch + 1) * rows] == row_order(rows, seed=9, epoch=epoch)).all()


def test_the_rows_of_a_step_do_not_depend_on_earlier_steps():
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
