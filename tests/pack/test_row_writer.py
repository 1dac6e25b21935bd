"""Writing a stream: equal input gives equal bytes, memory is bounded, and no document is written in part."""

import hashlib
import tracemalloc

import numpy as np
import pytest

from codex_ml.core.errors import UserError
from codex_ml.modeling.rows import Rows
from codex_ml.pack import row_writer as pack_writer
from codex_ml.pack.fitting import Example
from codex_ml.pack.row_writer import StreamFormat, write_stream

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


def test_documents_that_fit_into_a_row_are_not_divided(tmp_path):
    pack(tmp_path, documents(), seq_len=64)
    rows = Rows.open(tmp_path, "train")
    sizes = np.diff(rows.starts.astype(np.int64))
    pieces = np.bincount(np.concatenate([rows.documents(row) for row in range(len(rows))]))
    assert (pieces == -(-sizes // 64)).all()
    assert (sizes > 64).any()


def test_only_a_window_of_pieces_is_held_and_the_loss_of_fill_is_small(tmp_path, monkeypatch):
    held = []
    monkeypatch.setattr(pack_writer, "WINDOW", 100)
    placed = pack_writer.fit_spread
    monkeypatch.setattr(pack_writer, "fit_spread", lambda sizes, *more: held.append(len(sizes)) or placed(sizes, *more))
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
def test_ids_at_the_limits_of_the_dtype_are_unchanged(tmp_path, dtype, ids):
    pack(tmp_path, [ids], dtype=dtype)
    assert Rows.open(tmp_path, "train").batch(np.array([0]))["labels"][0, : len(ids)].tolist() == ids


def test_an_id_that_does_not_fit_is_refused_before_it_is_written(tmp_path):
    with pytest.raises(UserError, match=r"^train: token id 65536 does not fit uint16; use pack\.dtype auto$"):
        pack(tmp_path, [[3], [4, 65_536]])
    assert (tmp_path / "train.bin").read_bytes() == b""
    assert not (tmp_path / "pack.json").exists()


@pytest.mark.parametrize("block", [1, 3, 1 << 20])
def test_the_mask_file_begins_with_the_first_target_that_is_not_trained(tmp_path, monkeypatch, block):
    monkeypatch.setattr(pack_writer, "BLOCK", block)
    pack(tmp_path, [[5, 6], [], [7]])
    assert not (tmp_path / "train.mask").exists()
    pack(tmp_path, [[5, 6], [], example([7, 8], [False, True, True]), [9]])
    assert np.fromfile(tmp_path / "train.mask", "u1").tolist() == [0, 1, 1, 1, 1, 0, 1, 1, 1, 1]


def test_canaries_are_listed_by_document_number(tmp_path):
    stream = pack(tmp_path, [[5], example([6], canary=True), [7], example([6], canary=True)])
    assert stream["canaries"] == [1, 3]
    assert Rows.open(tmp_path, "train").canaries == (1, 3)


BOS = 3
DOCUMENTS = [
    example([11, 12, 13]),
    example([]),
    example([21, 22, 23, 24], [False, False, True, True, True]),  # a record: its prompt has no loss
    example([END, 31, 32], [False, False, True, False], chat=True),  # its template wrote its begin and its end
    example(list(range(40, 59))),  # longer than a row
    example([61, 62], canary=True),
]  # fmt: skip


def pieces_of(rows):
    """Document number -> (inputs, labels) of its pieces, in the order of the stream."""
    found = {}
    for row in range(len(rows)):
        batch = rows.batch(np.array([row]))
        place = 0
        for document, (_, length) in zip(rows.documents(row).tolist(), rows.row_pieces(row).tolist(), strict=True):
            part = slice(place, place + length)
            piece = [batch[name][0, part].tolist() for name in ("input_ids", "labels")]
            found.setdefault(document, []).append(piece)
            place += length
    return {document: sorted(pieces) for document, pieces in found.items()}


def test_a_bos_begins_each_document_and_is_not_a_target(tmp_path):
    stream = pack(tmp_path, DOCUMENTS, begin=BOS)
    found = pieces_of(Rows.open(tmp_path, "train"))
    assert found[0] == [[[BOS, 11, 12, 13], [11, 12, 13, END]]]
    assert found[1] == [[[BOS], [END]]]
    assert found[2] == [[[BOS, 21, 22, 23, 24], [-100, -100, 23, 24, END]]]
    assert found[3] == [[[END, 31], [-100, 32]]]
    inputs = [token for piece, _ in found[4] for token in piece]
    labels = [token for _, piece in found[4] for token in piece]
    assert inputs == [BOS, *range(40, 59)]
    assert labels == [*range(40, 59), END]
    assert found[5] == [[[BOS, 61, 62], [61, 62, END]]]
    assert stream["canaries"] == [5]
    assert stream["targets"] == 4 + 1 + 3 + 1 + 20 + 3
    assert stream["cut_documents"] == 1


def test_a_bos_changes_only_the_first_input_and_only_of_text(tmp_path):
    """A tokenizer whose BOS is its END, as in GPT-2, gives the same bytes as one without BOS."""
    for name, begin in (("none", None), ("same", END), ("other", BOS)):
        (tmp_path / name).mkdir()
        pack(tmp_path / name, DOCUMENTS, begin=begin)
    assert digest(tmp_path / "none") == digest(tmp_path / "same")
    plain, other = (pieces_of(Rows.open(tmp_path / name, "train")) for name in ("none", "other"))
    for document, example_ in enumerate(DOCUMENTS):
        first = [END] if example_.chat else [BOS]
        (inputs, labels), *rest = plain[document]
        assert [[[*first, *inputs[1:]], labels], *rest] == sorted(other[document], key=lambda piece: piece[0] != first)


def test_a_bos_alone_needs_no_mask_file(tmp_path):
    assert not pack(tmp_path, [[5, 6], [7]], begin=BOS)["masked"]


@pytest.mark.parametrize("begin", [None, END, 1])
@pytest.mark.parametrize("window", [1, 7, 1 << 16])
def test_the_batch_size_of_writing_changes_no_byte(tmp_path, monkeypatch, begin, window):
    """Long and empty documents, partly trained records, chats and canaries, in windows of all sizes."""
    dice = np.random.Generator(np.random.PCG64(5))
    made = []
    for number, size in enumerate(dice.geometric(0.05, 400).tolist()):
        ids = dice.integers(2, 500, size + 2 if number % 5 == 4 else size - 1).astype(np.uint32)
        trained = dice.random(len(ids) + 1) < 0.7 if number > 100 and number % 3 == 0 else None
        made.append(Example(ids, trained, chat=number % 5 == 4, canary=number % 50 == 0))
    monkeypatch.setattr(pack_writer, "WINDOW", window)
    written = []
    for together in (1, 300, 1 << 20):
        monkeypatch.setattr(pack_writer, "TOGETHER", together)
        folder = tmp_path / str(together)
        folder.mkdir()
        about = write_stream(folder, "train", made, StreamFormat(END, np.dtype("<u2"), 16, begin)).as_json()
        written.append((about, digest(folder)))
    assert written == [written[0]] * 3
    assert about["canaries"] == list(range(0, 400, 50))
    assert about["masked"]
    stream = np.fromfile(folder / "train.bin", "<u2")
    mask = np.fromfile(folder / "train.mask", np.uint8)
    opening = [] if begin in (None, END) else [begin]
    expected, trained = [], [0]
    for example_ in made:
        head = [] if example_.chat else opening
        expected += [END, *head, *example_.ids.tolist()]
        marks = [True] * (len(example_.ids) + 1) if example_.trained is None else example_.trained.tolist()
        trained += [True] * len(head) + marks
    assert stream.tolist() == [*expected, END]
    assert mask.astype(bool).tolist() == [bool(value) for value in trained]
