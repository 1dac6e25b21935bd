"""Clean a text that a model wrote, before it is stored, logged or shown. Used by: evaluate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from codex_ml.core.plugin_lock import refuse_other_code
from codex_ml.policy.key import read_key
from codex_ml.policy.redact import redact
from codex_ml.policy.rules import load_policy
from codex_ml.policy.scan import Scanner


def load_cleaner(policy: Path, lock: Path, key: Path, *, secrets: bool = False) -> Callable[[str], str]:
    """Return a function that replaces in a text every value that the policy does not allow.

    Args:
        policy, lock, key: files of the rules, of their detectors, and of the secret of the placeholders.
        secrets: use the rules of kind `secret` only, and the detectors.

    Raises:
        UserError: when one of them cannot be used, or the code of a detector has changed.

    >>> clean = load_cleaner(Path("data/policy.yaml"), Path("data/detectors.lock"), Path("data/redaction_key"))
    >>> clean("no secret here")
    'no secret here'
    """
    rules = load_policy(policy)
    refuse_other_code("detectors", rules.detectors, lock)
    scanner, secret = Scanner(rules.only(kinds={"secret"}) if secrets else rules), read_key(key)
    return lambda text: redact(text, scanner.scan(text), secret)
