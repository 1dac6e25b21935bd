"""Remove secrets from a message before it is written to a log, by the rules of data/policy.yaml.

Loading the rules takes a tenth of a second or more, so they are loaded for the first message that needs them. A stage
does not depend on the policy because of its log: like the schemas of other stages, the modules are removed from
`sys.modules` again, and `_assert_declared_imports` of core.stage sees only what the stage itself imports.

Used by: core.stage_log (warnings and errors), core.error_log.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path

from codex_ml.core.errors import one_line

FILES = ("data/policy.yaml", "data/detectors.lock", "data/redaction_key")


def clean_message(message: str) -> str:
    """Replace what the policy does not allow; without a usable policy, say so instead of the message."""
    try:
        return _cleaner(str(Path.cwd()))(message)
    except Exception as error:  # a plug-in can raise anything
        return f"withheld, because the policy cannot be loaded: {type(error).__name__}: {one_line(error)}"


@cache
def _cleaner(top: str) -> Callable[[str], str]:
    before = set(sys.modules)
    try:
        clean: Callable[[str], str] = import_module("codex_ml.policy.cleaner").load_cleaner(*map(Path, FILES))
        return clean
    finally:
        for name in set(sys.modules) - before:
            if name.split(".")[0] == "codex_ml":
                del sys.modules[name]
