"""`codex-ml ledger`: what keeps its split, and how it changes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from codex_ml.errors import one_line_errors
from codex_ml.top import go_to_top

if TYPE_CHECKING:
    from codex_ml.data.ledger_files import Written

app = typer.Typer(no_args_is_help=True, help="The split ledger, data/split_ledger: what it lists keeps its split.")
Debug = Annotated[bool, typer.Option("--debug", help="Print the traceback of an error.")]
FORMER = Path("data/split_ledger.ndjson")


@app.command()
def accept(debug: Debug = False) -> None:
    """Make the last split binding: unite the ledger with data/splits/new_ledger.txt.

    From then on no document of it moves, whatever is added. Below 100,000 lines the ledger is one file, which Git keeps
    and merges; from there on it is a folder of DVC. The command prints what to run next.
    """
    from codex_ml.data.ledger import FOLDER, NEW
    from codex_ml.data.ledger_files import accept

    with one_line_errors(debug=debug):
        go_to_top()
        _report(accept(NEW, FOLDER))


@app.command()
def convert(debug: Debug = False) -> None:
    """Rewrite a ledger of the former form, data/split_ledger.ndjson, as the folder data/split_ledger.

    No document moves. The former file is removed when the folder is complete.
    """
    from codex_ml.data.ledger import FOLDER
    from codex_ml.data.ledger_files import convert

    with one_line_errors(debug=debug):
        go_to_top()
        _report(convert(FORMER, FOLDER))


def _report(written: Written) -> None:
    from codex_ml.data.ledger import FOLDER

    typer.echo(f"ledger: {written.added} new lines; {FOLDER} holds {written.lines}")
    for number, step in enumerate(written.next_steps):
        typer.echo(f"{'next:' if not number else '     '} {step}")
