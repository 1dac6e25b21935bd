"""`codex-ml accept-code` with the real DVC: an edit of a comment costs no run, and any other edit is refused."""

from __future__ import annotations

import json
import re

from workspace import Workspace, commit

IO, CONFIG, SCRIPT = "src/codex_ml/core/io.py", "src/codex_ml/train/config.py", "stages/train.py"
FOLDERS, PAGE = "src/codex_ml/core/folders.py", "src/codex_ml/report/report.html.jinja"


def edit_comments(workspace: Workspace) -> None:
    """A comment in the code of every stage, a docstring in that of train, the layout of a script."""
    workspace.edit(IO, "\nimport os\n", "\nimport os  # another comment\n\n\n")
    workspace.edit(CONFIG, '"""The sections', '"""Two sections')
    workspace.edit(SCRIPT, "\ndef main(", "\n\n\ndef main(")


def test_edit_of_comments_runs_nothing_and_the_chain_says_what_ran(pipeline: Workspace) -> None:
    before = pipeline.lock
    edit_comments(pipeline)
    planned = pipeline.cli("plan", check=False)
    assert planned.returncode == 3
    assert f"{IO} changed, only in comments, docstrings or layout" in planned.stdout
    assert "`codex-ml accept-code`" in planned.stdout
    unrecorded = pipeline.cli("verify", check=False)
    assert unrecorded.returncode == 1
    assert "`codex-ml accept-code` records that" in unrecorded.stderr

    accepted = pipeline.cli("accept-code").stdout
    assert [line.split(":")[0] for line in accepted.splitlines()[:3]] == [IO, CONFIG, SCRIPT]
    ours = pipeline.lock
    assert ours != before
    assert "up to date" in pipeline.dvc("status").stdout
    assert "Running stage" not in pipeline.dvc("repro").stdout
    assert pipeline.cli("plan").stdout.endswith("plan: 9 stay\n")
    assert pipeline.cli("accept-code").stdout.startswith("accept-code: nothing to accept")
    pipeline.dvc("commit", "--force")  # what DVC itself writes for this state
    assert pipeline.lock == ours

    links = json.loads(pipeline.cli("verify", "--json").stdout)["links"]
    named = {(link["stage"], link["path"]) for link in links if link["role"] == "accepted"}
    assert {path for stage, path in named if stage == "train"} == {IO, CONFIG, SCRIPT}
    assert {stage for stage, path in named if path == IO} == {link["stage"] for link in links}
    record = json.loads((pipeline.root / "reports/train/lineage.json").read_bytes())
    ran = pipeline.run("git", "show", f"HEAD:{SCRIPT}").stdout
    assert record["deps"][SCRIPT]["size"] == len(ran.encode()), "the record names the file that ran"

    commit(pipeline, "comments")
    for rev in ((), ("--rev", "HEAD")):
        assert "models/model" in pipeline.cli("lineage", "models/model", *rev).stdout
    pipeline.run("git", "checkout", "-q", "HEAD~1", "--", "src", "stages")  # back to the code that ran
    pipeline.cli("accept-code")
    assert pipeline.lock == before


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
    (FOLDERS, swap_functions, rf"{FOLDERS}:\d+ \(logs_folder\) was changed in more than comments"),
    (
        FOLDERS,
        lambda made: made.edit(FOLDERS, "import os\n", "import os\nx = __file__.__doc__\n"),
        rf"{FOLDERS}:\d+ was",
    ),
    (PAGE, lambda made: made.edit(PAGE, "<body>", "<body><!-- x -->"), rf"{PAGE} was changed, and only in Python"),
    ("params.yaml", lambda made: made.edit("params.yaml", "seed: 3", "seed: 4"), "train: seed 3 -> 4; "),
    (
        "data/sample.lock",
        lambda made: made.edit("data/sample.lock", "# made", "# was made"),
        "data/sample.lock changed; ",
    ),
)


def test_any_other_change_is_refused_and_nothing_is_written(pipeline: Workspace) -> None:
    edit_comments(pipeline)
    before = pipeline.lock
    for name, change, message in CHANGES:
        kept = (pipeline.root / name).read_bytes()
        change(pipeline)
        refused = pipeline.cli("accept-code", check=False)
        (pipeline.root / name).write_bytes(kept)
        assert (refused.returncode, refused.stdout, pipeline.lock) == (1, "", before), name
        assert re.search(message, refused.stderr), refused.stderr
        assert "Traceback" not in refused.stderr
    (pipeline.root / "src/codex_ml/core/added.py").write_text("# only a comment\n", encoding="utf-8")
    assert "core/added.py was added; " in pipeline.cli("accept-code", check=False).stderr
    assert pipeline.lock == before


def test_commit_of_dvc_after_an_edit_is_no_edit_during_the_run(pipeline: Workspace) -> None:
    edit_comments(pipeline)
    pipeline.dvc("commit", "--force")
    assert "links hold" in pipeline.cli("verify").stdout
    pipeline.edit(IO, "\nimport os  # another comment", "\nimport os\n\nLIMIT = 2")
    pipeline.dvc("commit", "--force")
    broken = pipeline.cli("verify", check=False)
    assert broken.returncode == 1
    assert f"{IO}:" in broken.stderr
    assert "or later and recorded by `dvc commit`" in broken.stderr


def test_experiment_is_found_by_its_name(pipeline: Workspace) -> None:
    pipeline.dvc("exp", "save", "--name", "brave-heart")
    shown = pipeline.cli("lineage", "models/model", "--rev", "brave-heart").stdout
    listed = pipeline.run("git", "for-each-ref", "--format=%(objectname)", "refs/exps").stdout.split()
    assert shown.splitlines()[1] in {f"commit  {commit}" for commit in listed}
    unknown = pipeline.cli("lineage", "models/model", "--rev", "a[1]", check=False)
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert unknown.stderr.startswith("error: 'a[1]' is not a Git revision or an experiment; ")
