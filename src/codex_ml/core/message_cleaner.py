"""Remove secrets from a message before it is written to a log, by the rules of data/policy.yaml.

The first message loads the rules, which takes 0.16 s; then a message takes 20 microseconds. A stage does not depend on
the policy because of its log: like the schemas of other stages, the modules are removed from `sys.modules` again, and
`refuse_unrecorded` of core.loaded_code sees only what the stage itself imports.

Used by: core.stage_log, core.error_log, core.event_hooks, train.timings, cli.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path

from codex_ml.core.errors import one_line

# What a key looks like without rules: a long run with letters and digits.
RUN = re.compile(r"(?<![A-Za-z0-9])(?=[A-Za-z]*\d)(?=\d*[A-Za-z])[A-Za-z0-9]{16,}")
PLACED = re.compile("<SECRET:([a-z0-9-]+):[0-9a-f]{8}>")  # policy/redact.py
POLICY = "data/policy.yaml"
FILES = (POLICY, "data/detectors.lock", "data/redaction_key")


def clean_message(message: str) -> str:
    """Replace what the policy does not allow; without a usable policy, say so instead of the message."""
    what = "loaded"
    try:
        clean, what = _cleaner(str(Path.cwd())), "applied"
        return clean(message)
    except Exception as error:  # a detector of a package can raise anything
        return f"withheld, because the policy cannot be {what}: {type(error).__name__}: {one_line(error)}"


def clean_shown(message: str) -> str:
    """Like `clean_message`, for the screen: without a usable policy, blank what may be a key, and show the rest.

    The message may be the one that a person needs to repair the policy.
    """
    try:
        return _cleaner(str(Path.cwd()))(message)
    except Exception:  # a detector of a package can raise anything
        return RUN.sub("...", message)


def load_cleaner() -> Callable[[str], str]:
    """The cleaner of a folder that has a policy.

    Raises:
        UserError: when the policy cannot be used.
    """
    return _cleaner(str(Path.cwd()))


def secret_in(text: str) -> str:
    """The rule of kind `secret` that removes something from a text; "" for a text without one, or without a policy."""
    if not Path(POLICY).exists() or load_cleaner()(text) == text:
        return ""
    clean = _cleaner(str(Path.cwd()), secrets=True)(text)  # a secret inside of personal data is one, too
    if clean == text:
        return ""
    found = next((match[1] for match in PLACED.finditer(clean) if match[0] not in text), "")
    return found or "?"


def _cleaner(top: str, *, secrets: bool = False) -> Callable[[str], str]:
    clean, error = _loaded(top, secrets)
    if error is not None:
        raise error
    return clean


@cache  # a policy that cannot be used is not read again for each message
def _loaded(top: str, secrets: bool) -> tuple[Callable[[str], str], Exception | None]:
    before = set(sys.modules)
    try:
        return import_module("codex_ml.policy.cleaner").load_cleaner(*map(Path, FILES), secrets=secrets), None
    except Exception as error:
        return str, error
    finally:
        for name in set(sys.modules) - before:
            if name.split(".")[0] == "codex_ml":
                del sys.modules[name]
