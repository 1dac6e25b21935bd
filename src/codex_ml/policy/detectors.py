"""Detectors of other packages: installed under the entry point group `codex_ml.detectors`, named in data/policy.yaml.

A detector is a callable: text -> iterable of (rule id, start, end), offsets in characters. The run stops when a named
detector is not installed, raises, or returns offsets outside the text: a scan without it would be incomplete.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from codex_ml.core.errors import UserError
from codex_ml.core.plugins import UnusablePlugin, load

Detector = Callable[[str], Iterable[tuple[str, int, int]]]

_RULE_ID = re.compile(r"[a-z][a-z0-9-]{1,39}\Z")


def load_detectors(names: Iterable[str]) -> dict[str, Detector]:
    """Import the named detectors: name -> callable.

    Args:
        names: detectors whose code the caller has compared with the lock beside the policy (`refuse_other_code`).

    Raises:
        UserError: when one is not installed, is installed twice, cannot be imported, or is not callable.
    """
    return {name: _load(name) for name in names}


def _load(name: str) -> Detector:
    detector: Detector = load("detectors", name)
    if not callable(detector):
        raise UnusablePlugin("detectors", name, f"is not callable, but {type(detector).__name__}")
    return detector


def run_detector(name: str, detector: Detector, text: str) -> list[tuple[str, int, int]]:
    """Run a detector on a text and check its findings, (rule id, start, end).

    Raises:
        UserError: when it raises, or when a finding is not (rule id, start, end) with 0 <= start < end <= len(text).
            The message leaves out the detector's own error text, because that may quote the document.
    """
    found = []
    try:
        for item in detector(text):
            rule, start, end = item
            found.append((rule, start, end))
    except Exception as error:
        raise UserError(f"detector {name!r} failed: {type(error).__name__}; the text was not scanned") from None
    for number, (rule, start, end) in enumerate(found):
        if not isinstance(rule, str) or not _RULE_ID.match(rule):
            raise UserError(f"detector {name!r}, finding {number}: the rule id must match [a-z][a-z0-9-]{{1,39}}")
        if type(start) is not int or type(end) is not int or not 0 <= start < end <= len(text):
            raise UserError(
                f"detector {name!r}, finding {number}: offsets must be integers with 0 <= start < end <= {len(text)}, "
                f"found a {type(start).__name__} and a {type(end).__name__}"
                + (f", {start} and {end}" if type(start) is type(end) is int else "")
            )
    return found
