"""A compressed file is read to its last member, or refused as a whole before any of its records is used."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import random
import struct
import sys
import zlib
from pathlib import Path

import pyarrow as pa
import pytest

from codex_ml.core.errors import UserError
from codex_ml.ingest.readers import compression
from codex_ml.ingest.readers.compression import BLOCK, Broken, blocks

sys.path.insert(0, str(Path(__file__).parent))
from helpers import ingest, reasons, tasks, texts, write


def zstd(data):
    return pa.compress(data, codec="zstd", asbytes=True)


PACK = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstd}
A, B, C = (b'{"text": "%s"}\n' % name for name in (b"a", b"b", b"c"))
KINDS = pytest.mark.parametrize("kind", PACK)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def read(data, kind, name="in.jsonl"):
    write(f"{name}.{kind}", data)
    return ingest("jsonl", f"{name}.{kind}")


def damaged(data, kind):
    """The reason why a file is refused whole."""
    documents, (item,) = read(data, kind)
    assert documents == [] and item.line is None and item.bad and item.path == f"in.jsonl.{kind}"
    return item.reason


@KINDS
def test_a_compressed_file_reads_as_what_was_compressed(kind):
    documents, refused = read(PACK[kind](A + B), kind)
    assert texts(documents) == ["a", "b"] and refused == []
    assert documents[1].place == f"in.jsonl.{kind}:2"


@KINDS
def test_all_members_are_read_and_a_line_may_go_over_the_border_of_two(kind):
    for cut in range(len(A + B)):
        data = PACK[kind]((A + B)[:cut]) + PACK[kind]((A + B)[cut:]) + PACK[kind](b"") + PACK[kind](C)
        documents, refused = read(data, kind)
        assert texts(documents) == ["a", "b", "c"] and refused == [], cut


@KINDS
def test_the_ending_may_be_in_capitals(kind):
    write(f"in.jsonl.{kind.upper()}", PACK[kind](A))
    assert texts(ingest("jsonl", f"in.jsonl.{kind.upper()}")[0]) == ["a"]


@KINDS
def test_a_folder_is_searched_for_compressed_files_too(kind):
    write("in/b.jsonl." + kind, PACK[kind](B))
    write("in/a.jsonl", A)
    write("in/sub/c.NDJSON." + kind, PACK[kind](C))
    write("in/d.txt." + kind, PACK[kind](C))
    documents, refused = ingest("jsonl")
    assert [(d.text, d.place) for d in documents] == [
        ("a", "in/a.jsonl:1"), ("b", f"in/b.jsonl.{kind}:1"), ("c", f"in/sub/c.NDJSON.{kind}:1"),
    ] and refused == []  # fmt: skip


@KINDS
def test_a_compressed_empty_file_has_no_record(kind):
    assert reasons(read(PACK[kind](b""), kind)[1]) == [(None, "has no records")]
    assert reasons(read(b"", kind)[1]) == [(None, "has no records")]


@KINDS
@pytest.mark.parametrize("member", ["first", "second"])
def test_a_file_cut_short_anywhere_gives_no_document(kind, member):
    packed = PACK[kind](A * 20 + B)
    before = PACK[kind](A) if member == "second" else b""
    for end in range(1, len(packed)):
        documents, refused = read(before + packed[:end], kind)
        assert documents == [] and len(refused) == 1 and refused[0].bad and refused[0].line is None, end


@KINDS
@pytest.mark.parametrize("rest", [b"garbage", b"\x1f", b"\xff" * 600, A])
def test_what_follows_the_last_member_is_damage(kind, rest):
    assert damaged(PACK[kind](A) + rest, kind).startswith("damaged (")


@KINDS
def test_a_member_that_is_not_one_is_damage(kind):
    second = bytearray(PACK[kind](B))
    second[0] ^= 1
    assert damaged(PACK[kind](A) + bytes(second) + PACK[kind](C), kind).startswith("damaged (")


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])  # zst has no checksum unless the writer asked for one
def test_a_flipped_bit_gives_no_wrong_document(kind):
    packed = PACK[kind](b"".join(b'{"text": "%d"}\n' % number for number in range(300)))
    wanted = [str(number) for number in range(300)]
    randomness = random.Random(7)
    for _ in range(150):
        data = bytearray(packed)
        data[randomness.randrange(len(data))] ^= 1 << randomness.randrange(8)
        documents, refused = read(bytes(data), kind)
        assert texts(documents) == wanted if not refused else documents == [] and len(refused) == 1


@pytest.mark.parametrize("padding", [1, 4, 512, 8192, BLOCK])
def test_zeros_after_a_gzip_file_are_padding(padding):
    assert texts(read(gzip.compress(A) + b"\0" * padding, "gz")[0]) == ["a"]


@pytest.mark.parametrize("padding", [4, 512, BLOCK])
def test_zeros_after_an_xz_file_are_padding(padding):
    assert texts(read(lzma.compress(A) + b"\0" * padding, "xz")[0]) == ["a"]


@pytest.mark.parametrize("padding", [4, 512, BLOCK - len(lzma.compress(A)), BLOCK])
def test_data_after_the_padding_of_an_xz_file_is_never_lost_silently(padding):
    documents, refused = read(lzma.compress(A) + b"\0" * padding + lzma.compress(B), "xz")
    assert texts(documents) == ["a", "b"] if not refused else documents == []


@pytest.mark.parametrize(
    ("tail", "reason"),
    [
        (struct.pack("<LL", zlib.crc32(A) ^ 1, len(A)), "damaged (CRC check failed 0x"),
        (struct.pack("<LL", zlib.crc32(A), len(A) + 1), "damaged (Incorrect length of data produced)"),
    ],
)
def test_a_wrong_checksum_or_length_is_damage(tail, reason):
    assert damaged(gzip.compress(A)[:-8] + tail, "gz").startswith(reason)
    assert damaged(gzip.compress(B) + gzip.compress(A)[:-8] + tail, "gz").startswith(reason)


@KINDS
@pytest.mark.parametrize("data", [A, b"P", b"PK\3\4", b"\x1f", b"\0" * 20])
def test_a_name_that_promises_compression_is_reported(kind, data):
    assert damaged(data, kind) == f"the name says .{kind}, the first bytes do not"


@KINDS
@pytest.mark.parametrize("other", PACK)
def test_a_name_with_the_wrong_ending_is_reported(kind, other):
    if kind != other:
        assert damaged(PACK[other](A), kind) == f"the name says .{kind}, the first bytes do not"


@KINDS
def test_a_compressed_file_without_an_ending_is_reported(kind):
    write("in.jsonl", PACK[kind](A))
    documents, refused = ingest("jsonl", "in.jsonl")
    assert documents == [] and reasons(refused) == [(None, f"is compressed; let its name end in .{kind}")]


@KINDS
def test_a_file_that_was_compressed_twice_is_reported(kind):
    assert reasons(read(PACK[kind](PACK[kind](A)), kind)[1]) == [(None, "is compressed twice; unpack it once")]


@KINDS
def test_a_damaged_file_does_not_affect_other_files(kind):
    write("in/a.jsonl", A)
    write(f"in/b.jsonl.{kind}", PACK[kind](B * 30)[:-2])
    write(f"in/c.jsonl.{kind}", PACK[kind](C))
    documents, (item,) = ingest("jsonl")
    assert texts(documents) == ["a", "c"] and item.path == f"in/b.jsonl.{kind}"


# --- bombs


@KINDS
def test_a_bomb_is_refused_before_its_first_record(kind, monkeypatch):
    monkeypatch.setattr(compression, "BOMB_BYTES", 1 << 20)
    reason = "more than 1 MiB and 200 times its size: a decompression bomb"
    assert damaged(PACK[kind](A + b" " * (8 << 20)), kind) == reason


@KINDS
def test_a_large_file_that_compresses_like_text_is_not_a_bomb(kind, monkeypatch):
    monkeypatch.setattr(compression, "BOMB_BYTES", 1000)
    lines = b"".join(b'{"text": "%016x"}\n' % random.Random(n).getrandbits(64) for n in range(500))
    assert len(read(PACK[kind](lines), kind)[0]) == 500


@KINDS
def test_a_small_file_that_compresses_too_well_is_not_a_bomb(kind):
    documents, refused = read(PACK[kind](A + b"\n" * (1 << 20) + B), kind)
    assert [d.text for d in documents] == ["a", "b"] and refused == []


def test_a_bomb_of_many_gzip_members_is_one_too(monkeypatch):
    monkeypatch.setattr(compression, "BOMB_BYTES", 1 << 20)
    assert damaged(gzip.compress(b" " * 100_000) * 100, "gz").endswith("a decompression bomb")


# --- blocks


@KINDS
def test_blocks_are_small_and_their_sizes_add_up_to_the_file(kind):
    data = random.Random(1).randbytes(1 << 16) * 75
    path = write(f"in.jsonl.{kind}", PACK[kind](data))
    found = list(blocks(path))
    assert b"".join(block for block, _ in found) == data
    assert max(len(block) for block, _ in found) <= BLOCK
    assert sum(size for _, size in found) == path.stat().st_size


def test_blocks_of_a_plain_file():
    path = write("in.jsonl", bytes(2 * BLOCK + 1))
    assert [(len(block), size) for block, size in blocks(path)] == [(BLOCK, BLOCK), (BLOCK, BLOCK), (1, 1)]
    assert list(blocks(write("empty.jsonl", b""))) == []


@pytest.mark.parametrize("kind", ["", *PACK])
@pytest.mark.parametrize("change", ["longer", "touched"])
def test_a_file_that_changes_while_it_is_read_ends_the_run(kind, change):
    data = (b'{"text": "%s"}\n' % random.Random(1).randbytes(20_000).hex().encode()) * 110
    path = write("in.jsonl" + (f".{kind}" if kind else ""), PACK[kind](data) if kind else data)
    found = tasks("jsonl", str(path), max_bytes=100_000)
    next(found)
    if change == "longer":
        with path.open("ab") as file:
            file.write(PACK[kind](A) if kind else A)
    else:
        os.utime(path, ns=(0, 0))
    message = f"^{path} changed while it was read; stop what writes to it and run again$".replace(".", r"\.")
    with pytest.raises(UserError, match=message):
        list(found)


def test_the_reason_is_known_before_the_first_block():
    path = write("in.jsonl.gz", gzip.compress(os.urandom(5 * BLOCK))[:-1])
    with pytest.raises(
        Broken, match=r"^damaged \(Compressed file ended before the end-of-stream marker was reached\)$"
    ):
        next(blocks(path))


@KINDS
def test_no_file_stays_open(kind):
    before = len(list(Path("/proc/self/fd").iterdir()))
    read(PACK[kind](A), kind)
    read(PACK[kind](A * 99)[:-3], kind)
    read(PACK[kind](b"[1,\n2]"), kind)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
