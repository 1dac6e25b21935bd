"""The line about an error that is neither of the system nor one of ours: mostly a fault of the library.

Used by: errors.
"""

from __future__ import annotations

from codex_ml.core.start_failure import start_failure


def internal_error(error: BaseException, debug: bool) -> tuple[str, int]:
    """The line and the exit code: 2 where a file of the user made an import fail, else 1 with the exception's name."""
    if known := start_failure(error):
        return known, 2
    message = f"internal error, please report it: {type(error).__name__}: {error}"
    return message + ("" if debug else " (run again with --debug for the traceback)"), 1
