"""A safetensors file matches its header to the byte, or one line names the file and refuses it."""

from __future__ import annotations

import io
import json
import pickle
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from codex_ml.core.errors import UserError
from codex_ml.train.model.weights import TensorEntry, check_weights, read_tensors

FOUR = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


def archive(content=b"x"):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("data.pkl", content)
    return buffer.getvalue()


def test_header_of_a_good_file_is_read(tmp_path):
    tensors = {
        "b.w": torch.ones(2, 3),
        "a": torch.zeros(4, dtype=torch.bfloat16),
        "h.0.attn.bias": torch.ones(1, 1, 2, 2, dtype=torch.bool),
    }
    save_file(tensors, tmp_path / "w.safetensors", metadata={"format": "pt"})
    entries = check_weights(tmp_path / "w.safetensors")
    assert {name: (entry.dtype, entry.shape) for name, entry in entries.items()} == {
        "b.w": ("F32", (2, 3)),
        "a": ("BF16", (4,)),
        "h.0.attn.bias": ("BOOL", (1, 1, 2, 2)),
    }
    read = dict(read_tensors(tmp_path / "w.safetensors", entries))
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())


def test_tensors_stay_when_the_file_changes(tmp_path):
    file = tmp_path / "w.safetensors"
    save_file({"a": torch.ones(1000)}, file)
    read = dict(read_tensors(file, check_weights(file)))
    with file.open("r+b") as handle:
        handle.seek(-4000, 2)
        handle.write(bytes(4000))
    assert torch.equal(read["a"], torch.ones(1000))


HEADERS = {
    "duplicate": ('{"a": 1, "a": 2}', b"", "the key 'a' stands twice in one object"),
    "not an object": ("[1, 2, 3]", b"", "this is not safetensors: it does not begin with a header"),
    "broken": ('{"a": ', b"", "Expecting value: line 1 column 7 (char 6)"),
    "no tensor": ({"__metadata__": {}}, b"", "it has no tensors"),
    "path": ({"../a": FOUR}, bytes(4), "a tensor is named '../a'; letters, digits and _.- are allowed"),
    "escape": ({"\x1b]52;": FOUR}, bytes(4), r"a tensor is named '\x1b]52;'; letters, digits and _.- are allowed"),
    "extra key": ({"a": {**FOUR, "code": 1}}, bytes(4), "the header's a does not have the keys dtype, shape, data_offsets, and only these"),
    "dtype": ({"a": {**FOUR, "dtype": "F8_E4M3"}}, bytes(4), "a is of dtype 'F8_E4M3'; F64, F32, F16, BF16, I64, I32, I16, I8, U8, BOOL are read"),
    "dtype list": ({"a": {**FOUR, "dtype": ["F32"]}}, bytes(4), "a is of dtype \"['F32']\"; F64, F32, F16, BF16, I64, I32, I16, I8, U8, BOOL are read"),
    "whole numbers": ({"a": {**FOUR, "dtype": "I32"}}, bytes(4), "a is of dtype I32; weights must be floating-point numbers (F64, F32, F16, BF16)"),
    "booleans": ({"attn.bias": {"dtype": "BOOL", "shape": [4], "data_offsets": [0, 4]}}, bytes(4), "attn.bias is of dtype BOOL; weights must be floating-point numbers (F64, F32, F16, BF16)"),
    "negative": ({"a": {**FOUR, "shape": [-1]}}, bytes(4), "the shape of a is not a list of at most 8 sizes"),
    "bool size": ({"a": {**FOUR, "shape": [True]}}, bytes(4), "the shape of a is not a list of at most 8 sizes"),
    "rank": ({"a": {**FOUR, "shape": [1] * 9}}, bytes(4), "the shape of a is not a list of at most 8 sizes"),
    "huge": ({"a": {**FOUR, "shape": [2**63]}}, bytes(4), "the shape of a is not a list of at most 8 sizes"),
    "product": ({"a": {**FOUR, "shape": [2**40, 2**40]}}, bytes(4), f"the offsets [0, 4] of a do not fit its shape [{2**40}, {2**40}] of F32"),
    "backwards": ({"a": {**FOUR, "data_offsets": [4, 0]}}, bytes(4), "the offsets [4, 0] of a do not fit its shape [1] of F32"),
    "overlap": ({"a": FOUR, "b": {**FOUR, "data_offsets": [2, 6]}}, bytes(6), "b begins at byte 2 of the data; expected byte 4"),
    "same place": ({"a": FOUR, "b": FOUR}, bytes(4), "b begins at byte 0 of the data; expected byte 4"),
    "gap": ({"a": FOUR, "b": {**FOUR, "data_offsets": [8, 12]}}, bytes(12), "b begins at byte 8 of the data; expected byte 4"),
    "cut off": ({"a": FOUR}, bytes(3), "its tensors take 4 bytes, and 3 follow the header"),
    "appended": ({"a": FOUR}, bytes(5), "its tensors take 4 bytes, and 5 follow the header"),
    "metadata": ({"a": FOUR, "__metadata__": {"m": "x" * 70_000}}, bytes(4), "its metadata is not a mapping of at most 65,536 bytes"),
    "metadata list": ({"a": FOUR, "__metadata__": [1]}, bytes(4), "its metadata is not a mapping of at most 65,536 bytes"),
    "metadata of numbers": ({"a": FOUR, "__metadata__": {"m": 1}}, bytes(4), "its metadata holds a value that is not a text"),
    "not a number": ('{"a": NaN}', b"", "NaN is not JSON (RFC 8259 section 6)"),
    "nested": ('{"a":' * 100_000, b"", "nested too deeply, more than 200 levels"),
}  # fmt: skip


@pytest.mark.parametrize("name", HEADERS)
def test_header_that_is_not_what_the_file_holds_is_refused(raw_safetensors, tmp_path, name):
    header, data, reason = HEADERS[name]
    file = tmp_path / "w.safetensors"
    file.write_bytes(raw_safetensors(header, data))
    with pytest.raises(UserError) as error:
        check_weights(file)
    assert str(error.value) == f"{file}: {reason}; this file is not used"


@pytest.mark.parametrize(
    ("length", "reason"),
    [
        (2**62, "its header claims 4,611,686,018,427,387,904 bytes; at most 10,485,760 are read"),
        (10 * 2**20, "its header claims 10,485,760 bytes of a file of 86"),
    ],
)
def test_header_bomb_is_refused_before_it_is_read(raw_safetensors, tmp_path, length, reason):
    file = tmp_path / "w.safetensors"
    file.write_bytes(raw_safetensors({"a": FOUR}, bytes(17), length=length))
    with pytest.raises(UserError) as error:
        check_weights(file)
    assert str(error.value) == f"{file}: {reason}; this file is not used"


class Canary:
    def __reduce__(self):
        return pytest.fail, ("the pickle was loaded",)


def numpy_file():
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    return buffer.getvalue()


def test_a_header_that_only_the_library_refuses_is_one_line(raw_safetensors, tmp_path):
    file = tmp_path / "w.safetensors"
    file.write_bytes(raw_safetensors('{"__metadata__": {"m": "\\ud800"}, "a": ' + json.dumps(FOUR) + "}", bytes(4)))
    with pytest.raises(
        UserError, match=r"w\.safetensors: Error while deserializing header: .*; this file is not used$"
    ):
        list(read_tensors(file, check_weights(file)))


OTHERS = {
    "pickle 2": (pickle.dumps(Canary(), 2), "a pickle"),
    "pickle 5": (pickle.dumps(Canary(), 5), "a pickle"),
    "torch": (archive(pickle.dumps(Canary())), "a zip archive, as torch.save writes it"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "an HDF5 file"),
    "numpy": (numpy_file(), "a NumPy file"),
    "gguf": (b"GGUF" + bytes(100), "a GGUF file"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer: the weights were never fetched"),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_another_format_under_this_name_is_named_and_refused(tmp_path, name):
    file = tmp_path / "model.safetensors"
    content, kind = OTHERS[name]
    file.write_bytes(content)
    with pytest.raises(UserError) as error:
        check_weights(file)
    assert str(error.value) == f"{file}: this is {kind}, not safetensors; this file is not used"


@pytest.mark.parametrize("content", [b"", b"{", bytes(8), bytes(100), b"\xff" * 100])
def test_what_has_no_header_is_refused(tmp_path, content):
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    with pytest.raises(UserError, match="this is not safetensors: it does not begin with a header"):
        check_weights(file)


def test_a_file_that_is_a_zip_archive_too_is_refused(raw_safetensors, tmp_path):
    """The tensors cover every byte, so only a reader that starts at the end, like zip readers, finds it."""
    hidden = archive(pickle.dumps(Canary()))
    header = {"attn.bias": {"dtype": "U8", "shape": [1, 1, 1, len(hidden)], "data_offsets": [0, len(hidden)]}}
    file = tmp_path / "w.safetensors"
    file.write_bytes(raw_safetensors(header, hidden))
    assert zipfile.is_zipfile(file)
    with pytest.raises(UserError) as error:
        check_weights(file)
    assert str(error.value) == f"{file}: it is also a zip archive, if it is read from its end; this file is not used"


@pytest.mark.parametrize("length", [0x0280, 0x0480, 0x4B50, 0x010580])
def test_a_header_whose_length_looks_like_another_format_is_read(raw_safetensors, tmp_path, length):
    header = json.dumps({"a": FOUR}).ljust(length)
    (tmp_path / "w.safetensors").write_bytes(raw_safetensors(header, bytes(4)))
    assert check_weights(tmp_path / "w.safetensors") == {"a": TensorEntry("F32", (1,), 0, 4)}


def test_a_header_that_could_be_a_pickle_too_is_refused(raw_safetensors, tmp_path):
    header = json.dumps({"a": FOUR}).ljust(0x470280)  # G, the opcode of a number of 8 bytes
    (tmp_path / "w.safetensors").write_bytes(raw_safetensors(header, bytes(4)))
    with pytest.raises(UserError, match="this is a pickle, not safetensors"):
        check_weights(tmp_path / "w.safetensors")


def test_weights_that_happen_to_hold_the_mark_of_a_zip_are_no_zip(raw_safetensors, tmp_path):
    data = b"PK\x05\x06" + bytes(range(1, 253))
    header = {"attn.bias": {"dtype": "U8", "shape": [1, 1, 1, len(data)], "data_offsets": [0, len(data)]}}
    (tmp_path / "w.safetensors").write_bytes(raw_safetensors(header, data))
    assert check_weights(tmp_path / "w.safetensors") == {"attn.bias": TensorEntry("U8", (1, 1, 1, 256), 0, 256)}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_numbers_that_are_not_finite_are_refused(tmp_path, value, dtype):
    file = tmp_path / "w.safetensors"
    save_file({"a": torch.zeros(3), "bad.weight": torch.tensor([1.0, value], dtype=dtype)}, file)
    with pytest.raises(UserError) as error:
        list(read_tensors(file, check_weights(file)))
    assert str(error.value) == f"{file}: bad.weight holds numbers that are not finite; this file is not used"
