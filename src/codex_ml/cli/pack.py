"""`codex-ml pack`: look into the packed token stream."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from codex_ml.cli.options import Debug, print_json
from codex_ml.cli.output import say
from codex_ml.core.bounds import MOST_RECORDS, MOST_STEPS
from codex_ml.core.errors import UserError, one_line_errors
from codex_ml.core.repository_root import go_to_top

if TYPE_CHECKING:
    from codex_ml.cli.pack_step import Piece, Row

app = typer.Typer(no_args_is_help=True, help="The packed token stream: what each optimizer step sees.")
TOKENIZER = Path("models/tokenizer")


@app.callback()
def _group() -> None:
    """Keep `show` a command of its own: Typer makes the only command of an app the app itself."""


@app.command()
def show(
    step: Annotated[int | None, typer.Option(max=MOST_STEPS, help="Optimizer step, from 1 as in the curves.")] = None,
    row: Annotated[
        int | None,
        typer.Option(max=MOST_RECORDS, help="Row of the train stream, from 0; without --step, any row."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, one row per line.")] = False,
    debug: Debug = False,
) -> None:
    """Print what an optimizer step sees: its rows, their documents, and which tokens are trained.

    Each piece of a document starts with a line that names the document. Below it, `trained` marks the tokens that the
    model learns to predict, and `context` those that it only reads. The rows of a step depend on
    train.micro_batch_size, train.accumulation and seed in params.yaml.

    Example: codex-ml pack show --step 100
    """
    from dataclasses import asdict

    from codex_ml.cli.pack_step import describe, numbers_of_step, open_train
    from codex_ml.cli.param_rules import load_params
    from codex_ml.tokens.text_tokenizer import load_tokenizer

    with one_line_errors(debug=debug):
        go_to_top()
        if step is None and row is None:
            raise UserError("give --step N, --row R, or both: they choose what is shown")
        rows, origins = open_train()
        numbers = [row] if row is not None else []
        if step is not None:
            seen = numbers_of_step(rows, load_params(), step)
            if row is not None and row not in seen:
                raise UserError(f"step {step} does not see row {row}; it sees {', '.join(map(str, seen))}")
            numbers = numbers or seen
        tokenizer = load_tokenizer(TOKENIZER)
        for number in numbers:
            found = describe(rows, number, tokenizer, origins)
            if json:
                print_json(asdict(found), indent=None)
                continue
            for line in _lines(found, rows.seq_len):
                say(line)


def _lines(row: Row, seq_len: int) -> Iterator[str]:
    count = len(row.pieces)
    pieces = f"{count} piece{'s' * (count != 1)}"
    yield f"row {row.row}: {pieces}, {row.used} of {seq_len} places, {row.trained} targets trained"
    for number, piece in enumerate(row.pieces, start=1):
        yield f"  piece {number}: {_name(piece)}, {piece.targets} targets from token {piece.begin} on"
        for run in piece.runs:
            head = "trained" if run.trained else "context"
            for line in run.text.split("\n"):
                yield f"    {head:<7} | {line}"
                head = ""


def _name(piece: Piece) -> str:
    """One line, even if the path holds newlines: a path is data."""
    where = " ".join(part for part in (piece.source, piece.path, piece.id) if part)
    return f"document {piece.document} ({where})".replace("\n", "\\n").replace("\t", "\\t")
