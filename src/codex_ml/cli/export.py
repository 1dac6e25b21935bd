"""`codex-ml export`: a model or a tokenizer for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from codex_ml.cli.options import Debug, Json, print_json
from codex_ml.cli.output import say
from codex_ml.core.errors import UserError, one_line_errors
from codex_ml.core.repository_root import from_top

if TYPE_CHECKING:
    from codex_ml.core.contract import Contract

MODEL, TOKENIZER = Path("models/model"), Path("models/tokenizer")
app = typer.Typer(
    no_args_is_help=True,
    help="Write a model or a tokenizer for other tools: a GGUF file, or a folder of the merged model, the adapter or "
    "the tokenizer.\n\nNothing that exists is replaced. docs/export.md says what each format holds.",
)
Model = Annotated[
    Path | None, typer.Option("--model", metavar="DIR", show_default=str(MODEL), help="A model's folder.")
]
NewFolder = Annotated[Path, typer.Option("--out", metavar="DIR", help="A folder that does not exist yet.")]


@app.command()
def gguf(
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="A file that does not exist yet.")],
    model: Model = None,
    half: Annotated[bool, typer.Option("--f16", help="Matrices in float16: half the size, rounded.")] = False,
    tokenizer: Annotated[bool, typer.Option("--tokenizer/--no-tokenizer", help="Include the tokenizer.")] = True,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write one GGUF file, which llama.cpp and the programs built on it read.

    For llama, mistral, qwen2, qwen3 and gpt2, with the tokenizer kind byte_bpe. In float32 the weights are those of the
    model, bit by bit. Needs the extra `gguf`.

    Example: codex-ml export gguf --out model.gguf
    """
    from codex_ml.cli.gguf_export import write_gguf
    from codex_ml.cli.scratch_folder import scratch_folder

    with one_line_errors(debug=debug), scratch_folder() as scratch:
        _refuse_places(model, out)
        made = write_gguf(model or from_top(MODEL), out, half=half, tokenizer=tokenizer, scratch=scratch)
        tokens = f"{made.tokens} tokens" if tokenizer else "no tokenizer"
        _say(made, f"{out}: {made.architecture}, {made.tensors} tensors, {tokens}", json)


@app.command()
def merged(out: NewFolder, model: Model = None, json: Json = False, debug: Debug = False) -> None:
    """Write the model alone, in the Hugging Face layout: config.json, safetensors, tokenizer.

    `AutoModelForCausalLM.from_pretrained` reads it. A LoRA adapter is merged into the weights. What belongs to this
    repository (training.json, the folder adapter) is left out.

    Example: codex-ml export merged --out /srv/models/mine
    """
    from codex_ml.cli.model_export import export_merged

    with one_line_errors(debug=debug):
        _refuse_places(model, out)
        _say_folder(out, export_merged(model or from_top(MODEL), out), json)


@app.command()
def adapter(out: NewFolder, model: Model = None, json: Json = False, debug: Debug = False) -> None:
    """Write the LoRA adapter alone, in the layout of peft, with the tokenizer it was trained with.

    `PeftModel.from_pretrained(base, DIR)` adds it to the base model, which `adapter_config.json` names.

    Example: codex-ml export adapter --out /srv/adapters/mine
    """
    from codex_ml.cli.model_export import export_adapter

    with one_line_errors(debug=debug):
        _refuse_places(model, out)
        _say_folder(out, export_adapter(model or from_top(MODEL), out), json)


@app.command()
def tokenizer(
    out: NewFolder,
    source: Annotated[
        Path | None, typer.Option("--tokenizer", "-t", help="The tokenizer's folder.", show_default=str(TOKENIZER))
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write the tokenizer in the Hugging Face layout (`AutoTokenizer.from_pretrained` reads it).

    SentencePiece kinds keep their tokenizer.model, BPE kinds get vocab.json and merges.txt.

    Example: codex-ml export tokenizer --out /srv/tokenizers/mine
    """
    from codex_ml.cli.tokenizer_export import export_tokenizer

    with one_line_errors(debug=debug):
        _refuse_places(source, out)
        _say_folder(out, export_tokenizer(source or from_top(TOKENIZER), out), json)


def _refuse_places(source: Path | None, out: Path) -> None:
    """Refuse a source that was named and is not a folder, and a target in the folder of DVC or Git."""
    from codex_ml.cli.result_target import refuse_tool_folder

    refuse_tool_folder(out)
    if source is not None and not source.is_dir():
        raise UserError(f"{source} is not a folder; name the folder of a model or a tokenizer")


def _say_folder(out: Path, files: list[str], json: bool) -> None:
    from codex_ml.cli.model_export import ExportedFolder

    _say(ExportedFolder(folder=str(out), files=files), f"{out}: {', '.join(files)}", json)


def _say(made: Contract, line: str, json: bool) -> None:
    if json:
        print_json(made.model_dump(mode="json"))
    else:
        say(line)
