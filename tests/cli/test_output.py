"""What commands print: no name controls a terminal or forges a line, in text and in JSON."""

from __future__ import annotations

import ast
import json
from collections import Counter
from pathlib import Path

import pytest

import codex_ml
from codex_ml.cli.options import in_columns, print_json
from codex_ml.cli.output import say, say_text

SOURCE = Path(codex_ml.__file__).parent
# Calls that print and do not go through cli.output: {file: calls}. None of them prints a name of the data as it is.
OTHERS = {
    "__init__.py": 1,  # an error of this program, before anything else is imported
    "cli/conversation.py": 1,  # the sign of the prompt
    "cli/hooks.py": 1,  # the configuration of the Git hooks
    "cli/main.py": 2,  # the version; an error, through safe_text
    "cli/options.py": 1,  # print_json
    "cli/output.py": 2,  # say and say_text
    "cli/schema.py": 1,  # JSON Schemas of this program
    "cli/tokenizer.py": 1,  # decode: the exact text for a pipe, and safe_text for a terminal
    "core/child.py": 3,  # messages to the parent process
    "core/errors.py": 1,  # an error, through safe_words
    "core/progress.py": 2,  # through safe_words
    "core/start_failure.py": 1,  # printable, or ASCII; core.errors may not be imported
    "core/variables.py": 1,  # a constant
    "sandbox/supervisor.py": 1,  # a message to the parent process
    "train/launch.py": 1,  # through safe_text
    "train/stop_signals.py": 1,  # a constant
}
HOSTILE = {
    "\x1b[2J": "\\x1b[2J",
    "\u009b31m": "\\x9b31m",
    "\x7f\x08": "\\x7f\\x08",
    "a\u202egpj.exe": "a\\u202egpj.exe",
    "\u2066x\u2069": "\\u2066x\\u2069",
    "a\u2028b": "a\\u2028b",
    "a\nverify: 9 links hold": "a\\nverify: 9 links hold",
    "a\r\nb": "a\\r\\nb",
    "\ud800": "\\ud800",
    "zero\u200bwidth\ufeff": "zero\\u200bwidth\\ufeff",
}


def prints(call: ast.Call) -> bool:
    name = ast.unparse(call.func)
    return name in ("print", "typer.echo", "typer.secho", "click.echo") or name.endswith(
        ("stdout.write", "stderr.write")
    )


def test_all_commands_print_through_one_module() -> None:
    found: Counter[str] = Counter()
    for file in SOURCE.rglob("*.py"):
        calls = [node for node in ast.walk(ast.parse(file.read_bytes())) if isinstance(node, ast.Call)]
        found[file.relative_to(SOURCE).as_posix()] += sum(map(prints, calls))
    assert +found == OTHERS


@pytest.mark.parametrize(("name", "shown"), HOSTILE.items())
def test_a_name_stays_a_name_on_the_screen(capsys: pytest.CaptureFixture[str], name: str, shown: str) -> None:
    say(f"found {name}")
    say(f"found {name}", err=True)
    say(in_columns("train", "out", f"{name}\t", "0" * 8))
    printed = capsys.readouterr()
    columns = f"train         out     {shown}\\t  00000000"
    assert (printed.out, printed.err) == (f"found {shown}\n{columns}\n", f"found {shown}\n")


def test_a_text_keeps_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    say_text("one\n\ttwo\x1b[2J", nl=False)
    assert capsys.readouterr().out == "one\n\ttwo\\x1b[2J"


def test_json_is_printable_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    value = {
        chr(code): chr(code)
        for code in [*range(0x20), *range(0x7F, 0xA0), 0x61C, 0x200F, *range(0x2028, 0x202F), 0x2066]
    }
    value |= dict.fromkeys(HOSTILE, "�😀")
    for indent in (2, None):
        print_json([value], indent=indent)
        printed = capsys.readouterr().out
        assert printed.replace("\n", "").isascii() and printed.replace("\n", "").isprintable()
        assert json.loads(printed) == [value]
