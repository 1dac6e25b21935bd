"""`codex-ml tokenizer`: measure a tokenizer, check it, use it, compare two."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from codex_ml.cli.options import Debug, Json, print_json
from codex_ml.cli.output import say
from codex_ml.core.bounds import MOST_TOKENS
from codex_ml.core.errors import CheckFailed, UserError, one_line_errors, safe_text
from codex_ml.core.repository_root import from_top

if TYPE_CHECKING:
    from codex_ml.core.contract import Contract

FOLDER, VAL = Path("models/tokenizer"), Path("data/splits/val.parquet")
app = typer.Typer(
    no_args_is_help=True,
    help="Measure and check a tokenizer, encode and decode with it, compare two.\n\n"
    "A tokenizer is a folder such as models/tokenizer, which `dvc repro tokenizer` makes from the section `tokenizer` "
    "of params.yaml. Text is data: `<|endoftext|>` in a text is encoded as ordinary characters, never as the special "
    "token.",
)
Folder = Annotated[
    Path | None, typer.Option("--tokenizer", "-t", help="The tokenizer's folder.", show_default=str(FOLDER))
]
Sample = Annotated[
    Path | None,
    typer.Argument(
        help="Text to measure on: a UTF-8 file, or a split such as data/splits/val.parquet.", show_default=str(VAL)
    ),
]
Text = Annotated[Path | None, typer.Option("--file", "-f", help="Read this UTF-8 file; - for standard input.")]


@app.command()
def stats(
    file: Sample = None,
    tokenizer: Folder = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure a tokenizer on text: how short the text gets, what is lost, how much of the vocabulary it uses.

    bytes_per_token: a higher number means fewer tokens. tokens_per_word: a word is a run of letters, digits and _.
    unk_share: share of tokens that are the unknown token. unused_share: share of the vocabulary that this text does not
    use. lossless: share of the texts that decoding restores exactly. A split is also measured per language.

    Example: codex-ml tokenizer stats README.md
    """
    from codex_ml.tokenizer.measure import tokenizer_metrics

    with one_line_errors(debug=debug):
        from codex_ml.cli.tokenizer_output import TokenizerStats

        numbers = tokenizer_metrics(_load(tokenizer), _documents(file))
        if json:
            _print(TokenizerStats.model_validate(numbers))
            return
        languages = numbers.pop("languages")
        for name, value in numbers.items():
            say(f"{name:<16} {value}")
        for language, found in languages.items():
            say(f"  {language}: {', '.join(f'{name} {value}' for name, value in found.items())}")


@app.command()
def encode(
    text: Annotated[str | None, typer.Argument(help="The text; or use --file.")] = None,
    file: Text = None,
    tokenizer: Folder = None,
    max_length: Annotated[int | None, typer.Option(min=1, max=MOST_TOKENS, help="Cut after this many tokens.")] = None,
    pad_to: Annotated[
        int | None, typer.Option(min=1, max=MOST_TOKENS, help="Fill up to this many tokens with the pad token.")
    ] = None,
    add_end: Annotated[
        bool, typer.Option("--add-end", help="Add the end token after the text, before padding.")
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Print the token ids of a text, separated by spaces; with --json also each token's text.

    --max-length counts the end token of --add-end, so the cut removes text, not the end token. Example:

        codex-ml tokenizer encode 'def add(a, b):' --add-end --pad-to 16
    """
    with one_line_errors(debug=debug):
        loaded = _load(tokenizer)
        ids = loaded.encode(_text(text, file)).tolist()
        end = [loaded.end] if add_end else []
        whole = len(ids) + len(end)
        if max_length is not None:
            ids = ids[: max(max_length - len(end), 0)]
        ids += end
        tokens = len(ids)
        ids += [loaded.pad] * ((pad_to or 0) - tokens)
        if json:
            from codex_ml.cli.tokenizer_output import EncodedText

            pieces = [loaded.backend.id_to_token(number) for number in ids]
            mask = [1] * tokens + [0] * (len(ids) - tokens)
            _print(EncodedText(ids=ids, attention_mask=mask, tokens=pieces, cut=whole - tokens))
        else:
            say(" ".join(map(str, ids)))


@app.command()
def decode(
    ids: Annotated[list[str] | None, typer.Argument(help="Token ids; without any, they are read from stdin.")] = None,
    tokenizer: Folder = None,
    lines: Annotated[
        bool, typer.Option("--lines", help="Each line of stdin is one text; print each as a JSON string on a line.")
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Print the exact text of token ids; a special token appears as its name.

    Example: codex-ml tokenizer encode 'a b' | codex-ml tokenizer decode
    """
    with one_line_errors(debug=debug):
        if lines and ids:
            raise UserError("--lines reads the ids from standard input; give no ids as arguments")
        loaded = _load(tokenizer)
        if lines:
            for line in sys.stdin:
                text = loaded.decode([_number(word, loaded.vocab_size) for word in _words(line)])
                print_json({"text": text} if json else text, indent=None)
            return
        words = ids or _words(sys.stdin.read())
        numbers = [_number(word, loaded.vocab_size) for word in words]
        found = loaded.decode(numbers)
        if json:
            print_json({"text": found}, indent=None)
        else:
            sys.stdout.write(found if not sys.stdout.isatty() else safe_text(found))


@app.command()
def special(tokenizer: Folder = None, json: Json = False, debug: Debug = False) -> None:
    """List the special tokens with their ids and roles: end, begin, pad, unknown, added.

    Text never becomes one of them: `<|endoftext|>` in a document is encoded as ordinary characters.

    Example: codex-ml tokenizer special -t ../their_model
    """
    with one_line_errors(debug=debug):
        from codex_ml.cli.tokenizer_validation import SpecialTokens, special_tokens

        found = special_tokens(_load(tokenizer))
        if json:
            _print(SpecialTokens(special=found))
            return
        for token in found:
            say(f"{token.id:>8}  {token.token:<24} {', '.join(token.roles)}")


@app.command()
def validate(
    file: Sample = None,
    tokenizer: Folder = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Check that no text is lost, that all ids are in range, and that the files of the folder agree; else exit with 1.

    The files: tokenizer.model gives the ids of tokenizer.json, and the config.json of a model (-t models/model) has its
    special ids and enough embedding rows.

    Example: codex-ml tokenizer validate data/splits/train.parquet
    """
    with one_line_errors(debug=debug):
        from codex_ml.cli.tokenizer_validation import TokenizerValidation, validate_tokenizer

        folder = tokenizer or from_top(FOLDER)
        found = validate_tokenizer(folder, _load(folder), _named(file))
        failed = [check.name for check in found if check.passed is False]
        if json:
            _print(TokenizerValidation(checks=found, passed=not failed))
        else:
            for check in found:
                word = {True: "passed", False: "FAILED", None: "not checked"}[check.passed]
                say(f"{check.name:<16} {word:<12} {check.detail}")
        if failed:
            raise CheckFailed(f"{folder}: {', '.join(failed)} failed")


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="A tokenizer's folder.")],
    second: Annotated[Path, typer.Argument(help="Another one.")],
    file: Sample = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure two tokenizers on one text, side by side, and say whether they give the same ids.

    Two tokenizers with the same vocabulary but different rules have equal sizes and different ids.

    Example: codex-ml tokenizer compare models/tokenizer ../their_model README.md
    """
    import numpy as np

    from codex_ml.tokenizer.measure import tokenizer_metrics

    with one_line_errors(debug=debug):
        both = [_load(first), _load(second)]
        numbers = [tokenizer_metrics(loaded, _documents(file)) for loaded in both]
        streams = [loaded.encode_documents(text for _, text in _documents(file)) for loaded in both]
        differ = sum(not np.array_equal(a, b) for a, b in zip(*streams, strict=True))
        shared = len(both[0].backend.get_vocab().keys() & both[1].backend.get_vocab().keys())
        if json:
            from codex_ml.cli.tokenizer_output import TokenizerComparison

            result = {"first": numbers[0], "second": numbers[1], "shared_tokens": shared, "texts_that_differ": differ}
            _print(TokenizerComparison.model_validate(result))
            return
        say(f"{'':<16} {first!s:>24} {second!s:>24}")
        for name in numbers[0]:
            if name != "languages":
                say(f"{name:<16} {numbers[0][name]:>24} {numbers[1][name]:>24}")
        say(f"{shared} tokens are in both; the ids of {differ} texts differ")


def _load(folder: Path | None) -> Any:
    from codex_ml.tokens.text_tokenizer import load_tokenizer

    return load_tokenizer(folder or from_top(FOLDER))


def _documents(file: Path | None) -> Any:
    """(language, text) of a split's documents, or of one text file."""
    file = file or from_top(VAL)
    if file.suffix == ".parquet":
        from codex_ml.documents.document import read_documents

        return ((document.language, document.content) for document in read_documents(file))
    return iter([("text", _text(None, file))])


def _named(file: Path | None) -> Any:
    """The documents of a split, or one text file as a document."""
    from codex_ml.documents.document import Document, read_documents

    file = file or from_top(VAL)
    if file.suffix == ".parquet":
        return read_documents(file)
    return iter([Document("", file.name, file.name, "", "", "text", text=_text(None, file))])


def _words(text: str) -> list[str]:
    return text.replace(",", " ").split()


def _text(text: str | None, file: Path | None) -> str:
    if (text is None) == (file is None):
        raise UserError("give either a text or --file")
    if file is None:
        data = (text or "").encode("utf-8", "surrogateescape")
    elif str(file) == "-":
        data = sys.stdin.buffer.read()
    else:
        if not file.is_file():
            raise UserError(f"{file} is missing")
        data = file.read_bytes()
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{file or 'the text'} is not UTF-8 (byte {error.start}); convert it first") from None


def _number(word: str, vocab_size: int) -> int:
    if not word.isascii() or not word.isdigit() or int(word[:9]) >= vocab_size or len(word) > 9:
        raise UserError(f"{word[:40]!r} is not a token id; ids are numbers from 0 to {vocab_size - 1}")
    return int(word)


def _print(found: Contract) -> None:
    print_json(found.as_json(), indent=None)
