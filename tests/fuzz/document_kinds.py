"""Kinds of documents and archives, which `ingest` reads. Used by: kinds."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tarfile
import zipfile
from pathlib import Path
from random import Random

from .kind import TEXT, Kind, Read
from .mutations import changed_bytes, changed_json, json_bytes, one_of


def _ingested(kind: str) -> Read:
    from codex_ml.core.sections import validate
    from codex_ml.ingest.config import Source
    from codex_ml.ingest.readers import plan_source
    from codex_ml.ingest.sources import read_task

    def read(file: Path) -> bool:
        source = validate(Source, {"kind": kind, "path": "data", "glob": "**/*", "bad_records": "skip"}, name="fuzz")
        source = source.model_copy(update={"path": str(file)})
        return sum(len(read_task(task).ids) for task in plan_source(source, max_bytes=100_000)) > 0

    return read


RECORDS = [
    {"text": TEXT, "id": "a", "licence": "MIT", "meta": {"n": [1, 2.5, None]}},
    {"prompt": "p", "completion": "c", "input": "i"},
    {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "tool_calls": []}], "tools": []},
]  # fmt: skip


def jsonl_kind(folder: Path) -> Kind:
    seeds = [json.dumps(record, ensure_ascii=False).encode() for record in RECORDS]

    def structured(rng: Random) -> bytes:
        lines = [json_bytes(changed_json(record, rng), rng) for record in rng.choices(RECORDS, k=rng.choice((1, 2, 5)))]
        return rng.choice((b"\n", b"\r\n", b"\n\n")).join(lines)

    return Kind(
        "data.jsonl",
        b"\n".join(seeds),
        one_of([structured, structured, lambda rng: changed_bytes(b"\n".join(seeds), rng, others=seeds)]),
        _ingested("jsonl"),
    )


def csv_kind(folder: Path) -> Kind:
    seed = b'text,id,licence\n"a ""b""\nc",1,MIT\r\nx,2,\n'
    return Kind(
        "data.csv",
        seed,
        lambda rng: changed_bytes(seed, rng, others=[b'"', b",", b"\r", b"\0", b"text"]),
        _ingested("csv"),
    )


def parquet_kind(folder: Path) -> Kind:
    import pyarrow as pa
    import pyarrow.parquet as pq

    seeds = []
    for options in (
        {"compression": "zstd"},
        {"compression": "none", "use_dictionary": False},
        {"data_page_version": "2.0"},
    ):
        table = pa.table({
            "text": [TEXT, "b" * 300, None, "d"] * 5, "id": list(map(str, range(20))), "n": list(range(20)),
            "messages": [[{"role": "user", "content": "a"}]] * 20,
        })  # fmt: skip
        buffer = io.BytesIO()
        pq.write_table(table, buffer, row_group_size=7, **options)
        seeds.append(buffer.getvalue())
    return Kind(
        "data.parquet",
        seeds[0],
        lambda rng: changed_bytes(rng.choice(seeds), rng, others=seeds, tail=0.6),
        _ingested("parquet"),
    )


MEMBERS = {"a.py": TEXT, "b/c.py": "x = 1\n" * 50, "LICENSE": "MIT", "d/e/f.txt": ""}
NAMES = (
    "../x.py",
    "/etc/x.py",
    "a.py/b.py",
    "\0.py",
    "a\\b.py",
    "x" * 5000 + ".py",
    "\u202e.py",
    "",
    ".",
    "a.py",
    "C:\\x.py",
)


def _zip_bytes(rng: Random, members: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(
        buffer, "w", rng.choice((*[zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED] * 9, zipfile.ZIP_BZIP2)), compresslevel=1
    ) as file:
        for name, text in members.items():
            data = text.encode() * (20_000 if rng.random() < 0.01 else 1)
            info = zipfile.ZipInfo(rng.choice(NAMES) if rng.random() < 0.15 else name)
            info.external_attr = rng.choice((0, 0, 0o120777 << 16, 0o010644 << 16))
            info.compress_type = file.compression
            file.writestr(info, data)
    return buffer.getvalue()


def _zipped(name: str, kind: str, members: dict[str, str], *, folder_of: bool = False) -> Kind:
    def make(rng: Random) -> bytes:
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # two members of one name
            data = _zip_bytes(rng, members)
        return changed_bytes(data, rng, tail=0.5) if rng.random() < 0.8 else data

    read = _ingested(kind)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for path, text in members.items():
            file.writestr(path, text)
    return Kind(name, buffer.getvalue(), make, (lambda file: read(file.parent)) if folder_of else read)


def zip_kind(folder: Path) -> Kind:
    return _zipped("data.zip", "zip", MEMBERS)


def wheel_kind(folder: Path) -> Kind:
    meta = {
        "p-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: p\nVersion: 1\nLicense: MIT\n",
        "p-1.dist-info/RECORD": "",
    }
    return _zipped("p-1-py3-none-any.whl", "wheels", {"p/__init__.py": TEXT, **meta}, folder_of=True)


def tar_kind(folder: Path) -> Kind:
    packed = {
        "": bytes,
        ".gz": lambda d: gzip.compress(d, 1),
        ".bz2": lambda d: bz2.compress(d, 1),
        ".xz": lambda d: lzma.compress(d, preset=0),
    }

    def plain(rng: Random) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(
            fileobj=buffer, mode="w", format=rng.choice((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT))
        ) as file:
            for name, text in MEMBERS.items():
                info = tarfile.TarInfo((rng.choice(NAMES) or "e") if rng.random() < 0.04 else name)
                info.size = len(data := text.encode())
                info.type = rng.choice((tarfile.REGTYPE,) * 40 + (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE))
                info.linkname = rng.choice(("", "a.py", "../../x", "b"))
                info.pax_headers = rng.choice(
                    (*[{}] * 20, {"path": "y" * 500}, {"size": "99999999999"}, {"GNU.sparse.major": "1"})
                )
                file.addfile(info, io.BytesIO(data))
        return buffer.getvalue()

    def make(rng: Random) -> bytes:
        data = plain(rng)
        if rng.random() < 0.5:
            data = _with_checksums(bytearray(changed_bytes(data, rng)), rng)
        data = packed[rng.choice(list(packed))](data)
        return changed_bytes(data, rng) if rng.random() < 0.2 else data

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        info = tarfile.TarInfo("a.py")
        info.size = len(TEXT.encode())
        file.addfile(info, io.BytesIO(TEXT.encode()))
    ingested, marks = _ingested("tar"), {b"\x1f\x8b": ".gz", b"BZ": ".bz2", b"\xfd7": ".xz"}

    def read(file: Path) -> bool:
        named = file.with_name("data.tar" + marks.get(file.read_bytes()[:2], ""))  # the name must say the compression
        file.rename(named)
        try:
            return ingested(named)
        finally:
            named.rename(file)

    return Kind("data.tar", buffer.getvalue(), make, read)


def _with_checksums(data: bytearray, rng: Random) -> bytes:
    """Correct the checksum of each header that looks like one, so that its other fields are read."""
    for at in range(0, len(data) - 511, 512):
        if data[at + 257 : at + 262] == b"ustar" and rng.random() < 0.9:
            data[at + 148 : at + 156] = b" " * 8
            data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
    return bytes(data)
