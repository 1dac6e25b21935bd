"""What DVC cannot hash is named, with what to do, before DVC starts; what it can hash, it and we hash alike."""

import os
import re
import socket
import subprocess
from pathlib import Path

import pytest

from codex_ml.cli.checks.data import data_problems
from codex_ml.cli.checks.workspace import check_workspace
from codex_ml.cli.param_rules import Params
from codex_ml.core.errors import UserError
from codex_ml.core.hashing import hash_path
from codex_ml.core.pipeline import load_pipeline
from codex_ml.core.record import start_record
from codex_ml.core.tree import cache_folder, files_of, scan, stands_for, why_not_traced


def fifo(path):
    os.mkfifo(path)


def bound_socket(path):
    here = Path.cwd()
    os.chdir(path.parent)  # the name of a socket has at most 107 bytes
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)
    os.chdir(here)


def device(path):
    try:
        os.mknod(path, 0o20600, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("only root makes devices")


def link_to(target):
    return lambda path: path.symlink_to(target)


def cycle(path):
    path.symlink_to(f"{path.name}-2")
    path.with_name(f"{path.name}-2").symlink_to(path.name)


def outside(what):
    """A link, relative as people make them, to a file or a folder beside the workspace."""

    def make(path):
        other = Path("../other disk").resolve()
        other.mkdir(exist_ok=True)
        (other / "a.jsonl").write_text('{"text": "words"}\n')
        path.symlink_to(os.path.relpath(other / what, path.parent))

    return make


def cache_of_another(path):
    target = Path("../another/.dvc/cache/files/md5/ab/cd").resolve()
    target.parent.mkdir(parents=True)
    target.write_text("x")
    path.symlink_to(target)


def folder_in_the_cache(path):
    Path(".dvc/cache/files/md5/ab").mkdir(parents=True)
    path.symlink_to(Path(".dvc/cache/files/md5/ab").resolve())


def chain_out(path):
    """A link to a link inside, which leads out."""
    outside("a.jsonl")(path.with_name(f"{path.name}-2"))
    path.symlink_to(f"{path.name}-2")


def other_name(name):
    return lambda path: Path(os.fsdecode(os.fsencode(path.parent) + b"/" + name)).write_bytes(b"x")


def folder_of_other_name(path):
    folder = Path(os.fsdecode(os.fsencode(path.parent) + b"/d\xff"))
    folder.mkdir()
    (folder / "file").write_text("x")


def repository_of_dvc(path):
    (path / ".dvc").mkdir(parents=True)
    (path / "file").write_text("x")


# What it is, and the beginning and end of what is said of it.
TRAPS = {
    "fifo": (fifo, "x is a FIFO, for which DVC would wait forever; remove it"),
    "socket": (bound_socket, "x is a socket, which DVC cannot hash; remove it"),
    "device": (device, "x is a device, which DVC cannot hash; remove it"),
    "link to a device": (link_to("/dev/null"), "x is a device, which DVC cannot hash; remove it"),
    "broken link": (link_to("nowhere"), "x is a broken link (No such file or directory); remove it"),
    "link through a file": (link_to("/etc/passwd/x"), "x is a broken link (Not a directory); remove it"),
    "link to itself": (link_to("x"), "x is a broken link (Too many levels of symbolic links); remove it"),
    "cycle of links": (cycle, "x is a broken link (Too many levels of symbolic links); remove it"),
    "linked folder": (outside(""), "x is a link to a folder outside"),
    "linked file": (outside("a.jsonl"), "x is a link to a file outside"),
    "chain of links": (chain_out, "x is a link to a file outside"),
    "file above": (link_to(Path("params.yaml").resolve()), "x is a link to a file outside"),
    "another cache": (cache_of_another, "x is a link to a file outside"),
    "folder in the cache": (folder_in_the_cache, "x is a link to a folder outside"),
    "latin-1": (other_name(b"x\xe9.py"), "x\udce9.py: the name is not UTF-8, so DVC cannot record it; rename it"),
    "lone surrogate": (
        other_name(b"x\xed\xa0\x80"),
        "x\udced\udca0\udc80: the name is not UTF-8, so DVC cannot record it",
    ),
    "folder in latin-1": (folder_of_other_name, "d\udcff: the name is not UTF-8, so DVC cannot record it; rename it"),
    "repository of DVC": (repository_of_dvc, "x/.dvc: DVC takes"),
    ".dvcignore": (other_name(b".dvcignore"), ".dvcignore: DVC refuses it in"),
}
PLACES = ("data/raw", "data/raw/a/b c", "models/base", "models/base/m", "data/benchmarks")


@pytest.fixture
def made(workspace):
    Path(".dvc").mkdir()
    for place in PLACES:
        Path(place).mkdir(parents=True, exist_ok=True)
        Path(place, "file").write_text("as usual")
    return workspace


STAGES = load_pipeline(Path(__file__).parents[2] / "dvc.yaml")


def check():
    """The part of `codex-ml check` that looks at data; the whole of it parses the library each time."""
    for problem in data_problems(Params(), STAGES):
        raise UserError(problem)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("trap", TRAPS)
def test_what_dvc_cannot_hash_is_named_by_check_and_by_the_stage(made, trap, place):
    make, message = TRAPS[trap]
    make(Path(place, "x"))
    dep = next(dep for dep in ("data/raw", "models/base", "data/benchmarks") if Path(place).is_relative_to(dep))
    with pytest.raises(UserError) as checked:
        check()
    with pytest.raises(UserError) as started:
        hash_path(Path(dep))
    for error in (checked, started):
        assert str(error.value).startswith((f"{place}/{message}", f"{place}/x-2 is a link"))  # the other end of it
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "trap", sorted(TRAPS.keys() - {"latin-1", "folder in latin-1", "lone surrogate", ".dvcignore"})
)
def test_what_dvcignore_lists_is_not_a_problem(made, trap):
    before = hash_path(Path("data/raw"))
    TRAPS[trap][0](Path("data/raw/a/x"))
    Path(".dvcignore").write_text("/data/raw/a/x*\n")
    check()
    assert hash_path(Path("data/raw")) == before


def test_check_says_how_many_more_there_are(made):
    for name in ("a", "b", "c"):
        os.mkfifo(f"data/raw/{name}-pipe")
    with pytest.raises(
        UserError, match=r"^data/raw/a-pipe is a FIFO, .* \(and 2 more: data/raw/b-pipe, data/raw/c-pipe\)$"
    ):
        check()


def test_a_folder_that_cannot_be_listed_is_named(made, monkeypatch):
    """DVC leaves it out without a word. Root may list everything, so the error is made here."""
    real = os.scandir

    def refuse(path):
        if str(path).endswith("b c"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match=r"^data/raw/a/b c cannot be listed \(Permission denied\); change its mode$"):
        check()


def test_a_file_that_its_user_may_not_read_is_named(made, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "access", lambda path, mode: not path.endswith("b c/file"))
    with pytest.raises(UserError, match=r"^data/raw/a/b c/file cannot be read; change its mode, or list it"):
        check()


def test_the_stage_names_it_before_it_records_anything(made):
    os.mkfifo("data/raw/pipe")
    for name in ("data/sample.lock", "data/policy.yaml"):
        Path(name).touch()
    with pytest.raises(UserError, match=r"^data/raw/pipe is a FIFO"):
        start_record(STAGES["ingest"], Params())


IMPORTS = {
    "a path": "deps:\n- path: ../../../../home/user/.ssh/id_ed25519\nouts:\n- path: key.txt\n",
    "an address": "deps:\n- path: https://example.org/x\nouts:\n- path: x.py\n",
    "an escape": '"\\x64eps": [{path: /etc/passwd}]\nouts: [{path: evil}]\n',
    "a merge": "<<: {deps: [{path: /etc/passwd}]}\nouts: [{path: evil}]\n",
    "another folder": "wdir: ../../..\nouts: [{path: evil}]\n",
    "a path above": "outs: [{path: ../../params.yaml}]\n",
    "no YAML": "outs: [\n",
    "not UTF-8": "outs: \udcff\n",
    "JSON": '{"deps": [{"path": "/etc/passwd"}], "outs": [{"path": "p.txt"}]}',
}


@pytest.mark.parametrize("kind", IMPORTS)
@pytest.mark.parametrize("place", ["data/raw/a/b c", "models/base/m"])
def test_a_pointer_that_came_with_the_data_makes_dvc_fetch_nothing(made, place, kind):
    """`dvc repro` would copy that file into the data, or open a connection."""
    pointer = Path(place, "evil.dvc")
    pointer.write_text(IMPORTS[kind], errors="surrogateescape")
    with pytest.raises(
        UserError,
        match=rf"^{place}/evil\.dvc: DVC would fetch or overwrite what this file names, and Git does not track",
    ):
        check()
    subprocess.run(["git", "init", "-q"], check=True)
    subprocess.run(["git", "add", "-f", str(pointer)], check=True)
    check()
    subprocess.run(["git", "rm", "-q", "--cached", str(pointer)], check=True)
    Path(".dvcignore").write_text("*.dvc\n")
    check()


def test_a_pointer_of_dvc_add_is_not_a_problem_before_git_knows_it(made):
    Path("data/raw/file.dvc").write_text("outs:\n- md5: 0\n  path: file\n")
    check()


def test_a_dependency_that_is_not_a_file_is_named(made):
    Path("data/policy.yaml").unlink(missing_ok=True)
    os.mkfifo("data/policy.yaml")
    with pytest.raises(UserError, match=r"^data/policy.yaml is neither a file nor a folder"):
        check()


def test_a_dependency_that_dvc_ignores_is_named(made):
    Path(".dvcignore").write_text("/models\n")
    with pytest.raises(UserError, match=r"^models/base is in no hash: DVC leaves it out"):
        check()


# --- what is no problem


def harmless(folder):
    """Names and links that people have, each of which DVC hashes or does not see."""
    names = ("tab\there", "new\nline", "back\\slash", " lead", "trail ", "caf\u00e9", "cafe\u0301", "\u202eevil", "Case", "case", "-n",
             "*?[a]", "a" * 200, "\U0001f600", "/".join("d" * 60), ".git", "sub/.git", "h/.hg/x", "#x", "!x", "\x7f")  # fmt: skip
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (folder / "empty").mkdir()
    os.link(folder / "Case", folder / "hard link")
    (folder / "alias").symlink_to("Case")
    (folder / "absolute").symlink_to((folder / "case").resolve())
    (folder / "sub/up").symlink_to("../Case")
    (folder / "loop").symlink_to(".")
    (folder / "loop2").symlink_to("loop")
    (folder / "latest").symlink_to("sub")


def dvc_md5(folder):
    from dvc.fs import LocalFileSystem
    from dvc.ignore import DvcIgnoreFilter
    from dvc_data.hashfile.build import build
    from dvc_data.hashfile.db import HashFileDB
    from dvc_objects.fs.memory import MemoryFileSystem

    files = LocalFileSystem()
    store = HashFileDB(MemoryFileSystem(), "memory://test")
    ignore = DvcIgnoreFilter(files, str(Path.cwd()))
    return build(store, str(folder.absolute()), files, "md5", dry_run=True, ignore=ignore)[2].hash_info.value


def test_awkward_names_and_links_inside_are_hashed_as_dvc_does(made):
    harmless(Path("data/raw/a"))
    check()
    assert hash_path(Path("data/raw")).md5 == dvc_md5(Path("data/raw"))
    names = [path.name for path in files_of(Path("data/raw/a"))]
    assert {"alias", "absolute", "up", "hard link", "tab\there", "new\nline"} <= set(names)
    assert not {"loop", "loop2", "latest", ".git", "x"} & set(names)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda folder: replace_by_copy(folder / "alias"), id="a link became a copy"),
        pytest.param(lambda folder: point_to(folder / "alias", "hard link"), id="a link leads to an equal file"),
        pytest.param(lambda folder: point_to(folder / "latest", "empty"), id="a link to a folder moved"),
        pytest.param(lambda folder: (folder / "latest").unlink(), id="a link to a folder went"),
        pytest.param(lambda folder: (folder / "new").symlink_to("sub"), id="a link to a folder came"),
    ],
)
def test_links_inside_are_part_of_our_own_hash(made, change):
    """DVC cannot tell these apart, and the corpus lists links as what they are; so `codex-ml verify` has to notice."""
    folder = Path("data/raw/a")
    harmless(folder)
    before = hash_path(Path("data/raw"))
    change(folder)
    after = hash_path(Path("data/raw"))
    assert after.sha256 != before.sha256
    assert after.md5 == before.md5 == dvc_md5(Path("data/raw"))


def replace_by_copy(link):
    data = link.read_bytes()
    link.unlink()
    link.write_bytes(data)


def point_to(link, target):
    link.unlink()
    link.symlink_to(target)


def test_a_dependency_may_itself_lie_on_another_disk(made):
    """DVC hashes what a linked dependency shows."""
    Path("data/raw").rename("../raw")
    Path("data/raw").symlink_to("../../raw")
    check()
    before = hash_path(Path("data/raw"))
    assert before.md5 == dvc_md5(Path("data/raw"))
    Path("../raw/file").write_text("changed")
    assert hash_path(Path("data/raw")).md5 != before.md5


# --- DVC's cache


def cached(name, place):
    """A file as DVC stores it with cache.type symlink."""
    path = Path(name)
    target = Path(place).resolve() / "files/md5/ab" / path.name
    target.parent.mkdir(parents=True, exist_ok=True)
    path.rename(target)
    path.symlink_to(target)


CACHES = {
    ".dvc/cache": "",
    "../shared cache": "[cache]\n    dir = ../../shared cache\n    type = symlink\n",
    "elsewhere": "[cache]\n    dir = ../elsewhere\n['remote \"r\"']\n    url = /nowhere\n",
}


@pytest.mark.parametrize("place", CACHES)
@pytest.mark.parametrize("config", ["config", "config.local"])
def test_a_link_into_the_own_cache_is_the_file_it_stands_for(made, place, config):
    Path(".dvc", config).write_text(CACHES[place])
    before = hash_path(Path("data/raw"))
    cached("data/raw/a/b c/file", place)
    check()
    assert cache_folder() == str(Path(place).resolve())
    assert hash_path(Path("data/raw")) == before
    assert {entry.target for entry in scan(Path("data/raw"))} == {""}
    assert stands_for(Path("data/raw/a/b c/file")).read_text() == "as usual"
    assert stands_for(Path("data/raw/file")) == Path("data/raw/file")


def test_a_configuration_that_dvc_cannot_read_is_named(made):
    Path(".dvc/config").write_text("[cache\n")
    cached("data/raw/file", ".dvc/cache")
    with pytest.raises(UserError, match="DVC's configuration cannot be read"):
        check()


# --- paths of params.yaml


PATHS = {
    "data/raw/file": "",
    "data/raw/a/*.jsonl": "",
    "data/raw/**/*.py": "",
    "data/raw/alias": "",
    "data/raw/later.jsonl": "",
    "data/raw/../../params.yaml": "is not inside a dependency",
    "data/other/x": "is not inside a dependency",
    "data/raw/latest": "is a link to a folder, and DVC does not look into it; use data/raw/a",
    "data/raw/latest/x.jsonl": "data/raw/latest is a link to a folder",
    "data/raw/latest/*/x.jsonl": "data/raw/latest is a link to a folder",
    "data/raw/out/x.jsonl": "data/raw/out is a link to a folder outside data/raw",
    "data/raw/gone": "is a broken link",
    "data/raw/.git": "is in no hash",
    "data/raw/a/.git/objects": "data/raw/a/.git is in no hash",
    "data/raw/skipped/x.jsonl": "data/raw/skipped is in no hash",
    "data/raw/x.tmp": "is in no hash",
}


@pytest.mark.parametrize("path", PATHS)
def test_a_path_that_no_hash_covers_is_named(made, path):
    Path(".dvcignore").write_text("skipped/\n*.tmp\n")
    Path("data/raw/latest").symlink_to("a")
    Path("data/raw/alias").symlink_to("file")
    Path("data/raw/gone").symlink_to("nowhere")
    outside("")(Path("data/raw/out"))
    for name in ("a/.git/objects/x", "skipped/x.jsonl", "x.tmp", ".git/HEAD"):
        Path("data/raw", name).parent.mkdir(parents=True, exist_ok=True)
        Path("data/raw", name).touch()
    found = why_not_traced(path, ["data/policy.yaml", "data/raw"])
    assert PATHS[path] in found and bool(found) == bool(PATHS[path])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ingest", {"sources": [{"kind": "files", "path": "data/raw/out"}]}),
        ("split", {"benchmarks": [{"path": "data/benchmarks/out"}]}),
        ("tokenizer", {"kind": "local", "path": "models/base/out"}),
        ("model", {"path": "models/base/out"}),
        ("train", {"resume_from": "models/base/out"}),
    ],
)
def test_every_path_of_the_parameters_is_checked(made, key, value):
    for folder in ("data/raw", "data/benchmarks", "models/base"):
        Path(folder, "skipped").mkdir()
        Path(folder, "out").symlink_to("skipped")
    found = list(data_problems(Params.model_validate({key: value}), STAGES))
    assert len(found) == 1
    assert re.match(rf"params\.yaml: {key}\..*: .*/out is a link to a folder, and DVC does not look", found[0])


def test_the_whole_check_includes_the_data(made):
    os.mkfifo("data/raw/pipe")
    with pytest.raises(UserError, match=r"^data/raw/pipe is a FIFO"):
        check_workspace()
