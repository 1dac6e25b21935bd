"""The two ways a command may fail, and the one place that turns them into a line and an exit code.

Exit codes: 2 for a mistake of the user (bad parameter, missing file), 1 for a failed check or a run that could
not finish. A traceback is for developers: it is printed with `--debug` only.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from codex_ml.core.internal_error import internal_error
from codex_ml.core.interruption import is_interruption
from codex_ml.core.out_of_memory import is_out_of_memory, memory_advice

INTERRUPTED = 130  # 128 + SIGINT, what a shell reports for Ctrl-C


class UserError(Exception):
    """The user's input cannot be used. The message says what was found, where, what is allowed and what to do."""

    exit_code = 2


class CheckFailed(Exception):
    """A check, a gate or a run did not pass; the input was well-formed."""

    exit_code = 1
    interrupted = False  # whether a signal ended a run that can go on


def safe_text(text: str) -> str:
    """Show control, bidirectional and surrogate characters as escapes, so that data cannot control a terminal."""
    if text.replace("\n", "").replace("\t", "").isprintable():  # almost every text
        return text
    return "".join(c if c in "\n\t" or c.isprintable() else _escape(c) for c in text)  # no surrogate is printable


def safe_words(text: str) -> str:
    """Return `safe_text` of a text, in which line ends are escapes too: it cannot begin another line."""
    return safe_text(text).replace("\n", "\\n")


def safe_line(text: str) -> str:
    """Return `safe_words` of a text, in which tabs are escapes too."""
    return safe_words(text).replace("\t", "\\t")


def one_line(said: BaseException | str) -> str:
    """A message of a library or program on one line of at most 300 characters; without a message, the error's type."""
    silent = "no message" if isinstance(said, str) else type(said).__name__
    return " ".join(str(said).split())[:300] or silent


LONGEST_VALUE = 200  # characters of a document that a message may show


class Reason(str):
    """A message about a document. `kind` is the same message without the document's values; reports count by kind.

    >>> Reason("the line is longer than {} bytes; JSON Lines are UTF-8", 1000).kind
    'the line is longer than N bytes; JSON Lines are UTF-8'

    Args:
        template: fixed words, which `kind` keeps, and one `{}` per value; without values it is the message itself.
        values: numbers, other reasons, or texts; texts are cut to LONGEST_VALUE and escaped for a terminal.
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
    """The reason that an exception carries. Of any other exception, the whole message counts as a value."""
    first = error.args[0] if error.args else ""
    return first if isinstance(first, Reason) else Reason("{}", one_line(error))


def _shown(value: object) -> object:
    if not isinstance(value, str) or isinstance(value, Reason):
        return value
    cut = value if len(value) <= LONGEST_VALUE else value[:LONGEST_VALUE] + "..."
    return safe_text(cut).replace("\n", "\\n")


def _blank(value: object) -> str:
    return value.kind if isinstance(value, Reason) else "..." if isinstance(value, str) else "N"


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


# Messages for disk errors, whichever library wrote or read. EIO: the medium or the connection to it failed.
DISK = {
    errno.ENOSPC: "the disk is full; free some space and run the same command again",
    errno.EDQUOT: "your disk quota is used up; free some space and run the same command again",
    errno.EFBIG: "a file would grow beyond the size limit of this process (ulimit -f)",
    errno.EROFS: "the file system is read-only; use a writable checkout",
    errno.EIO: "the disk failed (input/output error); check it (dmesg), then run the same command again",
}
# The error number in messages of Rust and C++ libraries, and in errors that a child process sends as text.
NUMBER = re.compile(r"\[errno (\d+)\]|\(os error (\d+)\)", re.IGNORECASE)
QUOTED = re.compile(r": '([^'\n]+)'(?: -> '([^'\n]+)')?")
NO_SPACE = 1 << 16  # bytes; if less is free, a writer that failed without a reason ran out of space


def disk_error(error: BaseException | None) -> OSError | None:
    """The disk error behind an exception: the exception itself, one that it was raised from, or one that it quotes.

    Returns:
        an `OSError` whose `errno` is in `DISK`, or None. Its `filename` is the path that failed, None if unknown.
    """
    first, seen = None, set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if found := _own_disk_error(error):
            if found.filename:  # closing a file after a failed write fails again, without a name
                return found
            first = first or found
        error = error.__cause__ or error.__context__
    return first


def _own_disk_error(error: BaseException) -> OSError | None:
    if isinstance(error, UserError | CheckFailed):  # their texts may quote data
        return None
    if isinstance(error, shutil.Error):
        failures = error.args[0] if error.args and isinstance(error.args[0], list) else []
        return next((found for *_, target, why in failures if (found := disk_error_in(str(why), str(target)))), None)
    if isinstance(error, OSError) and error.errno:
        if error.errno not in DISK:
            return None
        # a copy writes the second name
        name = error.filename2 if error.filename2 and error.errno != errno.EIO else error.filename
        return OSError(error.errno, os.strerror(error.errno), name)
    return disk_error_in(str(error))


def disk_error_in(text: str, path: str | None = None) -> OSError | None:
    """The disk error that a message reports; see `disk_error` for the result.

    Args:
        path: the path that failed; None to look for it in the message.
    """
    match = NUMBER.search(text)
    number = int(next(filter(None, match.groups()))) if match else next((n for n in DISK if os.strerror(n) in text), 0)
    if number not in DISK:
        return None
    names = QUOTED.search(text, match.end() if match else 0)
    return OSError(number, os.strerror(number), path or (names and (names[2] or names[1])) or None)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise a disk error as an `OSError` with its path, whatever exception a library makes of it.

    A library may hide the reason; if the file system is full, that is taken as the reason.
    """
    try:
        yield
    except (UserError, CheckFailed, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # a panic of a Rust library is not an Exception
        own = error if isinstance(error, OSError) and error.errno else None
        found = disk_error(error) or (own and OSError(*own.args)) or _out_of_space(path)
        if found is None or (own and own.filename and not own.filename2):
            raise
        found.filename = found.filename or os.fspath(path)
        raise found from error


def _out_of_space(path: Path) -> OSError | None:
    folder = next((parent for parent in (path, *path.absolute().parents) if parent.is_dir()), None)
    full = folder is not None and shutil.disk_usage(folder).free < NO_SPACE
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) if full else None


def describe_os_error(error: OSError) -> str:
    """Say on one line what went wrong, what to do, and with which path."""
    where = f" ({error.filename})" if error.filename else ""
    advice = {
        **DISK,
        errno.EACCES: "permission denied; check the owner and the mode of this path",
        errno.EPERM: "not permitted; check the owner and the mode of this path",
        errno.EMFILE: "too many open files; raise the limit with ulimit -n",
        **({errno.ENOENT: "no such file or folder"} if error.filename else {}),
    }.get(error.errno or 0, error.strerror or str(error) or type(error).__name__)
    return f"{advice}{where}"


def raise_disk_error(error: BaseException) -> None:
    """Raise the system error that `error` is or was raised from; return if the data are the cause.

    Libraries raise `OSError` for damaged files, too: without a number, or with EINVAL for an impossible offset.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno not in (None, errno.EINVAL):
            raise cause
        cause = cause.__cause__ or cause.__context__


@contextmanager
def naming(path: os.PathLike[str] | str) -> Iterator[None]:
    """Add `path` to a system error that has no path, such as one from reading an open file."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), os.fspath(path)) from error


class Failure(NamedTuple):
    """What `one_line_errors` caught, its line without "error: ", and the exit code."""

    error: BaseException
    message: str
    code: int


_observers: list[tuple[Callable[[Failure], None], Callable[[str], str]]] = []


@contextmanager
def on_failure(observer: Callable[[Failure], None], *, clean: Callable[[str], str]) -> Iterator[None]:
    """In this block, call `observer` with each failure that `one_line_errors` catches.

    Args:
        clean: what of a message, or of a traceback, may be shown.
    """
    _observers.append((observer, clean))
    try:
        yield
    finally:
        _observers.remove((observer, clean))


@contextmanager
def one_line_errors(*, debug: bool = False, stage: str = "") -> Iterator[None]:
    """Turn an exception into one line on stderr and `SystemExit` with the code of this module's docstring.

    Args:
        stage: the stage that runs in this block; a line about memory names its parameters.
    """
    try:
        yield
        return
    except (SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # a panic of a Rust library is not an Exception
        trace = traceback.format_exc() if debug else ""
        message, code = _line(error, debug, stage)
        for observer, _ in _observers:
            with suppress(Exception):  # the failure itself is what must reach the user
                observer(Failure(error, message, code))
    try:
        print(f"{safe_text(_cleaned(trace))}error: {safe_words(_cleaned(message))}", file=sys.stderr, flush=True)
    except OSError:  # stderr is closed; the exit code still reports the failure
        os._exit(code)
    raise SystemExit(code)


def _cleaned(text: str) -> str:
    for _, clean in _observers[:1]:  # of a command inside another one, the cleaner is the same
        text = clean(text) if text else ""
    return text


def _line(error: BaseException, debug: bool, stage: str) -> tuple[str, int]:
    """The message and the exit code of a failure."""
    if is_interruption(error):
        return "interrupted", INTERRUPTED
    if is_out_of_memory(error):
        return memory_advice(stage), 1
    disk = disk_error(error)
    if isinstance(error, UserError | CheckFailed) and not (disk and disk.filename):
        return str(error), error.exit_code
    if disk or isinstance(error, OSError):
        return describe_os_error(disk or error), 1  # type: ignore[arg-type]
    return internal_error(error, debug)
