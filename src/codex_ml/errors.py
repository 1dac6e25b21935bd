"""The two ways a command may fail, and the one place that turns them into a line and an exit code.

Exit codes: 2 for a mistake of the user (bad parameter, missing file), 1 for a failed check or a run that could
not finish. A traceback is for developers: it is printed with `--debug` only.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTED = 130  # 128 + SIGINT, what a shell reports for Ctrl-C


class UserError(Exception):
    """The user's input cannot be used. The message says what was found, where, what is allowed and what to do."""

    exit_code = 2


class CheckFailed(Exception):
    """A check, a gate or a run did not pass; the input was well-formed."""

    exit_code = 1


def safe_text(text: str) -> str:
    """Show control, bidirectional and surrogate characters as escapes, so that a terminal cannot be driven by data."""
    return "".join(
        c if c in "\n\t" or (c.isprintable() and not 0xD800 <= ord(c) < 0xE000) else _escape(c) for c in text
    )


LONGEST_VALUE = 200  # characters of a document that a message may show


class Reason(str):
    """A message, and the same without the values that come from a document: `kind`, by which messages are counted.

    >>> Reason("the line is longer than {} bytes; JSON Lines are UTF-8", 1000).kind
    'the line is longer than N bytes; JSON Lines are UTF-8'

    Args:
        template: fixed words, which `kind` keeps, and a `{}` for each value; without values it is taken as it is.
        values: numbers, other reasons, or texts, which are cut, and escaped for a terminal.
    """

    kind: str

    def __new__(cls, template: str, *values: object) -> Reason:
        if not values:
            reason = super().__new__(cls, template)
            reason.kind = getattr(template, "kind", template)
            return reason
        reason = super().__new__(cls, template.format(*map(_shown, values)))
        blanks = iter(map(_blank, values))
        reason.kind = re.sub(r"\{[^{}]*\}", lambda _: next(blanks), template)
        return reason


def reason_of(error: BaseException) -> Reason:
    """The reason that an exception carries; the message of one that carries none counts as a value."""
    first = error.args[0] if error.args else ""
    return first if isinstance(first, Reason) else Reason("{}", " ".join(str(error).split()) or type(error).__name__)


def _shown(value: object) -> object:
    if not isinstance(value, str) or isinstance(value, Reason):
        return value
    cut = value if len(value) <= LONGEST_VALUE else value[:LONGEST_VALUE] + "..."
    return safe_text(cut).replace("\n", "\\n")


def _blank(value: object) -> str:
    return value.kind if isinstance(value, Reason) else "..." if isinstance(value, str) else "N"


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def _describe_os_error(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename else ""
    advice = {
        errno.ENOSPC: "the disk is full; free some space and run the same command again",
        errno.EDQUOT: "your disk quota is used up; free some space and run the same command again",
        errno.EFBIG: "a file would grow beyond the size limit of this process (ulimit -f)",
        errno.EACCES: "permission denied; check the owner and the mode of this path",
        errno.EPERM: "not permitted; check the owner and the mode of this path",
        errno.EROFS: "the file system is read-only; use a writable checkout",
        errno.ENOENT: "no such file or folder",
        errno.EMFILE: "too many open files; raise the limit with ulimit -n",
    }.get(error.errno or 0, error.strerror or type(error).__name__)
    return f"{advice}{where}"


@contextmanager
def naming(path: os.PathLike[str] | str) -> Iterator[None]:
    """Give an error of the disk the path that failed where the system gives none: a read of an open file has no name.

    An `OSError` without a number is none of the disk; libraries raise it for damaged files.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), os.fspath(path)) from error


@contextmanager
def one_line_errors(*, debug: bool = False) -> Iterator[None]:
    """Turn an exception into one line on stderr and `SystemExit` with the code of this module's docstring."""
    try:
        yield
    except (UserError, CheckFailed) as error:
        message, code = str(error), error.exit_code
    except OSError as error:
        message, code = _describe_os_error(error), 1
    except MemoryError:
        message, code = "out of memory; lower train.micro_batch_size or pack.seq_len", 1
    except KeyboardInterrupt:
        message, code = "interrupted", INTERRUPTED
    except Exception as error:
        message = f"internal error, please report it: {type(error).__name__}: {error}"
        message, code = message + ("" if debug else " (run again with --debug for the traceback)"), 1
    else:
        return
    if debug:
        traceback.print_exc()
    try:
        print(f"error: {safe_text(message)}", file=sys.stderr, flush=True)
    except OSError:  # stderr itself is gone; the exit code still tells
        os._exit(code)
    raise SystemExit(code)
