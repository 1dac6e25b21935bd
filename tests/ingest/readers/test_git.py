"""A repository is read as objects at one revision; nothing that its configuration names is ever run."""

import os
import pickle
import re
import shutil
import subprocess
import zlib
from pathlib import Path

import pytest

from codex_ml.core.errors import UserError
from codex_ml.core.hashing import hash_path
from codex_ml.documents.document import Document, Refused
from codex_ml.ingest.config import Source
from codex_ml.ingest.readers import git_objects
from codex_ml.ingest.readers import git_repository as reader
from codex_ml.ingest.readers.tasks import Context

CLEAN = {
    "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", "GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@b.example",
    "GIT_COMMITTER_NAME": "A", "GIT_COMMITTER_EMAIL": "a@b.example",
}  # fmt: skip


def git(*arguments, cwd="in", data=None):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")} | CLEAN
    done = subprocess.run(["git", *arguments], cwd=cwd, env=environment, input=data, check=True, capture_output=True)
    return done.stdout.decode().strip()


def commit(files, cwd="in"):
    for name, data in files.items():
        file = Path(cwd, name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data if isinstance(data, bytes) else data.encode())
    git("add", "-A", cwd=cwd)
    git("commit", "-qm", "change", cwd=cwd)
    return git("rev-parse", "HEAD", cwd=cwd)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    git("init", "-q", "-b", "main")
    return tmp_path


def plan(path="in", *, max_bytes=1000, **settings):
    return list(reader.plan_git(Context(Source(kind="git", path=path, **settings), path, max_bytes)))


def read(path="in", **settings):
    items = []
    for task in plan(path, **settings):
        items += [task] if isinstance(task, Refused) else pickle.loads(pickle.dumps(task)).read()  # noqa: S301
    return items


def texts(items):
    return {item.path: item.text for item in items if isinstance(item, Document)}


def refusals(items):
    return {item.path: (item.reason, item.bad) for item in items if isinstance(item, Refused)}


FILES = {
    "b.py": "b = 1\r\n",
    "a/c.py": "c = 1\n",
    "a-b.py": "ab = 1\n",
    "a.py": "a = 1\n",
    "t.txt": "no python",
    "ä/ö.py": "o = 1\n",
}


@pytest.mark.parametrize("packed", [False, True], ids=["loose", "packed"])
@pytest.mark.parametrize("bare", [False, True], ids=["work tree", "bare"])
def test_the_committed_files_are_documents_in_order_of_their_paths(bare, packed):
    name = commit(FILES)
    Path("in/a.py").write_text("changed = 'not committed'\n")
    Path("in/new.py").write_text("new = 'not committed'\n")
    if packed:
        git("gc", "-q")
        git("pack-refs", "--all")
    if bare:
        git("clone", "-q", "--bare", "--no-local", "in", "bare.git", cwd=".")
    items = read("bare.git" if bare else "in", name="mine", licence="MIT", group="source")
    expected = {path: text for path, text in FILES.items() if path.endswith(".py")}
    assert texts(items) == expected
    assert [item.path for item in items] == sorted(expected, key=os.fsencode)
    assert {(i.source, i.licence, i.group) for i in items} == {(f"mine@{name[:12]}", "MIT", "mine")}


def test_globs_choose_what_is_read():
    commit(FILES)
    assert sorted(texts(read(glob="a/**", include=["t.txt"]))) == ["a/c.py", "t.txt"]
    assert sorted(texts(read(exclude=["a/**", "ä/**"]))) == ["a-b.py", "a.py", "b.py"]


def test_tasks_are_small_and_read_everything_once(monkeypatch):
    monkeypatch.setattr(reader, "TASK_BYTES", 20)
    expected = {f"{i:02}.py": f"v = {i}\n" for i in range(20)}
    commit(expected)
    tasks = plan()
    assert len(tasks) == 6  # 4 and 4 of 6 bytes, then 4, 3, 3 and 2
    assert sum(task.bytes for task in tasks) == sum(map(len, expected.values()))
    assert texts(read()) == expected


# --- revisions


@pytest.mark.parametrize("packed", [False, True], ids=["loose", "packed"])
def test_a_revision_is_a_branch_a_tag_head_or_a_hash(packed):
    first = commit({"a.py": "first = 1\n"})
    git("branch", "topic/one")
    git("tag", "light")
    git("tag", "-am", "annotated", "v1")
    git("tag", "-am", "of a tag", "v1-again", "v1")
    git("update-ref", "refs/remotes/origin/far", first)
    git("symbolic-ref", "refs/heads/alias", "refs/heads/topic/one")
    second = commit({"a.py": "second = 2\n"})
    if packed:
        git("gc", "-q")
        git("pack-refs", "--all")
    for revision in (
        "topic/one",
        "light",
        "v1",
        "v1-again",
        "origin/far",
        "heads/topic/one",
        "refs/tags/v1",
        "alias",
        first,
        first[:7],
        first.upper(),
    ):
        items = read(revision=revision)
        assert texts(items) == {"a.py": "first = 1\n"}, revision
        assert items[0].source == f"in@{first[:12]}"
    for revision in ("HEAD", "main", second):
        assert texts(read(revision=revision)) == {"a.py": "second = 2\n"}
    git("checkout", "-q", "--detach", first)
    assert texts(read()) == {"a.py": "first = 1\n"}


@pytest.mark.parametrize(
    "revision", ["gone", "0" * 6, "HEAD~1", "../../secret", "/etc/passwd", "a..b", "refs/../config", "config", "x\ny"]
)
def test_an_unknown_revision_is_reported_with_the_branches(revision):
    commit({"a.py": "a = 1\n"})
    git("branch", "topic/one")
    git("pack-refs", "--all")
    git("branch", "loose")
    with pytest.raises(UserError) as error:
        read(revision=revision)
    assert str(error.value) == f"ingest.sources: in has no revision {revision}; its branches: loose, main, topic/one"


def test_a_repository_without_a_commit_is_reported():
    with pytest.raises(UserError, match=r"has no revision HEAD; its branches: none, it has no commit$"):
        read()


def test_a_hash_that_is_missing_or_not_a_commit_is_reported():
    commit({"a.py": "a = 1\n"})
    with pytest.raises(UserError, match=r"object 0{40} is missing"):
        read(revision="0" * 40)
    with pytest.raises(UserError, match=r"names no commit$"):
        read(revision=git("rev-parse", "HEAD:a.py"))


# --- what is no document


def test_links_submodules_and_long_files_are_refused(here):
    (here / "secret.py").write_text("secret = 1\n")
    Path("in/link.py").symlink_to("../secret.py")
    commit({"a.py": "a = 1\n", "big.py": "x" * 1001, "nul.py": "a\0b", "empty.py": ""})
    git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},sub.py")
    git("commit", "-qm", "submodule")
    for _ in range(2):
        items = read()
        found = refusals(items)
        assert texts(items) == {"a.py": "a = 1\n"}
        assert found["link.py"] == ("not a regular file", False)
        assert found["sub.py"] == ("a submodule", False)
        assert found["big.py"] == ("longer than 1000 bytes", False)
        assert sorted(found) == ["big.py", "empty.py", "link.py", "nul.py", "sub.py"]
        git("repack", "-qad")


@pytest.mark.parametrize("packed", [False, True], ids=["loose", "packed"])
def test_a_long_file_is_not_inflated(packed, monkeypatch):
    commit({f"{i}.py": "\n".join(map(str, range(i, 3000))) for i in range(4)})  # packed, three are deltas
    if packed:
        git("repack", "-qadf")
    tasks = plan()
    monkeypatch.setattr(reader, "read_object", None)
    found = [item for task in tasks for item in task.read()]
    assert refusals(found) == dict.fromkeys(["0.py", "1.py", "2.py", "3.py"], ("longer than 1000 bytes", False))


@pytest.mark.parametrize("packed", [False, True], ids=["loose", "packed"])
def test_sizes_are_read_from_headers(packed):
    commit({f"{i}.py": "x = 1\n" * i + "y = 2\n" * 700 for i in range(30)} | {"empty": b"", "one": b"1"})
    if packed:
        git("repack", "-qadf")
        (index,) = Path("in/.git/objects/pack").resolve().glob("*.idx")
        assert "chain length = 1" in git("verify-pack", "-v", str(index))
    store = git_objects.Objects("in/.git/objects")
    for line in git("ls-tree", "-rl", "HEAD").splitlines():
        _, _, name, size, *_ = line.split()
        assert git_objects.object_size(store, name.encode()) == int(size)
    store.close()


def tree_of(*entries):
    raw = b"".join(mode + b" " + name + b"\0" + bytes.fromhex(target) for mode, name, target in entries)
    name = git("hash-object", "-t", "tree", "-w", "--stdin", "--literally", data=raw)
    git("update-ref", "refs/heads/main", git("commit-tree", "-m", "hostile", name))


def test_names_of_a_tree_never_become_paths(here, tree):
    (here / "secret.py").write_text("secret = 1\n")
    blob = git("hash-object", "-w", "--stdin", data=b"x = 1\n")
    inner = [(b"100644", b"x.py", blob)]
    git("update-ref", "refs/heads/other", commit({"x.py": "x = 1\n"}))
    folder = git("rev-parse", "HEAD^{tree}")
    tree_of(
        (b"100644", b"../secret.py", blob), (b"100644", b"a.py", blob), (b"100644", b"a.py", blob), (b"100644", b"/abs.py", blob),
        (b"40000", b"..", folder), (b"40000", b".git", folder), *inner,
    )  # fmt: skip
    before = tree(here)
    items = read(glob="**/*", include=["**"])
    assert texts(items) == {"a.py": "x = 1\n", "x.py": "x = 1\n"}
    assert all(bad for _, bad in refusals(items).values())
    assert {"../secret.py", "a.py", "/abs.py"} <= set(refusals(items))
    assert tree(here) == before


def test_a_tree_that_multiplies_is_refused(monkeypatch):
    monkeypatch.setattr(git_objects, "MOST_ENTRIES", 500)
    inner = git("hash-object", "-w", "--stdin", data=b"x = 1\n")
    mode = b"100644"
    for _ in range(12):
        raw = b"".join(mode + b" " + bytes([97 + i]) + b"\0" + bytes.fromhex(inner) for i in range(2))
        inner, mode = git("hash-object", "-t", "tree", "-w", "--stdin", data=raw), b"40000"
    git("update-ref", "refs/heads/main", git("commit-tree", "-m", "bomb", inner))
    with pytest.raises(UserError, match="more than 500 entries"):
        read()


def test_a_damaged_or_missing_blob_is_refused_by_its_path():
    commit({"a.py": "a = 1\n", "b.py": "b = 1\n", "c.py": "c = 1\n", "d.py": "d = 1\n"})
    files = {}
    for name in "abcd":
        digits = git("rev-parse", f"HEAD:{name}.py")
        files[name] = Path("in/.git/objects", digits[:2], digits[2:])
        files[name].chmod(0o600)
    files["a"].write_bytes(b"junk")
    files["b"].unlink()
    files["c"].write_bytes(zlib.compress(b"blob 6\0d = 9\n"))
    shutil.copytree("in/.git", "bare.git")
    items = read("bare.git")
    assert texts(items) == {"d.py": "d = 1\n"}
    found = refusals(items)
    assert all(bad for _, bad in found.values())
    assert "is damaged (" in found["a.py"][0]
    assert found["b.py"][0].endswith("is missing (a shallow, partial or damaged clone)")
    assert found["c.py"][0].endswith("is damaged (its content has another hash)")


@pytest.mark.parametrize("kind", ["partial", "pruned"])
def test_a_missing_blob_is_refused_where_no_hash_would_show_its_return(kind):
    """DVC does not hash `.git`: a blob that a fetch brings back would change the corpus, but no hash."""
    name = commit({"a.py": "a = 1\n", "b.py": "b = 1\n"})
    path = "in"
    if kind == "partial":
        git("config", "uploadpack.allowFilter", "true")
        url = Path("in").resolve().as_uri()
        git("clone", "-q", "--filter=blob:none", "--no-checkout", url, "part", cwd=".")
        path = "part"
    else:
        digits = git("rev-parse", "HEAD:b.py")
        Path("in/.git/objects", digits[:2], digits[2:]).unlink()
    with pytest.raises(
        UserError, match=rf"^ingest\.sources: {path}: object .* is missing \(a shallow, partial or damaged"
    ):
        read(path, revision=name, bad_records="skip")


# --- revisions that move


def moving(path="in", **settings):
    reader.refuse_moving_revision(Source(kind="git", path=path, **settings))


@pytest.mark.parametrize("place", ["in", "in/.git", "i*"])
@pytest.mark.parametrize(
    "revision",
    ["HEAD", "main", "v1", "annotated", "origin/main", "refs/heads/main", "heads/main", "{short}", "{short}f"],
)
def test_a_revision_that_can_move_in_a_folder_that_dvc_does_not_hash_is_refused_with_the_commit(revision, place):
    name = commit(FILES)
    git("tag", "v1")
    git("tag", "-am", "first", "annotated")
    git("update-ref", "refs/remotes/origin/main", name)
    revision = revision.format(short=name[:7]).replace(f"{name[:7]}f", name[:39])
    expected = (
        rf"^ingest\.sources: {re.escape(place)}: .* it would not notice when {revision} moves; write `revision: {name}`"
    )
    with pytest.raises(UserError, match=expected):
        moving(place, revision=revision)
    moving(place, revision=name)
    moving(place, revision=name.upper())
    if place == "in":
        git("branch", name, "HEAD~0")  # a branch with the name of a commit does not count, as in Git
        assert texts(read(revision=name)) == {path: text for path, text in FILES.items() if path.endswith(".py")}


def test_a_bare_repository_is_hashed_with_its_refs_so_its_branches_may_be_named(here):
    commit(FILES)
    git("clone", "-q", "--bare", "in", "project.git", cwd=".")
    moving("project.git", revision="main")
    before = hash_path(Path("project.git"))
    commit({"a.py": "a = 2\n"})
    git("fetch", "-q", "origin", "main:main", cwd="project.git")
    assert hash_path(Path("project.git")).md5 != before.md5


@pytest.mark.parametrize("ignored", ["project.git", "/project.git/refs", "*main", "HEAD", "packed-refs"])
def test_a_bare_repository_whose_refs_dvc_ignores_needs_a_commit(ignored):
    name = commit(FILES)
    git("clone", "-q", "--bare", "in", "project.git", cwd=".")
    Path("project.git/refs/heads/main").write_text(f"{name}\n")
    Path(".dvcignore").write_text(f"{ignored}\n")
    with pytest.raises(UserError, match=f"write `revision: {name}`"):
        moving("project.git", revision="main")
    moving("project.git", revision=name)


# --- repositories that are refused


def test_a_folder_that_is_not_a_repository_is_reported(here):
    (here / "plain").mkdir()
    with pytest.raises(
        UserError, match=r"^ingest\.sources: plain is not a Git repository; `kind: git` reads a work tree"
    ):
        read("plain")


def test_a_linked_work_tree_is_reported():
    commit({"a.py": "a = 1\n"})
    git("worktree", "add", "-q", "../linked", "-b", "other")
    with pytest.raises(
        UserError, match=r"linked is a linked work tree or a submodule; name the main repository instead$"
    ):
        read("linked")
    with pytest.raises(UserError, match=r"belongs to a linked work tree; name the main repository instead$"):
        read("in/.git/worktrees/linked")


def test_borrowed_objects_are_refused():
    commit({"a.py": "a = 1\n"})
    git("clone", "-q", "--shared", "in", "borrower", cwd=".")
    with pytest.raises(UserError, match=r"borrows objects from another repository \(objects/info/alternates\)"):
        read("borrower")


def test_refs_that_are_links_are_not_followed(here):
    name = commit({"a.py": "a = 1\n"})
    (here / "elsewhere").write_text(name)
    Path("in/.git/refs/heads/trap").symlink_to(here / "elsewhere")
    os.mkfifo("in/.git/refs/heads/pipe")
    for revision in ("trap", "pipe"):
        with pytest.raises(UserError, match=f"has no revision {revision}"):
            read(revision=revision)
    Path("in/.git/objects").rename("objects")
    Path("in/.git/objects").symlink_to(here / "objects")
    with pytest.raises(UserError, match="behind a link"):
        read()


def test_nothing_that_the_repository_names_is_run(here, tree):
    """fsmonitor, hooks, filters, textconv, external diff, pager, credential and ssh commands, aliases, includes."""
    commit({"a.py": "a = 1\n", ".gitattributes": "*.py filter=trap diff=trap\n"})
    canary = here / "canary"
    script = here / "trap.sh"
    script.write_text(f"#!/bin/sh\necho fired >> {canary}\ncat\n")
    script.chmod(0o755)
    settings = {
        "core.fsmonitor": script, "core.hooksPath": here / "hooks", "core.pager": script, "core.sshCommand": script,
        "core.editor": script, "core.gitProxy": script, "core.askPass": script, "core.alternateRefsCommand": script,
        "diff.external": script, "diff.trap.textconv": script, "diff.trap.command": script, "filter.trap.clean": script,
        "filter.trap.smudge": script, "filter.trap.process": script, "filter.trap.required": "true",
        "credential.helper": f"!{script}", "uploadpack.packObjectsHook": script, "gpg.program": script,
        "alias.cat-file": f"!{script}", "include.path": here / "included", "extensions.partialClone": "origin",
        "remote.origin.url": f"ext::{script}", "remote.origin.promisor": "true",
    }  # fmt: skip
    lines = []
    for key, value in settings.items():
        section, _, name = key.rpartition(".")
        head, _, below = section.partition(".")
        lines.append(f'[{head} "{below}"]\n\t{name} = "{value}"\n' if below else f'[{head}]\n\t{name} = "{value}"\n')
    with Path("in/.git/config").open("a") as config:
        config.write("".join(lines))
    (here / "included").write_text(f"[core]\n\tfsmonitor = {script}\n")
    (here / "hooks").mkdir()
    for hook in ("post-checkout", "post-index-change", "pre-auto-gc", "reference-transaction", "fsmonitor-watchman"):
        for folder in (here / "hooks", here / "in/.git/hooks"):
            folder.mkdir(exist_ok=True)
            (folder / hook).unlink(missing_ok=True)
            (folder / hook).symlink_to(script)
    Path("in/.gitmodules").write_text(f'[submodule "x"]\n\tpath = x\n\turl = ext::{script}\n\tupdate = !{script}\n')
    before = tree(here)
    assert texts(read()) == {"a.py": "a = 1\n"}
    assert tree(here) == before
    assert not canary.exists()
    subprocess.run(["git", "status"], cwd="in", check=False, capture_output=True, env=os.environ | CLEAN)
    assert canary.exists()  # the trap works: Git itself steps into it


@pytest.mark.parametrize("packed", [False, True])
def test_objects_behind_links_are_not_followed(here, packed):
    commit({"a.py": "a = 1\n"})
    if packed:
        git("repack", "-qad")
    objects = Path("in/.git/objects")
    folder = objects / "pack" if packed else next(path for path in objects.iterdir() if len(path.name) == 2)
    for path in [*folder.iterdir()] if packed else [folder]:
        path.rename(here / path.name)
        path.symlink_to(here / path.name)
    with pytest.raises(UserError, match="keeps objects behind links; clone it to a folder of its own"):
        read()


def test_an_object_that_is_a_fifo_does_not_block():
    commit({"a.py": "a = 1\n", "b.py": "b = 1\n"})
    name = git("rev-parse", "HEAD:a.py").strip()
    file = Path("in/.git/objects", name[:2], name[2:])
    file.unlink()
    os.mkfifo(file)
    (item, document) = read()
    assert item.reason == f"object {name} is not a regular file" and item.bad
    assert document.text == "b = 1\n"
