"""`codex-ml policy`: the text policy from the command line."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from codex_ml.cli.options import Debug, Json, print_json
from codex_ml.cli.output import say, say_text
from codex_ml.core.errors import UserError, one_line_errors
from codex_ml.core.repository_root import go_to_top

app = typer.Typer(no_args_is_help=True, help="The text policy: data/policy.yaml and the key of its placeholders.")


@app.command("new-key")
def new_key(debug: Debug = False) -> None:
    """Make a private key for redacted values in data/redaction_key, tracked by DVC and not by Git.

    The key that comes with the repository is public: anyone who guesses a redacted value can confirm the guess with it.
    Make a private key before you read your own data. All placeholders change with the key.

    Example: codex-ml policy new-key
    """
    from codex_ml.policy.key import KEY, make_private_key

    with one_line_errors(debug=debug):
        go_to_top()
        make_private_key()
        say_text(
            f"policy: {KEY} is private now; Git ignores it and DVC tracks it. Next:\n"
            f"  git add {KEY}.dvc data/.gitignore && git commit -m 'Use a private redaction key'\n"
            "  dvc push    # where you have a remote: gives the key to those who may read the raw data"
        )


@app.command("try")
def try_text(
    output: Annotated[bool, typer.Option("--output", help="Screen the text as an answer, not as a prompt.")] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Screen the text on stdin as the filter does at run time: print the decision, the findings and the text.

    The decision is `allow`, `redact` or `refuse`; the sections `filters` and `rules` of data/policy.yaml decide. Of a
    text that is refused nothing is printed. A finding names its rule and its place, never the value.

    $ codex-ml policy try < prompt.txt
    """
    from codex_ml.core.plugin_lock import lock_path
    from codex_ml.policy.filters import MAX_CHARACTERS, load_filter
    from codex_ml.policy.key import KEY
    from codex_ml.policy.rules import POLICY

    with one_line_errors(debug=debug):
        go_to_top()
        screen = load_filter(POLICY, lock_path("detectors"), KEY)
        data = sys.stdin.buffer.read(4 * MAX_CHARACTERS + 1)
        if len(data) > 4 * MAX_CHARACTERS:
            raise UserError(f"stdin holds more than {4 * MAX_CHARACTERS} bytes; give a shorter text")
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"stdin is not UTF-8 (byte {error.start}); convert it first") from None
        found = screen.screen_output(text) if output else screen.screen_input(text)
        if json:
            print_json(asdict(found))
            return
        say(f"policy: {found.decision}" + (f": {found.why}" if found.why else ""))
        for finding in found.findings:
            say(f"{finding.line}:{finding.column}  {finding.rule}  {finding.severity}  {finding.action}")
        if found.decision != "refuse":
            say()
            say_text(found.text, nl=not found.text.endswith("\n"))
