"""The line about an error that is neither the user's nor the system's.

Used by: errors.
"""

from __future__ import annotations


def internal_error(error: BaseException, debug: bool) -> str:
    """Name the exception, and how to see its traceback."""
    message = f"internal error, please report it: {type(error).__name__}: {error}"
    return message + ("" if debug else " (run again with --debug for the traceback)")
