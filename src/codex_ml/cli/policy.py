"""`codex-ml policy`: the text policy from the command line."""

from __future__ import annotations

import typer

from codex_ml.cli.options import Debug
from codex_ml.core.errors import one_line_errors
from codex_ml.core.repository_root import go_to_top

app = typer.Typer(no_args_is_help=True, help="The text policy: data/policy.yaml and the key of its placeholders.")


@app.command("new-key")
def new_key(debug: Debug = False) -> None:
    """Make a private key for redacted values in data/redaction_key, tracked by DVC and not by Git.

    The key that comes with the repository is public: anyone who guesses a redacted value can confirm the guess with it.
    Make a private key before you read your own data. All placeholders change with the key.
    """
    from codex_ml.policy.key import KEY, make_private_key

    with one_line_errors(debug=debug):
        go_to_top()
        make_private_key()
        typer.echo(
            f"policy: {KEY} is private now; Git ignores it and DVC tracks it. Next:\n"
            f"  git add {KEY}.dvc data/.gitignore && git commit -m 'Use a private redaction key'\n"
            "  dvc push    # where you have a remote: gives the key to those who may read the raw data"
        )


@app.command("lock-detectors")
def lock_detectors(
    debug: Debug = False,
) -> None:
    """Write data/detectors.lock: name, version and hash of the code of each detector that data/policy.yaml names.

    `split` and `safety_audit` depend on that file, and refuse to run if the code of a detector differs from it.
    """
    from codex_ml.policy.detectors_lock import DETECTORS, write_lock
    from codex_ml.policy.rules import load_policy

    with one_line_errors(debug=debug):
        go_to_top()
        for entry in (entries := write_lock(load_policy().detectors)):
            typer.echo(f"policy: {entry['name']}: {entry['distribution']} {entry['version']}, {entry['object']}")
        typer.echo(f"policy: {DETECTORS} holds {len(entries)} detectors; commit it, then `dvc repro`")
