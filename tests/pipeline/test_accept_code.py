"""`codex-ml accept-code` with the real DVC: an edit of a comment costs no run, and any other edit is refused."""

from __future__ import annotations

import json
import re

import pytest
from click.testing import Result
from typer.testing import CliRunner
from workspace import Workspace, commit

from codex_ml.cli.main import whole_app

IO, CONFIG, SCRIPT = "src/codex_ml/core/io.py", "src/codex_ml/train/config.py", "stages/train.py"
FOLDERS, PAGE = "src/codex_ml/core/folders.py", "src/codex_ml/report/report.html.jinja"


@pytest.fixture
def edited(pipeline: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """After a run, a comment in the code of every stage, a docstring in that of train, the layout of a script."""
    monkeypatch.chdir(pipeline.root)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", pipeline.environment["DVC_SITE_CACHE_DIR"])
    pipeline.edit(IO, "\nimport os\n", "\nimport os  # another comment\n\n\n")
    pipeline.edit(CONFIG, '"""The sections', '"""Two sections')
    pipeline.edit(SCRIPT, "\ndef main(", "\n\n\ndef main(")
    return pipeline


def run(*words: str, code: int = 0) -> Result:
    """Run a command in this process, with this library: only hashes of the code in the copy matter."""
    done = CliRunner().invoke(whole_app(), list(words))
    assert done.exit_code == code, (words, done.stdout, done.stderr)
    return done


def test_edit_of_comments_runs_nothing_and_the_chain_says_what_ran(edited: Workspace) -> None:
    before = edited.lock
    planned = run("plan", code=3).stdout
    assert f"{IO} changed, only in comments, docstrings or layout" in planned
    assert "`codex-ml accept-code`" in planned
    assert "`codex-ml accept-code` records that" in run("verify", code=1).stderr

    accepted = run("accept-code").stdout
    assert [line.split(":")[0] for line in accepted.splitlines()[:3]] == [IO, CONFIG, SCRIPT]
    ours = edited.lock
    assert ours != before
    (edited.root / "dvc.lock").write_bytes(before)
    assert run("plan", code=3).stdout.count(" restored ") == 9, "the run cache knows the outputs for this code"
    (edited.root / "dvc.lock").write_bytes(ours)
    assert "up to date" in edited.dvc("status").stdout
    assert "Running stage" not in edited.dvc("repro").stdout
    assert run("plan").stdout.endswith("plan: 9 stay\n")
    assert run("accept-code").stdout.startswith("accept-code: nothing to accept")
    edited.dvc("commit", "--force")  # what DVC itself writes for this state
    assert edited.lock == ours

    links = json.loads(run("verify", "--json").stdout)["links"]
    named = {(link["stage"], link["path"]) for link in links if link["role"] == "accepted"}
    assert {path for stage, path in named if stage == "train"} == {IO, CONFIG, SCRIPT}
    assert {stage for stage, path in named if path == IO} == {link["stage"] for link in links}
    record = json.loads((edited.root / "reports/train/lineage.json").read_bytes())
    ran = edited.run("git", "show", f"HEAD:{SCRIPT}").stdout
    assert record["deps"][SCRIPT]["size"] == len(ran.encode()), "the record names the file that ran"

    commit(edited, "comments")
    for rev in ((), ("--rev", "HEAD")):
        assert "models/model" in run("lineage", "models/model", *rev).stdout
    edited.edit(IO, "import stat", "import stat\n\nLIMIT = 2")  # then HEAD has the code of dvc.lock
    assert "models/model" in run("lineage", "models/model").stdout
    edited.run("git", "checkout", "-q", "HEAD~1", "--", "src", "stages")  # back to the code that ran
    run("accept-code")
    assert edited.lock == before


def swap_functions(workspace: Workspace) -> None:
    file = workspace.root / FOLDERS
    head, first, rest = re.split(r"(?=\n\n\ndef )", file.read_text(encoding="utf-8"), maxsplit=2)
    file.write_text(f"{head}{rest.rstrip()}{first}\n", encoding="utf-8")


CHANGES = (
    (
        FOLDERS,
        lambda made: made.edit(FOLDERS, "0o700", "0o750"),
        rf"{FOLDERS}:\d+ \(scratch_folder\) was changed in more",
    ),
    (FOLDERS, swap_functions, rf"{FOLDERS}:\d+ \(\w+\) was changed in more than comments"),
    (PAGE, lambda made: made.edit(PAGE, "<body>", "<body><!-- x -->"), rf"{PAGE} was changed, and only in Python"),
    ("params.yaml", lambda made: made.edit("params.yaml", "seed: 3", "seed: 4"), "train: seed 3 -> 4; "),
    (
        "data/sample.lock",
        lambda made: made.edit("data/sample.lock", "# made", "# was made"),
        "data/sample.lock changed; ",
    ),
)


def test_any_other_change_is_refused_and_nothing_is_written(edited: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    before = edited.lock
    for name, change, message in CHANGES:
        kept = (edited.root / name).read_bytes()
        change(edited)
        refused = run("accept-code", code=1)
        (edited.root / name).write_bytes(kept)
        assert (refused.stdout, edited.lock) == ("", before), name
        assert re.search(message, refused.stderr), refused.stderr
    added = edited.root / "src/codex_ml/core/added.py"
    added.write_text("# only a comment\n", encoding="utf-8")
    assert "core/added.py was added; " in run("accept-code", code=1).stderr
    added.unlink()
    with monkeypatch.context() as killed:
        killed.setattr("codex_ml.core.io.os.replace", _kill)
        run("accept-code", code=137)
    assert edited.lock == before, "dvc.lock is replaced as a whole or not at all"
    run("accept-code")
    assert edited.lock != before


def _kill(*_: object, **__: object) -> None:
    raise SystemExit(137)


def test_commit_of_dvc_after_an_edit_is_no_edit_during_the_run(edited: Workspace) -> None:
    edited.dvc("commit", "--force")
    assert "links hold" in run("verify").stdout
    edited.edit(IO, "\nimport os  # another comment", "\nimport os\n\nLIMIT = 2")
    edited.dvc("commit", "--force")
    broken = run("verify", code=1).stderr
    assert f"{IO}:" in broken
    assert "or later and recorded by `dvc commit`" in broken


def test_experiment_is_found_by_its_name(edited: Workspace) -> None:
    run("accept-code")
    edited.dvc("exp", "save", "--name", "brave-heart")
    shown = run("lineage", "models/model", "--rev", "brave-heart").stdout
    listed = edited.run("git", "for-each-ref", "--format=%(objectname)", "refs/exps").stdout.split()
    assert shown.splitlines()[1] in {f"commit  {commit}" for commit in listed}
    unknown = run("lineage", "models/model", "--rev", "a[1]", code=2)
    assert unknown.stdout == ""
    assert unknown.stderr.startswith("error: 'a[1]' is not a Git revision or an experiment of this clone; ")
