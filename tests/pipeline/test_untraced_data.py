"""What DVC would not notice, or could not hash: the check and the stage typed by hand refuse it, in the same words."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from workspace import Workspace, commit, make_workspace


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with own data that `ingest` has read."""
    made = make_workspace(tmp_path_factory.mktemp("untraced"))
    made.edit("params.yaml", "fetch: {sample: true", "fetch: {sample: false")
    made.edit(
        "params.yaml", "{kind: wheels, path: data/raw/sample}", "{kind: files, path: data/raw/code, licence: MIT}"
    )
    (made.root / "data/raw/code").mkdir(parents=True)
    (made.root / "data/raw/code/a.py").write_text("A = 1\n", encoding="utf-8")
    made.dvc("repro", "ingest")
    return made


def use(workspace: Workspace, source: str) -> None:
    """Let the only source be this one."""
    file = workspace.root / "params.yaml"
    lines = file.read_text(encoding="utf-8").splitlines()
    ingest = f"ingest: {{sources: [{{{source}, licence: MIT}}], max_document_bytes: 60000}}"
    text = "\n".join(ingest if line.startswith("ingest:") else line for line in lines)
    file.write_text(f"{text}\n", encoding="utf-8")


def linked_folder(workspace: Workspace) -> str:
    other = workspace.root.parent / "other disk"
    other.mkdir(exist_ok=True)
    (other / "a.jsonl").write_text('{"text": "one document of some words"}\n', encoding="utf-8")
    (workspace.root / "data/raw/corpus").symlink_to("../../../other disk")
    use(workspace, "kind: jsonl, path: data/raw/corpus")
    return "data/raw/corpus is a link to a folder outside data/raw: DVC does not look into it"


def linked_version(workspace: Workspace) -> str:
    (workspace.root / "data/raw/latest").symlink_to("code")
    use(workspace, "kind: files, path: data/raw/latest")
    return "data/raw/latest is a link to a folder, and DVC does not look into it; use data/raw/code"


def moving_revision(workspace: Workspace) -> str:
    up = Workspace(workspace.root.parent / "up", workspace.wheels)
    up.root.mkdir()
    (up.root / "m.py").write_text("M = 1\n", encoding="utf-8")
    up.run("git", "init", "-q", "-b", "main")
    commit(up, "one")
    workspace.run("git", "clone", "-q", str(up.root), "data/raw/project")
    use(workspace, "kind: git, path: data/raw/project, revision: origin/main")
    return f"write `revision: {up.run('git', 'rev-parse', 'HEAD').stdout.strip()}`, which it means now"


def pipe(workspace: Workspace) -> str:
    os.mkfifo(workspace.root / "data/raw/code/pipe.py")
    return "data/raw/code/pipe.py is a FIFO, for which DVC would wait forever; remove it"


def name_in_latin_1(workspace: Workspace) -> str:
    Path(os.fsdecode(os.fsencode(workspace.root) + b"/data/raw/code/caf\xe9.py")).touch()
    return "data/raw/code/caf\\udce9.py: the name is not UTF-8, so DVC cannot record it; rename it"


def ignored_source(workspace: Workspace) -> str:
    with (workspace.root / ".dvcignore").open("a", encoding="utf-8") as file:
        file.write("/data/raw/code\n")
    return "data/raw/code is in no hash: DVC leaves it out"


@pytest.mark.parametrize(
    "make",
    [linked_folder, linked_version, moving_revision, pipe, name_in_latin_1, ignored_source],
    ids=lambda f: f.__name__,
)
def test_the_check_and_the_stage_refuse_it_and_write_nothing(workspace: Workspace, tmp_path: Path, make) -> None:
    copy = workspace.copy(tmp_path / "copy")
    corpus = (copy.root / "data/corpus/documents.parquet").read_bytes()
    record = (copy.root / "reports/ingest/lineage.json").read_bytes()
    message = make(copy)
    for done in (copy.cli("check", check=False), copy.run("python", "stages/ingest.py", check=False, timeout=60)):
        assert done.returncode == 2
        assert message in done.stderr
        assert done.stderr.count("error: ") == 1 and "Traceback" not in done.stderr
    assert (copy.root / "data/corpus/documents.parquet").read_bytes() == corpus
    if make in (pipe, name_in_latin_1):  # found while the inputs are hashed: not even the record is written
        assert (copy.root / "reports/ingest/lineage.json").read_bytes() == record
    assert not list((copy.root / "data").glob(".*.tmp-*"))


def test_noise_that_dvcignore_lists_changes_nothing(workspace: Workspace, tmp_path: Path) -> None:
    copy = workspace.copy(tmp_path / "copy")
    with (copy.root / ".dvcignore").open("a", encoding="utf-8") as file:
        file.write(".DS_Store\n*.tmp.py\n")
    for name in ("data/raw/.DS_Store", "data/raw/code/b.tmp.py"):
        (copy.root / name).write_text("NOISE = 1\n", encoding="utf-8")
    lock = copy.lock
    assert copy.dvc("status", "ingest").stdout.strip() == "Data and pipelines are up to date."
    assert "links hold" in copy.cli("verify", "reports/ingest/metrics.json").stdout
    copy.dvc("repro", "--force", "ingest")
    assert copy.lock == lock
    assert "links hold" in copy.cli("verify", "reports/ingest/metrics.json").stdout


def test_a_pinned_commit_stays_whatever_is_fetched(workspace: Workspace, tmp_path: Path) -> None:
    """And a bare repository, whose branch moves, makes the stage stale."""
    copy = workspace.copy(tmp_path / "copy")
    moving_revision(copy)
    up = Workspace(copy.root.parent / "up", copy.wheels)
    pinned = up.run("git", "rev-parse", "HEAD").stdout.strip()
    shutil.rmtree(copy.root / "data/raw/code")
    copy.run("git", "clone", "-q", "--bare", str(up.root), "data/raw/bare.git")
    use(copy, f"kind: git, path: data/raw/project, revision: {pinned}")
    copy.dvc("repro", "ingest")
    corpus = (copy.root / "data/corpus/documents.parquet").read_bytes()
    (up.root / "m.py").write_text("M = 2\n", encoding="utf-8")
    commit(up, "two")
    Workspace(copy.root / "data/raw/project", copy.wheels).run("git", "fetch", "-q")
    assert copy.dvc("status", "ingest").stdout.strip() == "Data and pipelines are up to date."
    copy.run("python", "stages/ingest.py")
    assert (copy.root / "data/corpus/documents.parquet").read_bytes() == corpus
    use(copy, "kind: git, path: data/raw/bare.git, revision: main")
    copy.dvc("repro", "ingest")
    assert "links hold" in copy.cli("verify", "reports/ingest/metrics.json").stdout
    Workspace(copy.root / "data/raw/bare.git", copy.wheels).run("git", "fetch", "-q", "origin", "main:main")
    assert "data/raw" in copy.dvc("status", "ingest").stdout
    assert copy.cli("verify", "reports/ingest/metrics.json", check=False).returncode == 1
