"""A failure is one line on stderr and a documented exit code; a traceback only with --debug."""

import errno
import pickle
import re
from pathlib import Path

import pytest

from codex_ml.core.errors import (
    CheckFailed,
    Reason,
    UserError,
    naming,
    one_line,
    one_line_errors,
    reason_of,
    safe_text,
)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("params.yaml:3: no"), 2, "error: params.yaml:3: no\n"),
        (CheckFailed("a gate failed"), 1, "error: a gate failed\n"),
        (
            OSError(errno.ENOSPC, "x", "data/corpus"),
            1,
            "error: the disk is full; free some space and run the same command again (data/corpus)\n",
        ),
        (
            OSError(errno.EDQUOT, "x"),
            1,
            "error: your disk quota is used up; free some space and run the same command again\n",
        ),
        (OSError(errno.EFBIG, "x"), 1, "error: a file would grow beyond the size limit of this process (ulimit -f)\n"),
        (
            PermissionError(errno.EACCES, "x", "f"),
            1,
            "error: permission denied; check the owner and the mode of this path (f)\n",
        ),
        (
            PermissionError(errno.EPERM, "x", "f"),
            1,
            "error: not permitted; check the owner and the mode of this path (f)\n",
        ),
        (OSError(errno.EROFS, "x", "f"), 1, "error: the file system is read-only; use a writable checkout (f)\n"),
        (FileNotFoundError(errno.ENOENT, "x", "f"), 1, "error: no such file or folder (f)\n"),
        (OSError(errno.EMFILE, "x"), 1, "error: too many open files; raise the limit with ulimit -n\n"),
        (
            OSError(errno.EIO, "Input/output error", "f"),
            1,
            "error: the disk failed (input/output error); check it (dmesg), then run the same command again (f)\n",
        ),
        (OSError("only a text"), 1, "error: OSError\n"),
        (MemoryError(), 1, "error: out of memory; end other programs, or ask for less\n"),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
        (
            ZeroDivisionError("by zero"),
            1,
            "error: internal error, please report it: ZeroDivisionError: by zero (run again with --debug for the traceback)\n",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_every_failure_is_one_line_and_an_exit_code(error, code, line, capsys):
    with pytest.raises(SystemExit) as exit_, one_line_errors():
        raise error
    captured = capsys.readouterr()
    assert exit_.value.code == code
    assert captured.out == ""
    if isinstance(error, OSError) and not error.errno:
        assert captured.err.count("\n") == 1
    else:
        assert captured.err == line


def test_a_module_that_python_cannot_read_is_named_with_its_line(tmp_path, monkeypatch, capsys):
    """Such as the config of another stage, which a stage imports to validate all of params.yaml."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "module_cut_in_halves.py").write_text("x = 1\ny = (\n")
    with pytest.raises(SystemExit) as stop, one_line_errors():
        __import__("module_cut_in_halves")
    assert stop.value.code == 2
    name = "module_cut_in_halves.py"
    assert (
        capsys.readouterr().err
        == f"error: {name}:2: not Python: '(' was never closed; `git diff {name}` shows what was changed\n"
    )


def test_success_prints_nothing_and_goes_on(capsys):
    with one_line_errors():
        pass
    assert capsys.readouterr() == ("", "")


def test_an_exit_inside_keeps_its_code():
    with pytest.raises(SystemExit) as exit_, one_line_errors():
        raise SystemExit(143)
    assert exit_.value.code == 143


def test_debug_prints_the_traceback_before_the_line(capsys):
    with pytest.raises(SystemExit), one_line_errors(debug=True):
        raise ValueError("odd")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == "error: internal error, please report it: ValueError: odd"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ünï 漢字 \U0001f600\n\t", "plain ünï 漢字 \U0001f600\n\t"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("a\u202eb", r"a\u202eb"),
        ("a\rb\x00\x7f\x85", r"a\rb\x00\x7f\x85"),
        ("lone \ud800 \udcff", r"lone \ud800 \udcff"),
        ("\u2028\u200b\ufeff", r"\u2028\u200b\ufeff"),
    ],
)
def test_data_cannot_drive_a_terminal(text, shown):
    assert safe_text(text) == shown
    shown.encode("utf-8")


def test_the_exit_code_reports_a_failure_when_stderr_is_full(run_python):
    code = "from codex_ml.core.errors import *\nwith one_line_errors():\n    raise UserError('x')"
    with Path("/dev/full").open("w") as full:
        done = run_python("-c", code, capture_output=False, stderr=full)
    assert done.returncode == 2


@pytest.mark.parametrize(
    ("reason", "shown", "kind"),
    [
        (Reason("looks like UTF-16; RFC 8259 section 8.1"), "looks like UTF-16; RFC 8259 section 8.1", None),
        (Reason("byte 0x{:02X} is not UTF-8", 233), "byte 0xE9 is not UTF-8", "byte 0xN is not UTF-8"),
        (Reason("the key {!r} in {}", "AKIA1", 7), "the key 'AKIA1' in 7", "the key ... in N"),
        (Reason("not JSON: {}", Reason("U+{:04X}", 0xD800)), "not JSON: U+D800", "not JSON: U+N"),
        (Reason("found {}", "a\nb\x1b[31m"), "found a\\nb\\x1b[31m", "found ..."),
        (Reason("{braces}"), "{braces}", None),
        (Reason("found {}", "{0}{x}"), "found {0}{x}", "found ..."),
        (Reason("found {}", "x" * 1000), "found " + "x" * 200 + "...", "found ..."),
    ],
)
def test_a_reason_keeps_fixed_words_with_their_digits_and_hides_values(reason, shown, kind):
    assert reason == shown and reason.kind == (kind or shown)
    again = pickle.loads(pickle.dumps(reason))  # noqa: S301 - it travels from a worker
    assert (again, again.kind, Reason(again).kind) == (reason, reason.kind, reason.kind)


def test_the_reason_of_an_error_of_a_library_is_a_value():
    assert reason_of(ValueError("bad byte in\n'AKIA'")).kind == "..."
    assert reason_of(ValueError("bad byte in\n'AKIA'")) == "bad byte in 'AKIA'"
    assert reason_of(EOFError()) == "EOFError"
    assert reason_of(ValueError(Reason("line {}", 3))).kind == "line N"


def test_an_error_of_the_disk_gets_the_path_it_lacks_and_keeps_the_one_it_has():
    with pytest.raises(OSError, match="No space") as caught, naming("a/b"):
        raise OSError(errno.ENOSPC, "some library's words")
    assert caught.value.filename == "a/b"
    with pytest.raises(OSError, match="x") as caught, naming("a/b"):
        raise OSError(errno.EIO, "x", "c")
    assert caught.value.filename == "c"
    with pytest.raises(OSError, match="damaged") as caught, naming("a/b"):
        raise OSError("damaged")
    assert caught.value.filename is None


def test_what_a_library_says_is_one_line_of_a_bounded_length():
    assert one_line(ValueError("  two\n\tlines ")) == "two lines"
    assert one_line(ValueError("\n")) == "ValueError"
    assert (one_line("a\nb"), one_line("\n")) == ("a b", "no message")
    assert one_line(ValueError("x" * 1000)) == "x" * 300


def test_no_other_module_makes_one_line_of_an_error(repository):
    sources = [*(repository / "src").rglob("*.py"), *(repository / "stages").glob("*.py")]
    found = [
        path.relative_to(repository) for path in sources if re.search(r"join\(.+\.split\(\)\)\[:", path.read_text())
    ]
    guest = Path("src/codex_ml/sandbox/guest.py")  # runs inside the sandbox, where there is no core
    assert sorted(found) == [Path("src/codex_ml/core/errors.py"), guest]
