"""What params.yaml may not hold, because Git, dvc.lock, records, reports and trackers repeat it: secrets and `${...}`.

`dvc exp run -S` writes the file anew and replaces `${oc.env:NAME}` by the value of a variable of the shell. Personal
data, such as the address of an author or of a tracker's machine, is allowed: only rules of kind `secret` count.
Used by: `codex-ml check`, and each stage at its start.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from codex_ml.cli.history.git_commands import git_text
from codex_ml.core.errors import UserError
from codex_ml.core.message_cleaner import POLICY, load_cleaner, secret_in
from codex_ml.core.problems import dotted
from codex_ml.core.sections import PARAMS
from codex_ml.core.yaml import line_of, parse_yaml, read_text

LINE_ENDS = "\x85\u2028\u2029"
SHORTEST = 8  # characters of a variable's value that is looked for
EXPERIMENT = "DVC_EXP_NAME"  # set by DVC; a name is in Git, logs and trackers
Place = tuple[str | int, ...]


def refuse_texts(path: Path = PARAMS) -> None:
    """Refuse a parameters file that holds `${`, the value of a variable, or a secret by the rules of the policy.

    Values, keys and comments are read.

    Raises:
        UserError: naming line, key and rule, and never the value; also when the policy cannot be used.
    """
    text = read_text(path)
    found = list(_texts(parse_yaml(text, str(path))))
    for place, value in found:
        if "${" in value:
            raise UserError(
                f"{path}:{line_of(text, place)}: {dotted(place)} holds ${{...}}: `dvc exp run -S` replaces it by the "
                "value of a variable and writes that into Git; write the value itself"
            )
        if any(end in value for end in LINE_ENDS):
            raise UserError(
                f"{path}:{line_of(text, place)}: {dotted(place)} holds an invisible end of line (U+0085, U+2028 or "
                "U+2029), which DVC would write into dvc.lock in a form that no command reads; remove it"
            )
    _refuse_values_of_the_shell(path, text, found)
    if Path(POLICY).exists():  # a workspace without the stages that read it has none
        load_cleaner()
    if rule := secret_in(os.environ.get(EXPERIMENT, "")):
        raise UserError(
            f"the name of the experiment holds {_forbidden(rule)}; it is in Git and in logs, so choose another name "
            "with `dvc exp run --name`"
        )
    if not secret_in(text) and not secret_in("\n".join(value for _, value in found)):
        return  # one scan of all takes less time than one of each
    remove = "it goes into Git, so remove it (and revoke a key that was in use)"
    for place, value in found:
        if rule := secret_in(value):
            raise UserError(f"{path}:{line_of(text, place)}: {_named(place)} holds {_forbidden(rule)}; {remove}")
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        if rule := secret_in(line):
            raise UserError(f"{path}:{number}: the line holds {_forbidden(rule)}; {remove}")
    for number in range(1, len(lines) + 1):  # what several lines hold, such as a private key in a comment
        if rule := secret_in("\n".join(lines[:number])):
            raise UserError(f"{path}:{number}: the lines up to this one hold {_forbidden(rule)}; {remove}")


def _refuse_values_of_the_shell(path: Path, text: str, found: list[tuple[Place, str]]) -> None:
    """Refuse what `dvc exp run -S` has written in the place of `${oc.env:NAME}`, before any code of ours could run.

    A value is a secret if the policy finds it after the name of one, so the name of a run may stand in the file.
    """
    why = "as `dvc exp run -S` writes it in the place of ${...}; it goes into Git, so write another value"
    for name, value in sorted(os.environ.items()):
        is_home = name == "HOME" and len(value) > 1  # it names the user; other paths are the user's own text
        for place, own in found if len(value) >= SHORTEST or is_home else ():
            is_held = own == value if is_home else value in own and secret_in(f"{name}={value}\nTOKEN={value}") != ""
            if is_held and not name.startswith("DVC_"):
                raise UserError(f"{path}:{line_of(text, place)}: {dotted(place)} holds the value of {name}, {why}")
    if EXPERIMENT in os.environ and "${" in git_text("show", f"HEAD:./{path}"):
        raise UserError(
            f"{path}: the committed file holds ${{...}}, and `dvc exp run -S` has put the value of a variable there; "
            "write a value, commit it, and start the experiment again"
        )


def _forbidden(rule: str) -> str:
    return f"a value that the rule {rule} of data/policy.yaml forbids"


def _named(place: Place) -> str:
    """The key of a text, up to the first part that holds a secret."""
    for number, key in enumerate(place):
        if secret_in(str(key)):
            return f"a key of {dotted(place[:number])}" if number else "a key"
    return dotted(place)


def _texts(value: Any, place: Place = ()) -> Iterator[tuple[Place, str]]:
    """Each text of a parsed file, keys included, with its place."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*place, str(key)), str(key)
            yield from _texts(inner, (*place, str(key)))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _texts(inner, (*place, number))
    elif value is not None and not isinstance(value, bool):
        yield place, str(value)
