"""`codex-ml check` names a file that DVC hashes with the code of a stage and that Git does not have."""

import subprocess
from pathlib import Path

import pytest

from codex_ml.cli.checks.code import code_problems
from codex_ml.core.pipeline import StageSpec

STAGE = StageSpec(
    "ingest", "python -P stages/ingest.py", "", ("data/raw", "stages/ingest.py", "src/lib"), (), (), frozenset()
)
SECOND = StageSpec("split", "python -P stages/split.py", "", ("stages/split.py", "src/lib"), (), (), frozenset())


def git(*arguments):
    who = ["-c", "user.name=T", "-c", "user.email=t@example.invalid", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *who, *arguments], check=True, capture_output=True)


def problems():
    return list(code_problems({"ingest": STAGE, "split": SECOND}))


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("dvc.yaml", "stages/ingest.py", "stages/split.py", "src/lib/a.py", "src/lib/b/c.py"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("x = 1\n")
    return tmp_path


@pytest.fixture
def in_git(project):
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "start")
    return project


def test_nothing_is_named_where_git_has_every_file(in_git):
    assert problems() == []
    Path("src/lib/a.py").write_text("x = 2\n")  # edited, and tracked
    Path("notes.txt").write_text("outside of the code\n")
    Path("data/raw").mkdir(parents=True)
    Path("data/raw/mine.txt").write_text("data is for DVC\n")
    assert problems() == []


def test_a_new_file_is_named_with_what_to_do(in_git):
    Path("src/lib/b/new one.py").write_text("y = 1\n")
    assert problems() == [
        "DVC hashes 'src/lib/b/new one.py' with the code of a stage, but Git does not track it, so a clone would lack this "
        "code: run `git add 'src/lib/b/new one.py'`, or list it in .dvcignore"
    ]
    git("add", "src/lib/b/new one.py")
    assert problems() == []


def test_a_new_script_is_named_and_so_is_a_file_that_git_ignores(in_git):
    git("rm", "-q", "--cached", "stages/split.py")
    Path(".gitignore").write_text("*.txt\n")
    Path("src/lib/words.txt").write_text("a b c\n")
    (problem,) = problems()
    assert problem.startswith("DVC hashes src/lib/words.txt, stages/split.py with the code of a stage, but ")


def test_what_dvcignore_lists_is_not_named(in_git):
    Path("src/lib/draft.py").write_text("z = 1\n")
    assert len(problems()) == 1
    Path(".dvcignore").write_text("/src/**/draft.py\n")
    assert problems() == []


def test_many_new_files_make_one_line(in_git):
    for number in range(8):
        Path(f"src/lib/n{number}.py").write_text("")
    (problem,) = problems()
    assert "src/lib/n4.py (and 3 more) with the code" in problem
    assert "n5" not in problem


def test_a_project_in_a_folder_of_a_larger_repository_is_judged_by_its_own_files(project, monkeypatch):
    git("init", "-q")
    inner = Path("inner")
    inner.mkdir()
    for name in ("dvc.yaml", "stages", "src"):
        Path(name).rename(inner / name)
    git("add", ".")
    monkeypatch.chdir(inner)
    assert problems() == []
    Path("src/lib/new.py").write_text("")
    assert len(problems()) == 1


def test_outside_of_git_nothing_is_named(project, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(project.parent))
    assert problems() == []


def test_a_repository_around_that_tracks_nothing_of_the_project_is_not_asked(project):
    git("init", "-q")
    assert problems() == []


def test_a_file_that_dvc_cannot_hash_is_named(in_git):
    Path("src/lib/gone.py").symlink_to("nowhere.py")
    assert problems() == [
        "src/lib/gone.py is a broken link (No such file or directory); remove it, or list it in the "
        ".dvcignore of the top folder"
    ]
