"""A member of an archive becomes a document, or is refused with a reason. A hostile or damaged archive is refused."""

import bz2
import gzip
import io
import lzma
import os
import pickle
import random
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest

from codex_ml.core.errors import UserError
from codex_ml.documents.document import Document, Refused
from codex_ml.documents.licences import is_allowed
from codex_ml.ingest.config import Source
from codex_ml.ingest.readers import archives, tars, zips
from codex_ml.ingest.readers import python_packages as packages
from codex_ml.ingest.readers.tasks import Context

METADATA = "Metadata-Version: 2.1\nName: My_Pkg\nVersion: 1.0\nLicense-Expression: MIT\n\n"
PLANNERS = {
    "wheels": packages.plan_wheels,
    "sdists": packages.plan_sdists,
    "zip": zips.plan_zip,
    "tar": tars.plan_tar,
}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    folder = tmp_path / "a" / "b"  # room for what would climb out
    (folder / "in").mkdir(parents=True)
    (folder / "secret.py").write_text("secret = 'canary'\n")
    monkeypatch.chdir(folder)
    return tmp_path


def plan(kind, path="in", *, max_bytes=1000, **settings):
    return list(PLANNERS[kind](Context(Source(kind=kind, path=path, **settings), path, max_bytes)))


def read(kind, path="in", **settings):
    items = []
    for task in plan(kind, path, **settings):
        items += [task] if isinstance(task, Refused) else pickle.loads(pickle.dumps(task)).read()  # noqa: S301
    return items


def texts(items):
    return {item.path: item.text for item in items if isinstance(item, Document)}


def refusals(items):
    return {item.path: (item.reason, item.bad) for item in items if isinstance(item, Refused)}


def whole(items):
    """The reason why an archive was refused as a whole."""
    (item,) = items
    assert isinstance(item, Refused)
    assert (item.source, item.line, item.bad) == ("in", None, True) or item.source == item.path
    return item.reason


def zipped(members, name="in/My_Pkg-1.0-py3-none-any.whl", metadata=METADATA, **options):
    with zipfile.ZipFile(name, "w", **options) as archive:
        if metadata is not None:
            archive.writestr("My_Pkg-1.0.dist-info/METADATA", metadata)
        for member, data in members:
            archive.writestr(member, data)
    return Path(name)


def plain_zip(*members, name="in.zip", **options):
    zipped(members, name, None, **options)
    return name


def tarred(*members, name="in.tar", mode="w", form=tarfile.PAX_FORMAT):
    with tarfile.open(name, mode, format=form) as archive:
        for member, data in members:
            info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member)
            data = data.encode() if isinstance(data, str) else data
            info.size = info.size or len(data)
            archive.addfile(info, io.BytesIO(data))
    return name


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


# --- wheels


def test_the_members_of_a_wheel_are_documents_in_order_of_their_names():
    zipped([("b.py", "b = 1\n"), ("a/c.py", b"\xef\xbb\xbfc = 'bom'\r\n"), ("data.txt", "no python"), ("a/", "")])
    first, second = read("wheels")
    assert (first.source, first.path, first.text, first.licence) == ("my-pkg==1.0", "a/c.py", "c = 'bom'\r\n", "MIT")
    assert (second.path, second.text, second.language) == ("b.py", "b = 1\n", "python")


def test_each_wheel_is_one_task():
    for name in ("b-2.whl", "a-1.whl"):
        zipped([("m.py", "x = 1")], f"in/{name}", None)
    tasks = plan("wheels")
    assert [Path(task.file).name for task in tasks] == ["a-1.whl", "b-2.whl"]
    assert [task.bytes for task in tasks] == [Path("in/a-1.whl").stat().st_size] * 2
    assert [item.source for item in read("wheels")] == ["a==1", "b==2"]


def test_too_large_empty_and_binary_members_are_refused_by_name():
    zipped(
        [
            ("big.py", "x" * 1001),
            ("fits.py", "x" * 1000),
            ("empty.py", " \n"),
            ("nul.py", "a\0b"),
            ("latin.py", b"\xe9"),
        ]
    )
    items = read("wheels")
    assert list(texts(items)) == ["fits.py"]
    assert refusals(items)["big.py"] == ("longer than 1000 bytes", False)
    assert list(refusals(items)) == ["big.py", "empty.py", "latin.py", "nul.py"]


def test_a_zip_bomb_is_refused_by_its_size_alone(monkeypatch):
    zipped([("bomb.py", b"\n" * 50_000_000)], metadata=None, compression=zipfile.ZIP_DEFLATED)
    monkeypatch.setattr(zipfile.ZipFile, "open", None)  # what opens a member now, fails
    assert refusals(read("wheels")) == {"bomb.py": ("longer than 1000 bytes", False)}


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
def test_a_damaged_wheel_is_reported_by_name_or_reads_the_same(compression):
    dice = random.Random(1)
    file = zipped([(f"{i}.py", f"value_{i} = {dice.random()}\n" * 10) for i in range(3)], compression=compression)
    good, expected = file.read_bytes(), texts(read("wheels"))
    assert len(expected) == 3
    told = 0
    for position in range(0, len(good), 5):
        file.write_bytes(good[:position] + bytes([good[position] ^ dice.randrange(1, 256)]) + good[position + 1 :])
        try:
            found = texts(read("wheels"))
        except UserError as error:
            assert str(error).startswith("in/My_Pkg-1.0-py3-none-any.whl is not a whole wheel (")
            told += 1
        else:
            assert set(found.values()) <= set(expected.values())
    assert told > 20


@pytest.mark.parametrize("cut", [0, 1, 30, 200, -1])
def test_a_wheel_that_was_cut_short_is_reported(cut):
    file = zipped([("a.py", "a = 1\n" * 20)])
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(UserError, match=r"1\.0-py3-none-any\.whl is not a whole wheel .* replace it by a whole one$"):
        read("wheels")


def test_the_line_about_a_damaged_wheel_is_short_even_if_its_names_are_long():
    file = zipped([("x" * 4000 + ".py", "a = 1\n")])
    data = file.read_bytes()
    at = data.index(b"xxxx")
    file.write_bytes(data[:at] + b"y" + data[at + 1 :])  # the name in the header of the member, not in the directory
    with pytest.raises(UserError, match=r"is not a whole wheel .File name in directory") as error:
        read("wheels")
    assert len(str(error.value)) < 450


def test_a_wheel_without_a_licence_has_the_licence_of_its_source():
    zipped([("a.py", "a = 1")], metadata=None)
    assert read("wheels", licence="ISC")[0].licence == "ISC"
    assert read("wheels")[0].licence == "unknown"
    zipped([("a.py", "a = 1")], metadata="\n\n")
    assert read("wheels", licence="ISC")[0].licence == "ISC"


def test_the_licence_of_a_wheel_does_not_depend_on_the_longest_document():
    zipped([("a.py", "a = 1")], metadata=METADATA + "long description\n" * 100)
    assert read("wheels", max_bytes=100)[0].licence == "MIT"


def test_headers_of_a_file_count_beside_the_licence_of_the_package():
    header = "# SPDX-License-Identifier: {}\n"
    zipped([
        ("a.py", header.format("MIT") + "x = 1\n"),
        ("b.py", header.format("GPL-3.0-only") + "x = 1\n"),
        ("c.py", header.format("Apache-2.0 OR GPL-2.0-only") + "x = 1\n"),
        ("d.py", header.format("LicenseRef-Internal-Only") + "x = 1\n"),
        ("e.py", header.format("MIT") + header.format("GPL-3.0-only") + "x = 1\n"),
    ])  # fmt: skip
    allowed = frozenset({"MIT", "Apache-2.0"})
    assert [is_allowed(item.licence, allowed) for item in read("wheels")] == [True, False, True, False, False]


def test_a_folder_without_a_wheel_is_reported():
    Path("in/a.py").write_text("a = 1")
    with pytest.raises(UserError, match=r"^ingest\.sources: in has no wheel \(\*\.whl\)$"):
        read("wheels")


def test_a_wheels_source_that_is_not_a_folder_is_reported():
    zipped([("a.py", "a = 1")], "in/a-1.whl")
    with pytest.raises(UserError, match=r"in/a-1\.whl is not a folder; `kind: wheels` reads a folder of wheels$"):
        read("wheels", "in/a-1.whl")


@pytest.mark.parametrize(
    ("glob", "names"),
    [
        ("**/*.py", ["a.py", "d/b.py", "d/e/c.py"]),
        ("*.txt", ["t.txt"]),
        ("d/*.py", ["d/b.py"]),
        ("**/*", ["a.py", "d/b.py", "d/e/c.py", "t.txt"]),
    ],
)
def test_a_glob_means_the_same_in_every_archive(glob, names):
    members = [("a.py", "1"), ("d/b.py", "2"), ("d/e/c.py", "3"), ("t.txt", "4")]
    zipped(members, "in/pkg-1.whl", None)
    assert sorted(texts(read("wheels", glob=glob))) == names
    assert sorted(texts(read("zip", plain_zip(*members), glob=glob))) == names
    assert sorted(texts(read("tar", tarred(*members), glob=glob))) == names
    assert sorted(texts(read("tar", "in.tar", glob=glob, exclude=["a.py"]))) == [n for n in names if n != "a.py"]


# --- sdists


def sdist(name="in/my_pkg-1.0.tar.gz", folder="my_pkg-1.0", members=(), info=METADATA):
    members = [(f"{folder}/{member}", data) for member, data in members]
    members += [(f"{folder}/PKG-INFO", info)] if info else []
    return zipped(members, name, None) if name.endswith(".zip") else tarred(*members, name=name, mode="w:gz")


@pytest.mark.parametrize("name", ["in/odd-9.tar.gz", "in/odd-9.zip"])
def test_an_sdist_is_named_and_licensed_by_its_pkg_info(name):
    sdist(name, members=[("src/m.py", "m = 1\n"), ("setup.py", "s = 1\n")])
    found = {item.path: (item.source, item.licence) for item in read("sdists", licence="ISC")}
    assert found == dict.fromkeys(["src/m.py", "setup.py"], ("my-pkg==1.0", "MIT"))


def test_an_sdist_without_pkg_info_is_named_by_its_file():
    sdist(members=[("m.py", "m = 1\n")], info="")
    (document,) = read("sdists", licence="ISC", group="source")
    assert (document.source, document.path, document.licence) == ("my-pkg==1.0", "m.py", "ISC")
    assert document.group == "my-pkg==1.0"


@pytest.mark.parametrize("name", ["in/my_pkg-1.0.tar.gz", "in/my_pkg-1.0.zip"])
@pytest.mark.parametrize("cut", [0, 10, 60, -1])
def test_a_damaged_sdist_is_refused_whole_and_the_others_are_read(name, cut):
    sdist("in/other-2.tar.gz", "other-2", members=[("m.py", "m = 1\n")], info="")
    sdist(name, members=[("a.py", "a = 1\n"), ("b.py", os.urandom(300).hex())])
    Path(name).write_bytes(Path(name).read_bytes()[:cut])
    items = read("sdists")
    assert texts(items) == {"m.py": "m = 1\n"}
    ((path, (reason, bad)),) = refusals(items).items()
    assert (path, bad) == (name, True)
    assert reason.startswith(("damaged (", "the name says .gz"))


def test_a_folder_without_an_sdist_is_reported():
    with pytest.raises(UserError, match=r"^ingest\.sources: in has no sdist \(\*\.tar\.gz, \*\.zip\)$"):
        read("sdists")


# --- zip and tar


def test_a_zip_file_is_cut_into_tasks_that_read_everything_once(monkeypatch):
    monkeypatch.setattr(zips, "TASK_BYTES", 20)
    expected = {f"{i:02}.py": f"v = {i}\n" for i in range(30)}
    plain_zip(*reversed(expected.items()))
    assert len(plan("zip", "in.zip")) > 5
    items = read("zip", "in.zip", name="mine", group="source")
    assert texts(items) == expected
    assert list(texts(items)) == sorted(expected)
    assert {(item.source, item.group) for item in items} == {("mine/in.zip", "mine/in.zip")}


def zst(data):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


PACKERS = {
    "tar": bytes,
    "tar.gz": gzip.compress,
    "tgz": gzip.compress,
    "tar.bz2": bz2.compress,
    "tar.xz": lzma.compress,
    "tar.zst": zst,
}


@pytest.mark.parametrize(
    "form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT], ids=["pax", "gnu", "ustar"]
)
@pytest.mark.parametrize("ending", PACKERS)
def test_every_compression_and_format_of_tar_reads_the_same(ending, form, monkeypatch):
    monkeypatch.setattr(tars, "TASK_BYTES", 100)
    long = "d" * 70 + "/" + "e" * 70 + "/ä.py"
    expected = {long: "long = 1\n", "b.py": "b = 2\n" * 90, "a.py": "a = 3\n" * 60}
    tarred(
        ("d/", ""),
        ("./" + long if form != tarfile.USTAR_FORMAT else long, expected[long]),
        *list(expected.items())[1:],
        form=form,
    )
    name = f"packed.{ending}"
    Path(name).write_bytes(PACKERS[ending](Path("in.tar").read_bytes()))
    tasks = plan("tar", name)
    assert len(tasks) == 2
    assert sum(task.bytes for task in tasks) == Path(name).stat().st_size
    assert texts(read("tar", name)) == expected


@pytest.mark.parametrize("ending", PACKERS)
def test_a_damaged_tar_is_refused_whole(ending):
    dice = random.Random(2)
    tarred(*[(f"{i}.py", dice.randbytes(200).hex()) for i in range(5)])
    name = f"packed.{ending}"
    good = PACKERS[ending](Path("in.tar").read_bytes())
    cuts = [0, 1, 100, len(good) // 2, len(good) - 1] if ending != "tar" else [0, 1, 100, 512, 1024, 3000, 5120]
    for cut in cuts:
        Path(name).write_bytes(good[:cut])
        assert whole(read("tar", name)).startswith(("damaged (", "the name says")), cut
    Path(name).write_bytes(b"no archive at all, " * 100)
    assert whole(read("tar", name)).startswith(("damaged (", "the name says"))
    if ending == "tar":
        Path(name).write_bytes(good[:100] + b"7" + good[101:])
        assert "checksum" in whole(read("tar", name))
    else:
        middle = len(good) // 2
        Path(name).write_bytes(good[:middle] + bytes([good[middle] ^ 0x55]) + good[middle + 1 :])
        assert read("tar", name)  # zstd of Arrow has no checksum: it may read
        assert ending == "tar.zst" or whole(read("tar", name)).startswith("damaged (")


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
def test_a_damaged_zip_is_refused_whole(compression):
    dice = random.Random(3)
    plain_zip(*[(f"{i}.py", dice.randbytes(200).hex()) for i in range(5)], compression=compression)
    good = Path("in.zip").read_bytes()
    for cut in (0, 1, 100, len(good) // 2, len(good) - 1):
        Path("in.zip").write_bytes(good[:cut])
        assert whole(read("zip", "in.zip")).startswith("damaged (")
    Path("in.zip").write_bytes(good[:150] + b"\x00\xff" + good[152:])
    assert whole(read("zip", "in.zip")).startswith("damaged (")


def test_flipped_bytes_never_make_another_text():
    dice = random.Random(4)
    expected = {f"{i}.py": dice.randbytes(100).hex() for i in range(3)}
    good = {"zip": Path(plain_zip(*expected.items())).read_bytes()}
    tarred(*expected.items(), name="in.tgz", mode="w:gz")
    good["tar"] = Path("in.tgz").read_bytes()
    for kind, name in (("zip", "in.zip"), ("tar", "in.tgz")):
        for position in range(0, len(good[kind]), 3):
            data = bytearray(good[kind])
            data[position] ^= dice.randrange(1, 256)
            Path(name).write_bytes(data)
            assert set(texts(read(kind, name)).values()) <= set(expected.values())


def test_a_file_that_changes_after_it_was_checked_is_reported(monkeypatch):
    monkeypatch.setattr(tars, "TASK_BYTES", 10)
    tasks = plan("zip", plain_zip(("a.py", "a = 1\n")))
    Path("in.zip").write_bytes(b"")
    with pytest.raises(UserError, match=r"^in\.zip changed while it was read; stop what writes to it and run again$"):
        list(tasks[0].read())
    tasks = tars.plan_tar(
        Context(Source(kind="tar", path="in.tar"), str(tarred(("a.py", "a = 1\n" * 9), ("b.py", "b"))), 1000)
    )
    next(tasks)
    os.utime("in.tar", (1, 1))
    with pytest.raises(UserError, match=r"^in\.tar changed while it was read"):
        list(tasks)


def test_archives_in_an_archive_are_not_opened():
    inner = Path(plain_zip(("a.py", "a = 1\n"), name="inner.zip")).read_bytes()
    items = read("zip", plain_zip(("inner.py", inner)))
    assert texts(items) == {}
    assert refusals(items)["inner.py"][1]


# --- hostile archives: nothing outside is read or written


def test_a_nul_in_a_name_does_not_hide_what_follows(here, tree):
    plain_zip(("good.py@.py", "x = 1\n"), ("b.py", "b = 1\n"))
    Path("in.zip").write_bytes(Path("in.zip").read_bytes().replace(b"good.py@.py", b"good.py\0.py"))
    before = tree(here)
    assert texts(read("zip", "in.zip")) == {"b.py": "b = 1\n"}
    assert refusals(read("zip", "in.zip"))["good.py\0.py"] == ("a name with NUL, or longer than 4096 characters", True)
    info = tarfile.TarInfo("x.py")
    info.pax_headers = {"path": "good.py\0.py"}
    items = read("tar", tarred((info, "x = 1\n"), ("n" * 5000 + ".py", "x = 1\n")))
    assert [(len(item.path), item.bad) for item in items] == [(11, True), (4096, True)]
    assert {p: s for p, s in tree(here).items() if not p.endswith("in.tar")} == before


def test_links_and_pipes_are_refused_and_not_followed(here, tree):
    link = zipfile.ZipInfo("link.py")
    link.external_attr = 0o120777 << 16
    fifo = zipfile.ZipInfo("fifo.py")
    fifo.external_attr = 0o010644 << 16
    plain_zip((link, "secret.py"), (fifo, ""))
    tarred(
        (special("sym.py", tarfile.SYMTYPE, "secret.py"), ""),
        (special("hard.py", tarfile.LNKTYPE, "secret.py"), ""),
        (special("fifo.py", tarfile.FIFOTYPE), ""),
        (special("d.py", tarfile.DIRTYPE), ""),
        (special("lib", tarfile.SYMTYPE, "sub/lib"), ""),
        ("sub/etc.py", "etc = 1\n"),
    )
    before = tree(here)
    assert refusals(read("zip", "in.zip")) == dict.fromkeys(["fifo.py", "link.py"], ("not a regular file", False))
    items = read("tar", "in.tar")
    assert texts(items) == {"sub/etc.py": "etc = 1\n"}
    assert refusals(items) == dict.fromkeys(["sym.py", "hard.py", "fifo.py"], ("not a regular file", False))
    assert tree(here) == before


def test_a_sparse_file_is_not_filled_with_zeros():
    info = tarfile.TarInfo("holes.py")
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(1 << 50)}
    items = read("tar", tarred((info, b"0\n" + bytes(510)), ("a.py", "a = 1\n")))
    assert texts(items) == {"a.py": "a = 1\n"}
    assert refusals(items) == {"holes.py": ("not a regular file", False)}


def test_an_encrypted_member_is_refused_and_never_opened(monkeypatch):
    plain_zip(("a.py", "a = 1\n"))
    data = bytearray(Path("in.zip").read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1
    data[6] |= 1
    Path("in.zip").write_bytes(data)
    monkeypatch.setattr(zipfile.ZipFile, "open", None)
    assert refusals(read("zip", "in.zip")) == {"a.py": ("encrypted", True)}


def test_other_methods_than_deflate_are_refused():
    plain_zip(("a.py", bytes(10**6)), compression=zipfile.ZIP_BZIP2)
    assert refusals(read("zip", "in.zip", max_bytes=10**7))["a.py"][0].startswith("compressed by method 12;")


def test_a_member_that_is_longer_than_it_declares_is_not_a_document():
    plain_zip(("a.py", b"a" * 5_000_000), compression=zipfile.ZIP_DEFLATED)
    data = bytearray(Path("in.zip").read_bytes())
    for signature, offset in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
        at = data.index(signature) + offset
        data[at : at + 4] = (10).to_bytes(4, "little")
    Path("in.zip").write_bytes(data)
    assert whole(read("zip", "in.zip")).startswith("damaged (Bad CRC-32")


@pytest.mark.parametrize("kind", ["zip", "wheels", "sdists", "tar"])
def test_a_bomb_is_refused_whole(kind, monkeypatch):
    monkeypatch.setattr(archives, "BOMB_BYTES", 1 << 20)
    zeros, path = bytes(3 << 20), "in"
    if kind == "tar":
        path = tarred(("a.py", "a = 1\n"), ("zeros.bin", zeros), name="in.tgz", mode="w:gz")
    elif kind == "sdists":
        sdist(members=[("a.py", "a = 1\n"), ("zeros.bin", zeros)])
    else:
        path = path if kind == "wheels" else "in.zip"
        zipped(
            [("a.py", "a = 1\n"), ("zeros.bin", zeros)], "in/a-1.whl" if kind == "wheels" else path, None, compression=8
        )
    (item,) = read(kind, path)
    assert item.bad
    assert item.reason.endswith("200 times its size: a decompression bomb")


def test_a_real_bomb_is_refused_before_it_fills_the_disk_or_the_memory():
    with gzip.open("in.tgz", "wb", compresslevel=1) as file:
        info = tarfile.TarInfo("zeros.bin")
        info.size = 3 << 30
        file.write(info.tobuf())
        for _ in range(1040):  # cut off: nobody gets that far
            file.write(bytes(1 << 20))
    assert whole(read("tar", "in.tgz")) == "more than 64 MiB and 200 times its size: a decompression bomb"


def test_too_many_members_are_refused_whole(monkeypatch):
    monkeypatch.setattr(archives, "MOST_MEMBERS", 20)
    members = [(f"{i}.py", "x") for i in range(21)]
    plain_zip(*members)
    tarred(*members)
    assert texts(read("tar", tarred(*members[1:], name="fits.tar"))) != {}
    assert texts(read("zip", plain_zip(*members[1:], name="fits.zip"))) != {}
    assert whole(read("tar", "in.tar")) == "more than 20 members"
    monkeypatch.setattr(zipfile, "ZipFile", None)  # not even the directory is read
    assert whole(read("zip", "in.zip")) == "more than 20 members"


def test_an_extended_header_does_not_fill_the_memory():
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 40
    Path("in.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(5120))
    assert whole(read("tar", "in.tar")) == f"damaged (an extended header of {1 << 40} bytes)"


@pytest.mark.parametrize("record", [b"x", b"-5 path=a\n", b"0 path=a\n", b"99 path=a\n", b"9 path=aa", b"10 size=-1\n"])
def test_a_damaged_extended_header_is_refused_whole(record):
    info = tarfile.TarInfo("head")
    info.type, info.size = tarfile.XHDTYPE, len(record)
    body = tarfile.TarInfo("a.py")
    Path("in.tar").write_bytes(info.tobuf() + record.ljust(512, b"\0") + body.tobuf() + bytes(1024))
    assert whole(read("tar", "in.tar")).startswith("damaged (")
