"""The line about an error that is neither the user's nor the system's.

Used by: errors.
"""

from __future__ import annotations

import os


def internal_error(error: BaseException, debug: bool) -> str:
    """Name the exception, or the place in a module of the library that Python cannot read, as while it is edited."""
    if isinstance(error, SyntaxError) and str(error.filename).endswith(".py"):
        place = f"{os.path.relpath(str(error.filename))}:{error.lineno}"
        return f"{place}: {type(error).__name__}: {error.msg}; `git diff` shows what was changed"
    message = f"internal error, please report it: {type(error).__name__}: {error}"
    return message + ("" if debug else " (run again with --debug for the traceback)")
