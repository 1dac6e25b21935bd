"""Objects of a Git repository that need far more memory than they take in the file: refused by their headers."""

from __future__ import annotations

import hashlib
import resource
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from codex_ml.ingest.readers import git_objects
from codex_ml.ingest.readers.git_objects import Damaged, Objects, read_object

sys.path.insert(0, str(Path(__file__).parent))
from helpers import ingest, write

MIB = 1 << 20


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def varint(number):
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def head(kind, size):
    first, size = kind << 4 | size & 15, size >> 4
    return bytes([first | (0x80 if size else 0)]) + (varint(size) if size else b"")


def copies(base, times):
    """A delta that copies the whole base this many times."""
    step = b"\xf0" + struct.pack("<L", base)[:3]  # from 0, three bytes of length
    return varint(base) + varint(base * times) + step * times


def packed(*objects):
    """Write objects/ with one pack of (kind, data) objects; each delta has the object before it as its base. Returns ids."""
    folder = Path("objects/pack")
    folder.mkdir(parents=True)
    body, names, places = b"PACK" + struct.pack(">LL", 2, len(objects)), [], []
    for number, (kind, data) in enumerate(objects):
        places.append(len(body))
        names.append(hashlib.sha1(b"%d" % number, usedforsecurity=False).digest())
        body += head(kind, len(data)) + (names[-2] if kind == git_objects.REF_DELTA else b"") + zlib.compress(data, 9)
    body += hashlib.sha1(body, usedforsecurity=False).digest()
    order = sorted(range(len(objects)), key=lambda number: names[number])
    fan = [sum(names[number][0] <= first for number in order) for first in range(256)]
    index = b"\xfftOc" + struct.pack(">L", 2) + struct.pack(">256L", *fan) + b"".join(names[n] for n in order)
    index += bytes(4 * len(objects)) + struct.pack(f">{len(objects)}L", *(places[n] for n in order)) + body[-20:]
    index += hashlib.sha1(index, usedforsecurity=False).digest()
    write("objects/pack/pack-a.pack", body)
    write("objects/pack/pack-a.idx", index)
    return [name.hex().encode() for name in names]


def refused(name):
    """The reason why an object is not read; checks that memory has not grown."""
    store = Objects("objects")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        with pytest.raises(Damaged) as caught:
            read_object(store, name)
    finally:
        store.close()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB
    return str(caught.value).partition(" ")[2].partition(" ")[2]


def test_deltas_that_grow_in_steps_are_refused():
    """Each delta copies the object before it 16 times: from 1 MiB to 256 MiB, and to 4 GiB one step later."""
    names = packed(
        (git_objects.BLOB, bytes(MIB)), *((git_objects.REF_DELTA, copies(MIB * 16**n, 16)) for n in range(2))
    )
    assert refused(names[2]) == f"needs {(256 + 16) * MIB} bytes; at most {256 * MIB} are read"


def test_a_small_result_of_a_large_base_is_refused():
    """The object has 4 bytes, but its base has 300 MiB."""
    small = varint(300 * MIB) + varint(4) + b"\x90\x04"
    names = packed((git_objects.BLOB, bytes(300 * MIB)), (git_objects.REF_DELTA, small))
    assert Path("objects/pack/pack-a.pack").stat().st_size < MIB
    assert refused(names[1]) == f"needs {300 * MIB + max(4, len(small))} bytes; at most {256 * MIB} are read"


def test_a_chain_without_an_end_is_refused(monkeypatch):
    monkeypatch.setattr(git_objects, "LONGEST_CHAIN", 8)
    names = packed((git_objects.BLOB, b"base"), *((git_objects.REF_DELTA, copies(4, 1)) for _ in range(9)))
    assert refused(names[9]) == "is a delta of more than 8 deltas"


def test_a_loose_object_that_inflates_without_an_end_is_refused():
    data = zlib.compress(b"blob 4\0" + bytes(300 * MIB), 9)
    write("objects/aa/" + "b" * 38, data)
    assert refused(b"aa" + b"b" * 38) == f"needs more than {256 * MIB} bytes"


def test_objects_of_git_itself_are_read_with_deltas_of_both_kinds():
    run = ["git", "-C", "in", "-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "pack.window=50"]
    write("in/x.py", "")
    subprocess.run([*run, "init", "-q"], check=True)
    for number in range(20):
        write("in/x.py", "".join(f"line_{n} = {n * number}\n" for n in range(200)))
        subprocess.run([*run, "add", "-A"], check=True)
        subprocess.run([*run, "commit", "-qm", "one"], check=True)
    for repack in (["-adfq"], ["-adfq", "--depth=1"]):
        subprocess.run([*run, "repack", *repack], check=True)
        for back in range(0, 20, 6):
            text = subprocess.run(
                [*run, "show", f"HEAD~{back}:x.py"], check=True, capture_output=True, text=True
            ).stdout
            commit = subprocess.run(
                [*run, "rev-parse", f"HEAD~{back}"], check=True, capture_output=True, text=True
            ).stdout
            documents, _ = ingest("git", "in", revision=commit.strip(), max_bytes=100_000)
            assert [d.text for d in documents] == [text]
