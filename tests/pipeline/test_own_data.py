"""A user's own data under `data/raw` and `models/base` goes through every DVC command that a team uses."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from dulwich.ignore import IgnoreFilterManager
from dulwich.repo import Repo
from workspace import REPOSITORY, Workspace, commit, make_workspace

# What a user may add, and where its pointer then lies.
OWN = {
    "data/raw/notes.jsonl": "a file",
    "data/raw/code": "a folder",
    "data/raw/project.git": "a bare repository",
    "data/raw/team/2024/spring/more.jsonl": "a file in folders",
    "data/raw/team/texts": "a folder in a folder",
    "models/base/tiny": "a model",
    "models/base/small.gguf": "a file with a model",
    "models/base/org/name/model.safetensors": "a file of a model",
}
SOURCES = """\
ingest:
  sources:
    - {kind: jsonl, path: data/raw/notes.jsonl, licence: MIT}
    - {kind: files, path: data/raw/code, licence: MIT}
    - {kind: git, path: data/raw/project.git, revision: main, licence: MIT}
    - {kind: jsonl, path: data/raw/team/2024/spring/more.jsonl, licence: MIT}
    - {kind: files, path: data/raw/team, glob: "**/*.txt", licence: MIT}
  max_document_bytes: 60000
"""


def fill(workspace: Workspace) -> None:
    """Real bytes for each name of OWN."""
    records = [json.dumps({"text": f"document {number} of {name}"}) for number, name in enumerate(OWN)]
    for name, kind in OWN.items():
        path = workspace.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "a bare repository":
            continue
        if "file" in kind:
            path.write_text("\n".join(records) + f"\n{json.dumps({'text': name})}\n", encoding="utf-8")
        else:
            (path / "sub").mkdir(parents=True)
            for inner in ("a.py", "b.txt", "sub/c.txt", ".gitignore"):
                (path / inner).write_text(f"# {name} {inner}\n", encoding="utf-8")
    made = workspace.root.parent / "made"
    made.mkdir()
    (made / "m.py").write_text("M = 1\n", encoding="utf-8")
    there = Workspace(made, workspace.wheels)
    there.run("git", "init", "-q", "-b", "main")
    commit(there, "made")
    there.run("git", "clone", "-q", "--bare", ".", str(workspace.root / "data/raw/project.git"))


def own(workspace: Workspace) -> dict[str, bytes]:
    """Name -> bytes of everything that a user added."""
    files = (
        file for name in OWN for file in [workspace.root / name, *(workspace.root / name).rglob("*")] if file.is_file()
    )
    return {file.relative_to(workspace.root).as_posix(): file.read_bytes() for file in files}


@pytest.mark.parametrize("cache", ["copy", pytest.param("symlink", marks=pytest.mark.slow)])
def test_own_data_goes_through_every_command_of_dvc(tmp_path: Path, cache: str) -> None:
    """Added, committed, pushed, cloned, pulled, used in a temporary copy, kept by gc, brought back by checkout.

    With links into the cache, as DVC makes them for large data, every kind of source reads the same.
    """
    first = make_workspace(tmp_path)
    first.dvc("config", "cache.type", cache)
    for key, value in (("user.name", "Test"), ("user.email", "test@example.org")):
        first.run("git", "config", key, value)
    first.edit("params.yaml", "fetch: {sample: true", "fetch: {sample: false")
    first.edit(
        "params.yaml",
        "ingest: {sources: [{kind: wheels, path: data/raw/sample}], max_document_bytes: 60000}\n",
        SOURCES,
    )
    fill(first)
    data = own(first)
    first.dvc("repro", "fetch")  # an empty folder, as there is no sample; Git must see none of it
    first.dvc("add", *OWN)
    pointers = sorted(f"{name}.dvc" for name in OWN)
    untracked = first.run("git", "status", "--porcelain", "-uall").stdout.splitlines()
    ignores = [f"{folder}/.gitignore" for folder in ("data/raw", "data/raw/team", "models/base")]  # dvc add wrote them
    assert untracked == [
        " M .dvc/config",
        " M params.yaml",
        *(f"?? {name}" for name in sorted([*pointers, *ignores, "dvc.lock"])),
    ]
    assert first.cli("check").returncode == 0
    first.dvc("remote", "add", "--default", "team", "../../remote")
    commit(first, "own data")
    assert set(pointers) <= set(first.dvc("stage", "list", "--all", "--name-only").stdout.split())
    assert "nothing to commit" not in first.dvc("push").stdout

    second = Workspace(tmp_path / "clone", first.wheels)
    first.run("git", "clone", "-q", "--bare", ".", str(tmp_path / "hub.git"))
    first.run("git", "clone", "-q", str(tmp_path / "hub.git"), str(second.root))
    (second.root / ".dvc/tmp").mkdir()
    second.dvc("pull", *pointers)
    del data["models/base/tiny/.gitignore"]  # no loader reads it, so it is in no hash and no remote
    assert own(second) == data
    second.dvc("repro", "ingest")
    assert json.loads((second.root / "reports/ingest/details.json").read_bytes())["documents"] == 22
    commit(second, "run")
    assert (second.root / "data/raw/code/a.py").is_symlink() == (cache == "symlink")
    assert second.dvc("data", "status", "--json").stdout.strip() == "{}"
    dag = second.dvc("dag", "--dot", "ingest").stdout
    assert [name for name in pointers if name.startswith("data/") and f'"{name}" -> "ingest"' not in dag] == []

    for key, value in (("user.name", "Test"), ("user.email", "test@example.org")):
        second.run("git", "config", key, value)
    ran = second.dvc("exp", "run", "--temp", "ingest", "-S", "ingest.max_document_bytes=50000")
    assert "Running stage 'ingest'" in ran.stdout and "ingest: 22 documents" in ran.stdout + ran.stderr
    second.dvc("gc", "--workspace", "--force")
    for name in OWN:
        path = second.root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    second.dvc("checkout", *pointers)
    assert own(second) == data


# Names as a user may have them: whether Git, and DVC on the way to a pointer, may see them.
SEEN = {
    "data/raw/": True, "data/raw/a/": True, "data/raw/a/b/": True, "data/raw/x.dvc": True, "data/raw/a/b/x.dvc": True,
    "data/raw/.gitignore": True, "data/raw/x": False, "data/raw/a/x.jsonl": False, "data/raw/a/dvc.yaml": False,
    "data/raw/dvc.yaml": False, "data/raw/a/.gitignore": True, "data/raw/sample/": False, "data/raw/sample/w.whl": False, "models/": True,
    "models/presets.yaml": True, "models/model/": False, "models/model/config.json": False, "models/tokenizer/": False,
    "models/base/": True, "models/base/README.md": True, "models/base/x.dvc": True, "models/base/a/": True,
    "models/base/a/b.dvc": True, "models/base/a/config.json": False, "models/base/x.gguf": False,
    "models/base/a/README.md": False, "data/corpus/": False, "data/splits/": False, "data/packed/": False,
}  # fmt: skip


@pytest.mark.parametrize("name", SEEN)
def test_git_and_dvc_read_the_ignore_rules_alike(tmp_path: Path, name: str) -> None:
    shutil.copy(REPOSITORY / ".gitignore", tmp_path)
    workspace = Workspace(tmp_path, tmp_path)
    workspace.run("git", "init", "-q")
    path = tmp_path / name
    (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
    if not name.endswith("/"):
        path.touch()
    git = workspace.run("git", "check-ignore", "-q", "--no-index", name, check=False).returncode == 1
    with Repo(os.fspath(tmp_path)) as repository:
        dvc = not IgnoreFilterManager.from_repo(repository).is_ignored(name)  # what DVC asks
    assert (git, dvc) == (SEEN[name], SEEN[name])


@pytest.mark.parametrize("page", ["data.md", "own_data.md"])
@pytest.mark.parametrize("own", [["notes.jsonl"], ["code/"], ["notes.jsonl", "code/", "deep/er/x.csv"]], ids=len)
def test_what_the_pages_tell_git_adds_every_pointer_and_no_data(tmp_path: Path, page: str, own: list[str]) -> None:
    shutil.copy(REPOSITORY / ".gitignore", tmp_path)
    workspace = Workspace(tmp_path, tmp_path)
    workspace.run("git", "init", "-q")
    workspace.dvc("init", "-q")
    workspace.run("git", "add", ".")
    for name in own:
        path = tmp_path / "data/raw" / name / ("a.py" if name.endswith("/") else "")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    workspace.dvc("add", "-q", *(f"data/raw/{name}" for name in own))
    [command] = re.findall(r"^git add data/raw[^&#\n]*", (REPOSITORY / "docs" / page).read_text(), re.MULTILINE)
    workspace.run("sh", "-c", command)
    state = workspace.run("git", "status", "--porcelain", "--untracked-files=all").stdout.splitlines()
    assert not [line for line in state if line.startswith("??")]
    added = {line[3:] for line in state if line.startswith("A  data/raw/") and not line.endswith(".gitignore")}
    assert added == {f"data/raw/{name.rstrip('/')}.dvc" for name in own}
