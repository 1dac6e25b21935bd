"""Options of the commands that measure a model: `codex-ml evaluate` and `codex-ml compare`."""

from __future__ import annotations

from typing import Annotated

import typer

Kind = Annotated[
    str | None,
    typer.Option(metavar="KIND", help="Kind of the documents, as in ingest.sources; else from the name of the file."),
]
Window = Annotated[
    int | None, typer.Option(min=2, metavar="TOKENS", help="Tokens per window; else as the model was trained.")
]
Changes = Annotated[
    list[str] | None, typer.Option("--set-param", "-S", metavar="KEY=VALUE", help="A key of evaluate: stride=128.")
]
Benchmarks = Annotated[
    list[str] | None, typer.Option(metavar="FILE", help="Programming tasks, in HumanEval's or MBPP's format.")
]
