"""Which commit or experiment made a run that DVC's run cache holds.

A run is known by the hash of its record, reports/<stage>/lineage.json, which no other recipe has. The first commit
whose dvc.lock holds that hash is the one that published the run; `git log --all` also sees DVC's experiments, which
are commits under refs/exps.

Used by: `codex-ml plan`.
"""

from __future__ import annotations

from codex_ml.cli.history.git_commands import git_text
from codex_ml.core.errors import UserError
from codex_ml.core.pipeline import LOCK
from codex_ml.core.record import record_path

FORMAT = "--format=%H%x00%D%x00%s"  # commit, experiments that it is, subject
EXPERIMENTS = ("--decorate-refs=refs/exps/*",)
NOBODY = "a run that no commit holds"
SUBJECT = 60  # characters
SHORT = 10  # hexadecimal digits of a commit


def made_by(stage: str, outs: dict[str, str]) -> str:
    """The commit or the experiment, for people.

    Args:
        outs: path -> MD5 of what the run cache holds.
    """
    md5 = outs.get(str(record_path(stage))) or next(iter(outs.values()), "")
    try:
        found = git_text("log", "--all", "--reverse", *EXPERIMENTS, FORMAT, f"-S{md5}", "--", str(LOCK))
    except UserError:  # no Git
        return NOBODY
    if not md5 or not found:
        return NOBODY
    commit, refs, subject = found.split("\n")[0].split("\0", 2)
    if refs:
        return f"experiment {refs.split(', ')[0].rpartition('/')[2]}"
    return f"commit {commit[:SHORT]} ({subject[:SUBJECT]})"
