"""Options of the commands that measure a model: `codex-ml evaluate` and `codex-ml compare`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated

import typer

from codex_ml.cli.completion import evaluate_keys
from codex_ml.core.bounds import MOST_TOKENS
from codex_ml.core.errors import UserError

Kind = Annotated[
    str | None,
    typer.Option(metavar="KIND", help="Kind of the documents, as in ingest.sources; else from the name of the file."),
]
Window = Annotated[
    int | None,
    typer.Option(min=2, max=MOST_TOKENS, metavar="TOKENS", help="Tokens per window; else as the model was trained."),
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set-param", "-S", metavar="KEY=VALUE", help="A key of evaluate: stride=128.", autocompletion=evaluate_keys
    ),
]
Benchmarks = Annotated[
    list[str] | None, typer.Option(metavar="FILE", help="Programming tasks, in HumanEval's or MBPP's format.")
]


def options_of_keys(changes: Sequence[str] | None) -> dict[str, str]:
    """The option for each key of params.yaml that the command line sets.

    >>> options_of_keys(["stride=8"])
    {'evaluate.benchmarks': '--benchmark', 'evaluate.stride': '-S stride'}
    """
    keys = [change.partition("=")[0].removeprefix("evaluate.") for change in changes or ()]
    return {"evaluate.benchmarks": "--benchmark"} | {f"evaluate.{key}": f"-S {key}" for key in keys}


@contextmanager
def naming_options(options: Mapping[str, str]) -> Iterator[None]:
    """Let the message of a UserError name options of the command line instead of the keys of params.yaml.

    The code that raises it runs in a stage too, where the key is what the user wrote.

    Args:
        options: key -> option.
    """
    try:
        yield
    except UserError as error:
        keys = "|".join(map(re.escape, options))
        said = re.sub(rf"\b({keys})(?!\w|\.\w)", lambda match: options[match[1]], str(error))
        raise UserError(said) from error
