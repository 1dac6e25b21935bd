"""`codex-ml generate`: let a model write, with its prompt and its text screened by the policy."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from codex_ml.cli.measure_options import naming_options
from codex_ml.cli.options import Debug, Json, print_json
from codex_ml.cli.output import say, say_text
from codex_ml.cli.scratch_folder import scratch_folder
from codex_ml.core.bounds import MOST_TOKENS
from codex_ml.core.errors import CheckFailed, UserError, one_line_errors
from codex_ml.core.repository_root import go_to_top

if TYPE_CHECKING:
    from codex_ml.cli.generated_text import GeneratedAnswer, GenerateReport, Said
    from codex_ml.cli.model_and_data import ModelChoice
    from codex_ml.cli.text_session import TextSession
    from codex_ml.cli.unchanged_files import UnchangedFiles
    from codex_ml.inference.generation import Prompt

OFF = "WARNING: the text policy is off (--no-policy): neither the prompt nor what the model writes is screened"

OPTIONS = {name: f"--{name.replace('_', '-')}" for name in ("max_tokens", "temperature", "top_p", "top_k")}
OPTIONS["model.path"] = "--model"

app = typer.Typer()


@app.command()
def generate(
    prompt: Annotated[
        str | None, typer.Argument(help="The text to continue, or with --chat the first message.")
    ] = None,
    model: Annotated[
        str, typer.Option(metavar="MODEL", help="A folder of a model or an adapter, or a GGUF file.")
    ] = "models/model",
    base: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Of an adapter: its base model; default: the one it names.")
    ] = None,
    file: Annotated[str | None, typer.Option(metavar="FILE", help="Read the prompt from a file.")] = None,
    chat: Annotated[
        bool, typer.Option("--chat", help="Talk through the chat template: one line of standard input per message.")
    ] = False,
    stream: Annotated[
        bool | None, typer.Option("--stream/--no-stream", help="Show text as it is written; default: on a terminal.")
    ] = None,
    n: Annotated[int, typer.Option(min=1, max=1024, help="Number of texts.")] = 1,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="The same seed gives the same text.")] = 0,
    temperature: Annotated[float, typer.Option(help="0: always the most probable token.")] = 0.8,
    top_p: Annotated[float, typer.Option(help="Draw from the most probable tokens that reach this share.")] = 0.95,
    top_k: Annotated[int, typer.Option(max=MOST_TOKENS, help="Draw from the k most probable tokens; 0: all.")] = 0,
    max_tokens: Annotated[
        int | None,
        typer.Option(max=MOST_TOKENS, help="Most tokens of a text; default 256, or as many as the model sees."),
    ] = None,
    stop: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="End the text before TEXT; repeatable.")
    ] = None,
    no_policy: Annotated[bool, typer.Option("--no-policy", help="Screen neither prompt nor text.")] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Continue a prompt with a trained model, or talk with it.

    The prompt is the argument, --file, or standard input, exactly as it is. Prompt and text pass the policy of
    data/policy.yaml: a value is replaced by a placeholder, and what it refuses is not written. The text is on standard
    output, and everything else on standard error. Exit codes: 0 success, 1 the policy refused, 2 your input is wrong,
    130 Ctrl-C.

    Example: codex-ml generate "def add(a, b):" --max-tokens 40 --seed 7
    """
    with one_line_errors(debug=debug):
        from codex_ml.cli.text_session import model_choice, open_session
        from codex_ml.inference.sampling import Sampling

        here = go_to_top()
        with naming_options(OPTIONS):
            sampling = Sampling(max_tokens or 1, temperature, top_k, top_p, stop=tuple(stop or ()))
        if max_tokens is not None and max_tokens < 1:
            raise UserError(f"--max-tokens {max_tokens}: at least 1 token must be written")
        _refuse_contradictions(n=n, stream=stream, json=json, chat=chat, prompt=prompt, file=file)
        text = _prompt(prompt, here / file if file else None, chat=chat)
        if no_policy:
            _say(OFF)
        with scratch_folder() as scratch, naming_options(OPTIONS):
            choice = model_choice(here / model, None if base is None else here / base)
            used = _used(choice)
            session = open_session(choice, sampling, max_tokens, scratch, policy=not no_policy, say=_say)
            if chat:
                from codex_ml.cli.conversation import converse

                converse(session, text, seed=seed, show=_show, say=_say)
                return
            text, decision = session.screened(text)
            asked = session.continued(text)
            if json:
                report = _report(session, (model, used), (asked, text, decision), seed=seed, n=n)
                print_json(report.model_dump(mode="json"))
                answers = report.answers
            else:
                answers = _printed(session, asked, text, seed=seed, n=n, stream=stream)
        _refuse_refused(answers)


def _refuse_contradictions(
    *, n: int, stream: bool | None, json: bool, chat: bool, prompt: str | None, file: str | None
) -> None:
    if prompt is not None and file is not None:
        raise UserError("the prompt is given twice, as an argument and with --file; leave one of them out")
    if stream and n > 1:
        raise UserError(f"--stream shows one text as it is written, and --n asks for {n}; leave one of them out")
    if stream and json:
        raise UserError("--stream shows the text as it is written, and --json prints one object; leave one of them out")
    if chat and (json or n > 1 or stream is False):
        other = "--json" if json else "--n" if n > 1 else "--no-stream"
        raise UserError(f"--chat is a conversation, one answer after the other as it is written; leave {other} out")


def _prompt(prompt: str | None, file: Path | None, *, chat: bool) -> str:
    """The prompt from where the user gives it; "" for a conversation that begins on standard input."""
    from codex_ml.cli.prompt_text import read_prompt

    if prompt is None and file is None and chat:
        return ""
    if prompt is None and file is None and sys.stdin.isatty():
        raise UserError(
            'there is no prompt; write it after the command, or use --file or a pipe: `codex-ml generate "def "`'
        )
    text = prompt if prompt is not None else read_prompt(file)
    if not text:
        raise UserError("the prompt is empty; give at least one character")
    return text


def _printed(
    session: TextSession, asked: Prompt, text: str, *, seed: int, n: int, stream: bool | None
) -> list[GeneratedAnswer]:
    """Write the texts to standard output, and how fast they were written to standard error."""
    if n == 1 and (sys.stdout.isatty() if stream is None else stream):
        try:
            answers = [session.write(asked, text, seed=seed, show=_show)]
        finally:
            say()  # also after Ctrl-C, so that the error has a line of its own
    else:
        answers = []
        for answer in session.write_all(asked, text, seed=seed, count=n):
            answers.append(answer)
            if n > 1:
                _say(f"--- {answer.sample + 1} of {n}")
            if answer.decision != "refuse":
                say_text(answer.text)
    _say(session.speed.words)
    return answers


def _used(choice: ModelChoice) -> dict[str, UnchangedFiles]:
    """What decides the text, before it is loaded."""
    from codex_ml.cli.unchanged_files import UnchangedFiles
    from codex_ml.policy.rules import POLICY

    paths = {"model": choice.path, "base": choice.base, "policy": POLICY}
    return {name: UnchangedFiles(path) for name, path in paths.items() if path is not None}


def _report(
    session: TextSession,
    model: tuple[str, dict[str, UnchangedFiles]],
    asked: tuple[Prompt, str, Said],
    *,
    seed: int,
    n: int,
) -> GenerateReport:
    from codex_ml.cli.generated_text import GeneratedSampling, GenerateReport, ScreenedPrompt

    (prompt, text, decision), (named, files) = asked, model
    answers = list(session.write_all(prompt, text, seed=seed, count=n))
    used = session.sampling
    return GenerateReport(
        model=named,
        model_sha256=files["model"].digest(),
        base_sha256=files["base"].digest() if "base" in files else None,
        policy_sha256=None if decision == "not screened" else files["policy"].digest(),
        seed=seed,
        sampling=GeneratedSampling(
            temperature=used.temperature,
            top_p=used.top_p,
            top_k=used.top_k,
            max_tokens=used.max_tokens,
            stop=list(used.stop),
        ),
        prompt=ScreenedPrompt(decision=decision, tokens=len(prompt.ids)),
        answers=answers,
        seconds_to_first_token=session.speed.to_first,
        tokens_per_second=session.speed.per_second,
    )


def _refuse_refused(answers: list[GeneratedAnswer]) -> None:
    refused = sum(answer.decision == "refuse" for answer in answers)
    if refused:
        raise CheckFailed(f"the policy refuses {refused} of {len(answers)} answers")


def _show(text: str) -> bool:
    """Write text of the model at once; returns whether standard output is still read."""
    say_text(text, nl=False)
    sys.stdout.flush()
    return bool(getattr(sys.stdout, "is_read", True))


def _say(line: str) -> None:
    say(line, err=True)
