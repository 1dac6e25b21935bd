"""Which licence a document is under, and whether it may be trained on. Unknown is never silently permissive."""

from __future__ import annotations

import re
from email.message import Message
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from license_expression import Licensing

UNKNOWN = "unknown"

# Trove classifiers (PyPI's list) as SPDX. "BSD License" covers a family; the strictest in common use stands for it.
CLASSIFIERS = {
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "GNU Lesser General Public License v2 or later (LGPLv2+)": "LGPL-2.1-or-later",
    "GNU Lesser General Public License v3 (LGPLv3)": "LGPL-3.0-only",
    "GNU Lesser General Public License v3 or later (LGPLv3+)": "LGPL-3.0-or-later",
    "GNU Library or Lesser General Public License (LGPL)": "LGPL-2.0-or-later",
    "GNU General Public License v2 (GPLv2)": "GPL-2.0-only",
    "GNU General Public License v2 or later (GPLv2+)": "GPL-2.0-or-later",
    "GNU General Public License v3 (GPLv3)": "GPL-3.0-only",
    "GNU General Public License v3 or later (GPLv3+)": "GPL-3.0-or-later",
    "GNU Affero General Public License v3": "AGPL-3.0-only",
}
HEADER = re.compile(r"SPDX-License-Identifier:[ \t]*([A-Za-z0-9.+() \t-]+)")
PREFIX = "License :: OSI Approved :: "


@cache
def _licensing() -> Licensing:
    from license_expression import get_spdx_licensing  # reads a 1 MB index: only when a licence is looked at

    return get_spdx_licensing()


@cache
def normalise(expression: str) -> str | None:
    """The SPDX expression in its canonical spelling, or None when it is none (SPDX 2.3, annex D)."""
    from license_expression import ExpressionError

    try:
        parsed = _licensing().parse(expression, validate=True, strict=True)
    except (ExpressionError, AttributeError, TypeError, IndexError):  # the parser's own slips count as "no expression"
        return None
    return str(parsed) if parsed is not None else None


def licence_of_metadata(headers: Message) -> str | None:
    """Licence of a Python distribution by its METADATA: `License-Expression` (PEP 639), `License`, classifiers.

    Returns:
        an SPDX expression, or None when the metadata does not name a licence that SPDX knows.
    """
    for field in ("License-Expression", "License"):
        value = str(headers.get(field) or "").strip()
        if value and len(value) < 200 and (found := normalise(value)):
            return found
    classifiers = [str(value) for value in headers.get_all("Classifier", [])]
    named = {c.removeprefix(PREFIX) for c in classifiers if c.startswith("License :: ") and c != PREFIX[:-4]}
    known = sorted(CLASSIFIERS[name] for name in named if name in CLASSIFIERS)
    if not named or len(known) < len(named):  # one that we cannot read may be the strict one
        return None
    return " OR ".join(known)


def licence_of_text(text: str) -> str | None:
    """What the `SPDX-License-Identifier:` lines among the first 20 say, all of them (SPDX 2.3, annex E).

    Returns:
        None without such a line, UNKNOWN when what it says is no SPDX expression.
    """
    head = "\n".join(text.split("\n", 20)[:20])
    found = [match.split(" --")[0].strip() for match in HEADER.findall(head)]  # "--" ends an HTML comment
    if not found:
        return None
    return normalise(" AND ".join(f"({expression})" for expression in found)) or UNKNOWN


@cache
def is_allowed(expression: str, allowed: frozenset[str]) -> bool | None:
    """Whether text under an SPDX expression may be used.

    `A OR B` needs one allowed licence, `A AND B` both; AND binds tighter than OR (SPDX 2.3, annex D.4). `A WITH x` is
    A with more permissions, so it is allowed where A is.

    Returns:
        None when the expression is unknown or not SPDX: the caller's policy decides.
    """
    if expression == UNKNOWN or expression.upper() in ("NOASSERTION", "NONE", "UNLICENSED", "PROPRIETARY"):
        return None
    if normalise(expression) is None:
        return None
    return _evaluate(_licensing().parse(expression, validate=True, strict=True), allowed)


def _evaluate(node: Any, allowed: frozenset[str]) -> bool:
    licensing = _licensing()
    if isinstance(node, licensing.OR):
        return any(_evaluate(child, allowed) for child in node.args)
    if isinstance(node, licensing.AND):
        return all(_evaluate(child, allowed) for child in node.args)
    return str(getattr(node, "license_symbol", node)) in allowed
