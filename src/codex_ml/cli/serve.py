"""`codex-ml serve`: a model behind HTTP in OpenAI's format, with the text policy before and after it."""

from __future__ import annotations

from typing import Annotated

import typer

from codex_ml.cli.options import Debug
from codex_ml.cli.output import say
from codex_ml.core.errors import UserError, one_line_errors
from codex_ml.core.repository_root import go_to_top

app = typer.Typer()


@app.command()
def serve(
    model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="A folder of a model, or a GGUF file; default: models/model.")
    ] = None,
    upstream: Annotated[
        str | None, typer.Option(metavar="URL", help="Filter this endpoint instead, such as http://127.0.0.1:8080.")
    ] = None,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free one.")] = 8000,
    token_file: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="File of the token that clients must send; or set CODEX_ML_TOKEN."),
    ] = None,
    upstream_token_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="File of the token that is sent to --upstream.")
    ] = None,
    max_batch: Annotated[int, typer.Option(min=1, max=1024, help="Texts that are written at once.")] = 32,
    max_queue: Annotated[int, typer.Option(min=0, max=65536, help="Further texts that wait.")] = 256,
    threads: Annotated[
        int, typer.Option(min=0, max=1024, help="CPU threads of the model; 0: as in training, or all cores.")
    ] = 0,
    timeout: Annotated[float, typer.Option(min=1, max=86400, help="Seconds for one request.")] = 120,
    max_body: Annotated[int, typer.Option(min=1024, max=1 << 30, help="Bytes of one request.")] = 1 << 20,
    policy: Annotated[
        bool, typer.Option("--policy/--no-policy", help="Apply data/policy.yaml to prompts and answers.")
    ] = True,
    debug: Debug = False,
) -> None:
    """Serve a model: /v1/completions, /v1/chat/completions, /v1/models, /health and /metrics, as OpenAI's clients ask.

    Prompts and answers pass the text policy in this process: nothing that it redacts leaves. The model's name is its
    digest. Requests are written together and do not change each other's text. A token is required where other machines
    can reach the address. SIGTERM and Ctrl-C finish what runs. Exit codes: 0 stopped, 1 cut off, 2 your input is wrong.

    Example: codex-ml serve --port 8000, then: curl http://127.0.0.1:8000/v1/completions
    -H 'Content-Type: application/json' -d '{"prompt": "def ", "max_tokens": 32, "seed": 1}'
    """
    from codex_ml.cli.serving import Options, serve_until_stopped

    with one_line_errors(debug=debug):
        here = go_to_top()
        if model is not None and upstream is not None:
            raise UserError("--model and --upstream are two ways to answer; give one of them")
        options = Options(
            model=here / model if model is not None else None,
            upstream=upstream,
            host=host,
            port=port,
            token_file=None if token_file is None else here / token_file,
            upstream_token_file=None if upstream_token_file is None else here / upstream_token_file,
            max_batch=max_batch,
            max_queue=max_queue,
            threads=threads,
            timeout=timeout,
            max_body=max_body,
            policy=policy,
        )
        serve_until_stopped(options, say=_say)


def _say(line: str) -> None:
    say(line, err=True)
