"""`codex-ml init`: write a params.yaml for a common task."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from codex_ml.cli.options import Debug
from codex_ml.cli.output import say
from codex_ml.core.errors import UserError, one_line_errors
from codex_ml.core.repository_root import go_to_top

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"  # beside src in the checkout that runs
RECIPES = {
    "pretrain": "a model from scratch, on your own code or text",
    "continue": "all weights of a model on disk, on your own code or text",
    "sft": "all weights of a model on disk, on prompts and completions",
    "lora": "adapters of a model on disk, on prompts and completions",
    "evaluate": "measure a model that was trained elsewhere",
    "audit": "audit a model that was trained elsewhere",
}


def _completed(incomplete: str) -> list[tuple[str, str]]:
    return [(name, what) for name, what in RECIPES.items() if name.startswith(incomplete)]


def init(
    recipe: Annotated[str, typer.Argument(help=", ".join(RECIPES), autocompletion=_completed)],
    out: Annotated[str, typer.Option(metavar="FILE", help="Where to write it.")] = "params.yaml",
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    debug: Debug = False,
) -> None:
    """Write a params.yaml for a common task: one of the files in the folder examples.

    pretrain: a model from scratch. continue: continued training of a model on disk. sft, lora: fine-tuning on prompts
    and completions, of all weights or of adapters. evaluate, audit: measure a model that was trained elsewhere.

    $ codex-ml init lora --force && codex-ml check
    """
    from codex_ml.cli.param_rules import validate_params
    from codex_ml.cli.result_target import refuse_tool_folder
    from codex_ml.core.io import write_text
    from codex_ml.core.yaml import parse_yaml, read_text

    with one_line_errors(debug=debug):
        here = go_to_top()
        if recipe not in RECIPES:
            raise UserError(f"there is no recipe {recipe!r}; there are: {', '.join(RECIPES)}")
        target = here / out
        refuse_tool_folder(target)
        if target.is_dir() or not target.parent.is_dir():
            raise UserError(f"--out {out}: expected the name of a file in a folder that exists")
        if target.exists() and not force:
            raise UserError(f"{out} exists; --force replaces it, and --out FILE writes another file")
        text = read_text(EXAMPLES / f"{recipe}.yaml")
        validate_params(parse_yaml(text, f"{recipe}.yaml"), text=text, name=f"examples/{recipe}.yaml")
        write_text(target, text)
        say(f"init: {out}: {RECIPES[recipe]}; its first lines say what to do next:")
        for line in text.splitlines():
            if not line.startswith("#"):
                break
            say(f"  {line.removeprefix('#').strip()}")
