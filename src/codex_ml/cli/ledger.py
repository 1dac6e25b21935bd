"""`codex-ml ledger`: show and change the split ledger, whose documents keep their split."""

from __future__ import annotations

from base64 import urlsafe_b64decode
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from codex_ml.cli.options import Debug, Json, print_json
from codex_ml.cli.output import say
from codex_ml.core.errors import UserError, one_line_errors
from codex_ml.core.paths import FORGOTTEN, FORMER_LEDGER, SPLIT_LEDGER
from codex_ml.core.repository_root import go_to_top

if TYPE_CHECKING:
    from codex_ml.split.ledger.answers import Ledger
    from codex_ml.split.ledger.edits import LedgerChange

app = typer.Typer(no_args_is_help=True, help="The split ledger, data/split_ledger: a document in it keeps its split.")
CORPUS = Path("data/corpus/documents.parquet")


@app.command()
def accept(debug: Debug = False) -> None:
    """Make the last split permanent: add data/splits/new_ledger.txt to the ledger.

    After that its documents keep their split, whatever documents you add. A ledger below 100,000 lines is one file,
    which Git keeps and merges; DVC keeps a larger ledger as a folder. The command prints what to run next.

    Example: codex-ml ledger accept && git add data/split_ledger
    """
    from codex_ml.split.ledger.edits import accept_new_lines
    from codex_ml.split.ledger.folder import NEW

    with one_line_errors(debug=debug):
        go_to_top()
        _report(accept_new_lines(NEW, SPLIT_LEDGER), "dvc repro")  # dvc.lock then names this ledger


@app.command()
def convert(debug: Debug = False) -> None:
    """Convert a ledger in the old format, data/split_ledger.ndjson, to the folder data/split_ledger.

    All documents keep their split. The old file is removed when the folder is complete.

    Example: codex-ml ledger convert
    """
    from codex_ml.split.ledger.edits import convert_former

    with one_line_errors(debug=debug):
        go_to_top()
        _report(convert_former(FORMER_LEDGER, SPLIT_LEDGER))


@app.command()
def show(json: Json = False, debug: Debug = False) -> None:
    """Print the counts of the ledger: lines, contents per split, units, forgotten contents, and contradictions.

    Example: codex-ml ledger show --json
    """
    from dataclasses import asdict

    from codex_ml.cli.ledger_counts import ledger_counts

    with one_line_errors(debug=debug):
        go_to_top()
        counts = asdict(ledger_counts(_ledger()))
        if json:
            print_json(counts)
            return
        for name, value in counts.items():
            shown = ", ".join(f"{key} {count}" for key, count in value.items()) if isinstance(value, dict) else value
            say(f"{name:<14} {shown}")


@app.command()
def forget(
    reason: Annotated[str, typer.Option(help="The reason, in one line; it is stored with the content.")],
    names: Annotated[
        list[str] | None, typer.Argument(help="Ids, paths or contents (the first 16 characters of a line).")
    ] = None,
    gone: Annotated[bool, typer.Option("--gone", help="Forget all contents that the corpus no longer holds.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what it would do, and change nothing.")] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Take documents out of the ledger on purpose: their lines no longer count.

    The lines stay, and data/split_ledger/forgotten.txt names their contents, so that a merge does not bring them back.
    If a forgotten document is still in the corpus, `split` treats it as a new one each time. The file holds the start
    of the SHA-256 of a text: a person who has the text can see that it was here.

    Example: codex-ml ledger forget notes/jane.txt --reason 'the author asked for it' --dry-run
    """
    from dataclasses import asdict

    from codex_ml.cli.ledger_counts import ForgottenContents, content_counts
    from codex_ml.split.ledger.edits import next_steps
    from codex_ml.split.ledger.forgotten import add_tombstones, checked_reason

    with one_line_errors(debug=debug):
        go_to_top()
        if bool(names) == gone:
            raise UserError("give either --gone, or the ids, paths or contents to forget")
        reason = checked_reason(reason)
        if "" in (names or []):
            raise UserError("an empty name names no document; give an id, a path or a content")
        ledger = _ledger()
        contents = _contents(names or [], ledger)
        found = _answers(contents, ledger)
        if not dry_run:
            add_tombstones(SPLIT_LEDGER, contents, reason)
        before, after = content_counts(ledger), content_counts(ledger, without=contents)
        if json:
            print_json(asdict(ForgottenContents(found, before, after, dry_run)))
            return
        for content, answer in found.items():
            say(f"{content}  {answer}")
        for word, counts in (("before:", before), ("after:", after)):
            say(f"{word:<8}" + ", ".join(f"{name} {count}" for name, count in vars(counts).items()))
        if dry_run:
            say("ledger: nothing was changed (--dry-run)")
        else:
            say(f"ledger: {len(found)} contents are named in {SPLIT_LEDGER / FORGOTTEN}: {reason}")
            _next(next_steps(SPLIT_LEDGER))


def _ledger() -> Ledger:
    from codex_ml.cli.param_rules import load_params
    from codex_ml.split.ledger.folder import read_ledger

    return read_ledger(SPLIT_LEDGER, salt=load_params().split.salt)


def _contents(names: list[str], ledger: Ledger) -> list[str]:
    """The contents with these names; without names, the contents that the corpus no longer holds."""
    from codex_ml.cli.named_contents import contents_gone, contents_named
    from codex_ml.cli.param_rules import load_params
    from codex_ml.core.parallel import workers_for
    from codex_ml.split.redaction import screen_settings

    params = load_params()
    settings = screen_settings(
        params.split,
        policy=Path("data/policy.yaml"),
        lock=Path("data/detectors.lock"),
        key=Path("data/redaction_key"),
        benchmarks=Path("data/benchmarks"),
    )
    workers = workers_for(CORPUS.stat().st_size if CORPUS.exists() else 0, params.runtime.workers)
    if names:
        return contents_named(names, ledger, CORPUS, settings, workers)
    return contents_gone(ledger, CORPUS, settings, workers)


def _answers(contents: list[str], ledger: Ledger) -> dict[str, str]:
    """Content -> its split in the ledger, or "not listed"."""
    from codex_ml.core.sorted_arrays import find
    from codex_ml.split.ledger.answers import SPLITS
    from codex_ml.split.ledger.forgotten import contents_of
    from codex_ml.split.ledger.line_format import content_keys

    if not contents:
        return {}
    keys, listed = contents_of(contents), content_keys(ledger.high, ledger.low)
    texts = sorted(contents, key=urlsafe_b64decode)  # the order of `keys`
    found = {}
    for text, row in zip(texts, find(listed, keys).tolist(), strict=True):
        if row >= 0:
            found[text] = SPLITS[ledger.split[row]] + ("" if ledger.kept[row] else " (a duplicate)")
        else:
            found[text] = "not listed"
    return found


def _report(written: LedgerChange, *more: str) -> None:
    say(f"ledger: {written.added} new lines; {SPLIT_LEDGER} holds {written.lines}")
    _next([*written.next_steps, *more])


def _next(steps: list[str]) -> None:
    for number, step in enumerate(steps):
        say(f"{'next:' if not number else '     '} {step}")
