"""Replace values by placeholders that say the kind, and whether two values were equal, but not the value.

A plain digest of a phone number can be inverted by trying all numbers, so the tag is keyed: HMAC-SHA256 (RFC 2104) of
the rule's id, a NUL and the value. Without the key nobody can link the placeholders of two data sets.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable

from codex_ml.policy.finding import Finding
from codex_ml.policy.hidden import plain_value

TAG = 8  # hexadecimal digits: among 10,000 values of one rule two share a tag with a chance of 1 in 86
PLACEHOLDER = re.compile(r"<SECRET:[a-z][a-z0-9-]{1,39}:[0-9a-f]{8}>")


def placeholder(rule: str, value: str, key: bytes) -> str:
    """`<SECRET:rule:tag>`; equal values of a rule give equal placeholders, disguised ones (hidden.py) too.

    Raises:
        ValueError: for an empty key, with which anybody could compute the tags.
    """
    if not key:
        raise ValueError("the key of the placeholders is empty")
    message = f"{rule}\0{plain_value(value)}".encode("utf-8", "surrogatepass")
    return f"<SECRET:{rule}:{hmac.new(key, message, hashlib.sha256).hexdigest()[:TAG]}>"


def placeholder_length(rule: str) -> int:
    """Characters of a rule's placeholder."""
    return len("<SECRET::>") + len(rule) + TAG


def redact(text: str, findings: Iterable[Finding], key: bytes) -> str:
    """The text with every value replaced whose action is not `allow`; all other characters stay as they are.

    Args:
        findings: of `Scanner.scan` on this very text, in order and without overlaps.
        key: secret of the placeholders, not empty; the same key gives the same placeholders in every file.
    """
    pieces, last = [], 0
    for finding in findings:
        if finding.action == "allow":
            continue
        pieces += [text[last : finding.start], placeholder(finding.rule, text[finding.start : finding.end], key)]
        last = finding.end
    return "".join([*pieces, text[last:]])
