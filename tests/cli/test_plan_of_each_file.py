"""Whatever file of the repository changes, `codex-ml plan` and `dvc repro --dry` name the same stages.

The project has the real dvc.yaml, the real code and the files of an invented user. Its outputs are invented too, and
recorded as by `dvc commit`: which stages are stale depends on hashes, not on what is in a file.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.repo import Repo
from ruamel.yaml import YAML

from codex_ml.cli.planning.repro_simulation import Fate, simulate
from codex_ml.core.pipeline import StageSpec, load_pipeline
from codex_ml.core.tree import is_left_out

CODE = ("src", "stages", "dvc.yaml", "pyproject.toml", ".dvc/config", ".dvcignore", ".gitignore")


@pytest.fixture(scope="module")
def finished_project(tmp_path_factory: pytest.TempPathFactory, repository: Path, project: Path) -> Iterator[Path]:
    """The folder of a project in which every stage counts as up to date."""
    folder = tmp_path_factory.mktemp("plan") / "project"
    shutil.copytree(project, folder)
    for name in CODE:
        source, target = repository / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copyfile(source, target)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("DVC_SITE_CACHE_DIR", str(folder.parent / "site"))
        for name in ("README.md", "docs/page.md", "tests/test_it.py"):
            write(Path(name), "no stage reads it\n")
        invent_outputs(load_pipeline())
        subprocess.run(["git", "init", "-q"], check=True)
        subprocess.run(["git", "add", "-A"], check=True)
        with Repo() as repo:
            repo.commit(force=True)
        yield folder


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def invent_outputs(stages: dict[str, StageSpec]) -> None:
    """Write a file for each output, and for each dep that lies in an output."""
    outs = {out for spec in stages.values() for out in spec.outs}
    inner = {
        dep for spec in stages.values() for dep in spec.data if any(Path(out) in Path(dep).parents for out in outs)
    }
    for path in sorted(outs | inner):
        if any(Path(path) in Path(other).parents for other in inner):
            continue
        file = Path(path) if Path(path).suffix else Path(path, "file")
        write(file, f"{path}\n")
    for dep in sorted({dep for spec in stages.values() for dep in spec.data}):
        if not Path(dep).exists():
            write(Path(dep, "file"), f"{dep}\n")


PARSED: dict[tuple[object, str], Any] = {}
load_with_ruamel = YAML.load


def load_once(reader: YAML, stream: Any) -> Any:
    """Parse a YAML text that was parsed before by a copy of the result: DVC's time is that of its parser."""
    if not isinstance(stream, str) or reader.typ != ["safe"]:
        return load_with_ruamel(reader, stream)
    key = (tuple(reader.typ), stream)
    if key not in PARSED:
        PARSED[key] = load_with_ruamel(reader, stream)
    return deepcopy(PARSED[key])


@pytest.fixture(autouse=True)
def here(finished_project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(YAML, "load", load_once)
    monkeypatch.chdir(finished_project)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(finished_project.parent / "site"))


def fates() -> dict[str, Fate]:
    with Repo() as repo, repo.lock:
        return {fate.name: fate for fate in simulate(repo, [])}


def dry() -> set[str]:
    with Repo() as repo:
        return {stage.addressing for stage in repo.reproduce(dry=True)}


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], capture_output=True, check=True).stdout
    return [name for name in listed.decode().split("\0") if name and not name.startswith((".dvc/", "dvc.lock"))]


def readers(name: str) -> frozenset[str]:
    """The stages with the file in the hash of a dep: files of one folder of code have the same."""
    if is_left_out(Path(name)):
        return frozenset()
    return frozenset(spec.name for spec in load_pipeline().values() if spec.reads(name))


def disagreement(name: str) -> tuple[str, set[str], set[str]] | None:
    """Change a file, ask the plan and the dry run, and change it back; None where both name the same stages."""
    file = Path(name)
    before, status = file.read_bytes(), file.stat()
    file.write_bytes(before + b"\n# a change\n")
    try:
        planned, named = fates(), dry()
    finally:
        file.write_bytes(before)
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    told = {stage for stage, fate in planned.items() if fate.in_dry_run}
    certain = {stage for stage, fate in planned.items() if fate.action in ("run", "restore", "record")}
    assert told >= certain, "the outputs are those of the last run, so only a changed input makes a stage run"
    return None if told == named else (name, told, named)


def test_at_the_start_nothing_is_stale() -> None:
    assert {fate.action for fate in fates().values()} == {"stay"}
    assert dry() == set()


def one_of_each_kind() -> list[str]:
    kinds: dict[frozenset[str], str] = {}
    for name in tracked():
        kinds.setdefault(readers(name), name)
    return list(kinds.values())


def test_files_with_many_readers_with_one_and_with_none() -> None:
    names = ["src/codex_ml/core/io.py", "data/policy.yaml", "stages/pack.py", "models/base/README.md", "docs/page.md"]
    assert [len(readers(name)) for name in names] == [9, 3, 1, 0, 0]
    assert [found for name in names if (found := disagreement(name))] == []


@pytest.mark.slow
def test_one_file_of_each_set_of_readers() -> None:
    names = one_of_each_kind()
    assert len(names) > 15
    assert [found for name in names if (found := disagreement(name))] == []


@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))
def test_every_tracked_file(part: int) -> None:
    names = tracked()
    assert len(names) > 400
    assert [found for name in names[part::8] if (found := disagreement(name))] == []


def leaves(value: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, (*place, key))
    else:
        yield place


def disagreement_about(key: tuple[str, ...]) -> Any:
    file = Path("params.yaml")
    before = file.read_text()
    document = yaml.safe_load(before)
    inner = document
    for name in key[:-1]:
        inner = inner[name]
    inner[key[-1]] = "another value"
    file.write_text(yaml.safe_dump(document))
    try:
        planned, named = fates(), dry()
    finally:
        file.write_text(before)
    told = {stage for stage, fate in planned.items() if fate.in_dry_run}
    assert told == {spec.name for spec in load_pipeline().values() if key[0] in spec.params}
    return None if told == named else (key, told, named)


def test_a_key_of_several_stages_and_a_key_of_one() -> None:
    sections = {key[0]: key for key in leaves(yaml.safe_load(Path("params.yaml").read_text()))}
    assert [found for name in ("seed", "train") if (found := disagreement_about(sections[name]))] == []


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_every_key(part: int) -> None:
    keys = list(leaves(yaml.safe_load(Path("params.yaml").read_text())))
    assert len(keys) > 120
    assert [found for key in keys[part::4] if (found := disagreement_about(key))] == []


def test_a_file_that_git_does_not_know_and_a_file_less() -> None:
    folder = Path("src/codex_ml/pack")
    new, gone, aside = folder / "loose.py", folder / "best_fit.py", Path("aside")
    assert gone.is_file()

    def stages_of_both() -> set[str]:
        told, named = {stage for stage, fate in fates().items() if fate.in_dry_run}, dry()
        assert told == named
        return told

    for file, expected in ((new, {"pack"}), (folder / "__pycache__/loose.pyc", set[str]())):
        write(file, "")
        try:
            assert stages_of_both() == expected
        finally:
            file.unlink()
    gone.rename(aside)
    try:
        assert stages_of_both() == {"pack"}
    finally:
        aside.rename(gone)


def test_another_command_of_a_stage() -> None:
    file = Path("dvc.yaml")
    before = file.read_text()
    file.write_text(before.replace("python -P stages/pack.py", "python  -P stages/pack.py"))
    try:
        planned, named = fates(), dry()
    finally:
        file.write_text(before)
    assert planned["pack"].other_command
    assert {stage for stage, fate in planned.items() if fate.in_dry_run} == named == {"pack"}


def test_an_output_that_is_removed_is_restored_and_nothing_follows() -> None:
    stages = load_pipeline()
    for spec in (stages["fetch"], stages["split"], stages["train"]):
        out = Path(spec.outs[-1])
        aside = out.with_name(f"{out.name}.aside")
        out.rename(aside)
        try:
            planned = fates()  # `dvc repro --dry` fails: it wants to hash what is missing
        finally:
            aside.rename(out)
        assert planned[spec.name].action == "restore"
        assert {stage for stage, fate in planned.items() if fate.action != "stay"} == {spec.name}
