"""`codex-ml accept-code`: an edit of a comment costs no run."""

from __future__ import annotations

from codex_ml.cli.options import Debug
from codex_ml.cli.output import say
from codex_ml.core.errors import one_line_errors
from codex_ml.core.repository_root import go_to_top


def accept_code(debug: Debug = False) -> None:
    """Record edits of comments, docstrings and layout in dvc.lock, so that no stage runs because of them.

    It proves first that nothing else changed since the stages ran: the record of a stage has a digest of the syntax of
    each Python file of its code. It refuses any other change of code, data, parameters or outputs, naming the file
    (and the line, if Git has the old file); then it changes nothing. The records stay as they are and name the files
    that ran; `codex-ml verify` compares the present files with them, and lists each accepted edit.

    Example: edit a comment in src/codex_ml/core/io.py, then `codex-ml accept-code && git add dvc.lock src`
    """
    from codex_ml.cli.param_rules import load_params
    from codex_ml.cli.planning.lock_acceptance import accept_edits
    from codex_ml.cli.planning.quiet_dvc import quiet_dvc

    with one_line_errors(debug=debug):
        go_to_top()
        load_params()
        with quiet_dvc("codex-ml accept-code") as repo:
            done = accept_edits(repo)
        for edit in done.edits:
            say(f"{edit.path}: only comments, docstrings or layout differ from the file that ran")
        if done.stages:
            say(f"accept-code: dvc.lock has the new hashes for {', '.join(done.stages)}; no stage ran")
            say("next: git add dvc.lock")
        else:
            say("accept-code: nothing to accept, the code is the one that dvc.lock records")
