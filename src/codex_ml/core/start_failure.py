"""One line where an import failed: a file in the way of a module, or a source that Python cannot read.

A stage script and `codex-ml` import before they can catch an error, so `codex_ml/__init__.py` hands this module to
Python as its hook for uncaught errors. It imports no more than `namesakes` does.
Used by: codex_ml, core.errors, cli.main.
"""

from __future__ import annotations

import os
import sys

from codex_ml.core.namesakes import LIBRARY, all_in_one, namesakes

TYPE_CHECKING = False  # of typing, which may have a namesake
if TYPE_CHECKING:
    from types import TracebackType

FOLDERS = (".", "src", "stages")
MARKERS = ("<<<<<<<", "|||||||", "=======", ">>>>>>>")


def start_failure(error: BaseException) -> str:
    """The line about a failed import, whose mistake is the user's; "" for any other error."""
    if isinstance(error, SyntaxError) and str(error.filename).endswith(".py"):
        place = os.path.relpath(str(error.filename))
        if (error.text or "").startswith(MARKERS):
            why = "conflict markers of a merge; keep the lines that you want of both sides, delete the markers"
            return f"{place}:{error.lineno}: {why}, then `git add {place}`"
        shows = "" if place.startswith("..") else f"; `git diff {place}` shows what was changed"
        return f"{place}:{error.lineno}: not Python: {error.msg}{shows}"
    if isinstance(error, Exception) and (found := namesakes(FOLDERS)):
        read = [problem for problem in found if _was_read(problem.partition(": ")[0], error)]
        return all_in_one(read) if read else ""
    return ""


def show_failure(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an uncaught error: in a program of ours the line of `start_failure`, else as Python does.

    Raises:
        SystemExit: with code 2, after the line.
    """
    line = start_failure(error) if _is_ours() and "--debug" not in sys.argv else ""
    if not line:
        sys.__excepthook__(kind, error, trace)
        return
    shown = line if line.isprintable() else ascii(line)[1:-1]  # core.errors may not be imported
    print(f"error: {shown}", file=sys.stderr)
    raise SystemExit(2)


def _was_read(path: str, error: BaseException) -> bool:
    """Whether this process imported something from a path, or failed in it; any other error has another cause."""
    files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    files.append(getattr(error, "path", None))  # of a library that cannot be loaded
    trace = error.__traceback__
    while trace:
        files.append(trace.tb_frame.f_code.co_filename)
        trace = trace.tb_next
    place = os.path.realpath(path)
    return any(f"{os.path.realpath(file)}/".startswith(f"{place}/") for file in files if isinstance(file, str))


def _is_ours() -> bool:
    """Whether this process runs a stage script or `codex-ml`, and not a program that imports the library."""
    file = getattr(sys.modules["__main__"], "__file__", None)
    if not file:  # `python -c`, or an interpreter that a person types into
        return False
    program = os.path.realpath(file)
    stages = f"{os.path.dirname(os.path.dirname(LIBRARY))}/stages/"  # noqa: PTH120
    return program.startswith((stages, f"{LIBRARY}/")) or program.endswith("/codex-ml")
