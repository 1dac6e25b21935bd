"""`codex-ml policy`: the text policy from the command line."""

from __future__ import annotations

from typing import Annotated

import typer

from codex_ml.errors import one_line_errors
from codex_ml.top import go_to_top

app = typer.Typer(no_args_is_help=True, help="The text policy: data/policy.yaml and the key of its placeholders.")


@app.callback()
def _group() -> None:
    """Keep `new-key` a command of its own: Typer makes the only command of an app the app itself."""


@app.command("new-key")
def new_key(debug: Annotated[bool, typer.Option("--debug", help="Print the traceback of an error.")] = False) -> None:
    """Make a private key for redacted values in data/redaction_key, tracked by DVC and not by Git.

    The key that comes with the repository is public: with it, anyone who guesses a redacted value can confirm the
    guess. Make a private one before you read your own data. All placeholders change with it.
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
