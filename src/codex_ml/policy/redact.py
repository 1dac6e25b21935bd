"""Replace values by placeholders. A placeholder shows the rule and whether two values are equal, but not the value.

A plain digest of a phone number can be inverted by trying all numbers. So the tag has a key: it is the HMAC-SHA256
(RFC 2104) of the rule's id, a NUL and the value. The placeholders of two data sets can be linked only with the key.
Used by: scan.py, split.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable

from codex_ml.policy.finding import Finding
from codex_ml.policy.hidden import plain_value

TAG = 8  # hexadecimal digits: among 10,000 values of one rule, two share a tag with probability 1/86
PLACEHOLDER = re.compile(r"<SECRET:[a-z][a-z0-9-]{1,39}:[0-9a-f]{8}>")


def placeholder(rule: str, value: str, key: bytes) -> str:
    """`<SECRET:rule:tag>`. Equal values of a rule get equal placeholders, also when one is disguised (hidden.py).

    Raises:
        ValueError: for an empty key, because anyone could then compute the tags.
    """
    if not key:
        raise ValueError("the key of the placeholders is empty")
    message = f"{rule}\0{plain_value(value)}".encode("utf-8", "surrogatepass")
    return f"<SECRET:{rule}:{hmac.new(key, message, hashlib.sha256).hexdigest()[:TAG]}>"


def placeholder_length(rule: str) -> int:
    """Length of a rule's placeholder in characters."""
    return len("<SECRET::>") + len(rule) + TAG


def redact(text: str, findings: Iterable[Finding], key: bytes) -> str:
    """Replace every value whose action is not `allow`; all other characters stay as they are.

    Args:
        findings: what `Scanner.scan` returned for this text: in order and without overlaps.
        key: secret of the placeholders, not empty. The same key gives the same placeholders in every file.
    """
    pieces, last = [], 0
    for finding in findings:
        if finding.action == "allow":
            continue
        pieces += [text[last : finding.start], placeholder(finding.rule, text[finding.start : finding.end], key)]
        last = finding.end
    return "".join([*pieces, text[last:]])
