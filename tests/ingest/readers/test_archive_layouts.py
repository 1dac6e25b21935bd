"""Archives with unusual layouts: read in one way, or refused as a whole with the names of archive and member."""

from __future__ import annotations

import io
import os
import stat
import sys
import tarfile
import unicodedata
import warnings
import zipfile
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from helpers import ingest

KINDS = ["zip", "tar", "tar.gz", "tar.zst", "wheels", "sdists"]
GOOD = ("good.py", "good = 1\n")


@dataclass(frozen=True)
class Special:
    """A member that is no file: `kind` of tarfile, and what a link names."""

    kind: bytes
    target: str = ""


def symlink(target):
    return Special(tarfile.SYMTYPE, target)


def hardlink(target):
    return Special(tarfile.LNKTYPE, target)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    folder = tmp_path / "a" / "b"  # room for what would climb out
    (folder / "in").mkdir(parents=True)
    (folder / "canary.txt").write_text("untouched\n")
    monkeypatch.chdir(folder)
    return tmp_path


def packed(kind, members):
    """An archive of this kind, and the name it is refused by."""
    if kind in ("zip", "wheels"):
        name = "in.zip" if kind == "zip" else "in/pkg-1-py3-none-any.whl"
        with warnings.catch_warnings(), zipfile.ZipFile(name, "w") as archive:
            warnings.simplefilter("ignore")  # of names that come twice
            for member, data in members:
                info = zipfile.ZipInfo(member)
                if isinstance(data, Special):
                    modes = {
                        tarfile.SYMTYPE: stat.S_IFLNK,
                        tarfile.CHRTYPE: stat.S_IFCHR,
                        tarfile.BLKTYPE: stat.S_IFBLK,
                    }
                    info.external_attr = (modes[data.kind] | 0o777) << 16
                archive.writestr(info, data.target if isinstance(data, Special) else data)
        return ("in.zip" if kind == "zip" else "in"), name
    name = {"tar": "in.tar", "tar.gz": "in.tar.gz", "tar.zst": "in.tar.zst", "sdists": "in/pkg-1.tar.gz"}[kind]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member, data in members:
            info = tarfile.TarInfo(member)
            if isinstance(data, Special):
                info.type, info.linkname = data.kind, data.target
                archive.addfile(info)
            else:
                info.size = len(data.encode())
                archive.addfile(info, io.BytesIO(data.encode()))
    data = buffer.getvalue()
    if name.endswith(".zst"):
        import pyarrow as pa

        data = pa.compress(data, codec="zstd", asbytes=True)
    elif name.endswith(".gz"):
        import gzip

        data = gzip.compress(data)
    Path(name).write_bytes(data)
    return ("in" if kind == "sdists" else name), name


def read(kind, members, **settings):
    path, name = packed(kind, members)
    documents, refused = ingest(kind.partition(".")[0], path, **settings)
    return {d.path: d.text for d in documents}, refused, name


def snapshot(folder):
    return {
        str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix == ".txt"
    }


X, Y = "x = 1\n", "y = 2\n"
UNSAFE = {
    "up": [("../up.py", X)],
    "up in the middle": [("a/../../up.py", X)],
    "up that comes back": [("a/../b.py", X)],
    "up by backslash": [("..\\up.py", X)],
    "absolute": [("/abs.py", X)],
    "absolute, twice": [("//abs.py", X)],
    "absolute by backslash": [("\\abs.py", X)],
    "drive": [("C:/x.py", X)],
    "drive by backslash": [("C:\\x.py", X)],
    "no document either": [("../notes.md", X)],
    "too deep": [("a/" * 201 + "b.py", X)],
    "device": [("null", Special(tarfile.CHRTYPE))],
    "disk": [("sda.py", Special(tarfile.BLKTYPE))],
    "link out": [("l", symlink("../../canary.txt"))],
    "absolute link": [("l", symlink("/etc/passwd"))],
    "link out of a folder": [("a/l", symlink("../../canary.txt"))],
    "below a link": [("d/x.py", X), ("d", symlink("inside"))],
    "deep below a link": [("d/e/f/x.py", X), ("d", symlink("."))],
    "in the place of a link": [("x.py", X), ("x.py", symlink("other.py"))],
    "link spelled otherwise": [("d/x.py", X), ("./d", symlink("inside"))],
    "two contents": [("a.py", X), ("a.py", Y)],
    "two contents, one length": [("a.py", "x = 1\n"), ("a.py", "x = 2\n")],
    "three, the last differs": [("a.py", X), ("a.py", X), ("a.py", Y)],
    "twins by ./": [("a.py", X), ("./a.py", Y)],
    "twins by //": [("a/b.py", X), ("a//b.py", Y)],
    "twins by /./": [("a/b.py", X), ("a/./b.py", Y)],
    "twins that are no document": [("a.md", X), ("a.md", Y)],
    "empty and not": [("a.py", ""), ("a.py", X)],
}  # fmt: skip
ONLY_TAR = {
    "hard link out": [("l", hardlink("../../canary.txt"))],
    "hard link to root": [("l", hardlink("/etc/passwd"))],
    "write through a hard link": [("innocent.txt", hardlink("canary.txt")), ("innocent.txt", X)],
}


OF_TAR = [kind for kind in KINDS if kind not in ("zip", "wheels")]  # zip has no hard links


@pytest.mark.parametrize(("kind", "layout"), [*product(KINDS, UNSAFE), *product(OF_TAR, ONLY_TAR)])
def test_an_archive_that_would_write_outside_or_has_two_readings_is_refused_whole(kind, layout, here):
    members = UNSAFE.get(layout) or ONLY_TAR[layout]
    before = snapshot(here)
    for order in (members, members[::-1]):
        for where in ([GOOD, *order], [*order, GOOD]):
            documents, refused, name = read(kind, where)
            assert documents == {}
            (item,) = refused
            assert item.bad and item.reason.endswith("; nothing of this archive is read")
            assert Path(name).name in item.place and item.path in {member for member, _ in members}
            assert item.place == f"{name}/{item.path}"
    assert snapshot(here) == before


NFC, NFD = (unicodedata.normalize(form, "é.py") for form in ("NFC", "NFD"))
SOUND = {
    "equal twice": ([("a.py", X), ("a.py", X)], {"a.py": X}),
    "equal four times, spelled otherwise": (
        [("a/b.py", X), ("./a/b.py", X), ("a//b.py", X), ("a/./b.py", X)],
        {"a/b.py": X},
    ),
    "other case": ([("A.py", X), ("a.py", Y)], {"A.py": X, "a.py": Y}),
    "other Unicode form": ([(NFC, X), (NFD, Y)], {NFC: X, NFD: Y}),
    "spelled plainly": ([("./a.py", X), ("b//c.py", Y)], {"a.py": X, "b/c.py": Y}),
    "dots are a name": ([("...py", X), ("..a/b.py", Y)], {"...py": X, "..a/b.py": Y}),
    "links inside": ([("a.py", X), ("l", symlink("a.py")), ("d/m", symlink("../a.py"))], {"a.py": X}),
    "a link to a name with dots": ([("a.py", X), ("l", symlink("..a/b.py"))], {"a.py": X}),
    "a name that begins like a link": ([("d", symlink("e")), ("dd/x.py", X), ("d.py", Y)], {"dd/x.py": X, "d.py": Y}),
    "a link of another name below": ([("l", symlink("a.py")), ("a.py", X), ("m", symlink("l"))], {"a.py": X}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", SOUND)
def test_an_archive_with_one_reading_is_read_once(kind, layout):
    members, expected = SOUND[layout]
    documents, refused, _ = read(kind, members)
    assert documents == expected
    assert refused == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_member_is_reported_with_its_archive_and_the_others_are_read(kind):
    documents, refused, name = read(kind, [("back\\slash.py", X), GOOD, ("bad.py", "\0"), ("long.py", "x" * 2000)])
    assert documents == dict([GOOD])
    assert {item.path: item.bad for item in refused} == {"back\\slash.py": True, "bad.py": True, "long.py": False}
    assert {item.place for item in refused} == {f"{name}/{item.path}" for item in refused}


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_equal_members_that_are_too_long_or_not_documents_do_not_refuse_the_archive(kind):
    documents, refused, _ = read(kind, [("a.py", "x" * 2000), ("a.py", "x" * 2000), ("b.md", X), ("b.md", X), GOOD])
    assert documents == dict([GOOD])
    assert [(item.path, item.bad) for item in refused] == [("a.py", False)]


def test_every_spelling_of_a_name_is_one_in_zip_and_tar():
    spellings = ["/".join(parts) for parts in product([".", "a"], ["", ".", "b"], ["c.py"])]
    for first, second in product(spellings, repeat=2):
        same = [os.path.normpath(name) for name in (first, second)]
        for kind in ("zip", "tar"):
            documents, refused, _ = read(kind, [(first, X), (second, Y)])
            assert (documents == {}) == (same[0] == same[1]), (first, second)
            assert documents == {} or documents == dict(zip(same, (X, Y), strict=True))
            assert len(refused) == (same[0] == same[1])


def test_two_files_of_an_sdist_that_become_one_name_are_reported():
    meta = "Metadata-Version: 2.1\nName: pkg\nVersion: 1\nLicense: MIT\n"
    documents, refused, _ = read("sdists", [("pkg-1/PKG-INFO", meta), ("pkg-1/a.py", X), ("a.py", Y)])
    assert documents == {"a.py": X}
    assert [(item.path, item.reason, item.bad) for item in refused] == [("a.py", "a second member of this name", True)]


@pytest.mark.parametrize(("kind", "names"), [("wheels", ("pkg-1.dist-info/METADATA", "other-1.dist-info/METADATA")),
                                             ("sdists", ("pkg-1/PKG-INFO", "other-1/PKG-INFO"))])  # fmt: skip
def test_a_package_with_metadata_in_two_folders_is_refused(kind, names):
    meta = "Metadata-Version: 2.1\nName: pkg\nVersion: 1\nLicense: {}\n"
    members = [(names[0], meta.format("MIT")), (names[1], meta.format("GPL-3.0-only")), GOOD]
    documents, refused, _ = read(kind, members)
    assert documents == {} and [item.path for item in refused] == [names[1]]


def test_two_licences_in_one_metadata_are_none():
    meta = "Metadata-Version: 2.1\nName: pkg\nVersion: 1\nLicense: MIT\nLicense: {}\n"
    for second, licence in (("MIT", "MIT"), ("GPL-3.0-only", "unknown")):
        path, _ = packed("wheels", [("pkg-1.dist-info/METADATA", meta.format(second)), GOOD])
        ((document,), _) = ingest("wheels", path)
        assert document.licence == licence


@pytest.mark.parametrize(
    ("kind", "behind", "refused"),
    [
        *((kind, "an archive", True) for kind in ("tar", "tar.gz", "tar.zst", "sdists")),
        ("tar", "zeros", False),
        ("tar", "a text", False),
    ],
)
def test_a_second_archive_after_the_first_is_never_lost_silently(kind, behind, refused):
    path, name = packed(kind, [GOOD, ("pkg-1/PKG-INFO", "Name: pkg\nVersion: 1\n")])
    first = Path(name).read_bytes()
    Path(name).write_bytes(
        first + {"an archive": first, "zeros": bytes(99_999), "a text": b"signed by nobody\n"}[behind]
    )
    documents, bad = ingest(kind.partition(".")[0], path)
    reasons = [r.reason.partition(";")[0] for r in bad]
    assert (reasons == ["a second archive follows the end of the first"]) is refused, reasons
    assert bool(documents) is not refused


@pytest.mark.parametrize("kind", ["zip", "wheels"])
def test_a_member_of_a_zip_without_a_name_matches_no_glob_and_the_others_are_read(kind, tmp_path, monkeypatch):
    """`is_dir()` of zipfile looks at the last letter of the name. The name moves into the extra field here."""
    monkeypatch.chdir(tmp_path)
    file = Path("in.zip" if kind == "zip" else "in/p-1-py3-none-any.whl")
    file.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("p-1.dist-info/METADATA", "a.py", "b.py"):
            archive.writestr(name, "Name: p\n" if name.endswith("METADATA") else "a = 1\n")
    data = file.read_bytes()
    header = data.rindex(b"PK\1\2")
    file.write_bytes(
        data[: header + 28] + b"\0\0\4\0" + data[header + 32 : header + 46] + bytes(4) + data[header + 50 :]
    )
    documents, refused = ingest(kind, "in.zip" if kind == "zip" else "in", bad_records="skip")
    assert ([document.path for document in documents], refused) == (["a.py"], [])
