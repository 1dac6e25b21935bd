"""Which licence a document is under, and whether it may be trained on. An unknown licence never counts as permissive.

Used by: ingest, which finds the licence of each document, and split, which applies split.licences.
"""

from __future__ import annotations

import re
from email.message import Message
from functools import cache, lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from license_expression import Licensing

UNKNOWN = "unknown"
PERMISSIVE = ("MIT", "BSD-2-Clause", "BSD-3-Clause", "Apache-2.0", "ISC", "PSF-2.0", "Python-2.0", "0BSD", "Unlicense")
# Printing and evaluating recurse: 600 nested groups raise RecursionError. A longer text is a mistake or an attack; 140
# licences fit.
MOST_CHARACTERS, DEEPEST = 1000, 20
CACHED = 4096  # expressions; a corpus has some hundred, a hostile one has one per document
HEAD = 8192  # characters in which the first header must begin: 20 lines of 400

# Trove classifiers (PyPI's list) as SPDX. "BSD License" names a family; we take the strictest one in common use.
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
MARK = "SPDX-License-Identifier:"
HEADER = re.compile(MARK + r"[ \t]*([A-Za-z0-9.+:() \t-]*)(.?)")
# Characters that may follow an expression, besides white space: the end of a comment, a string or a box around it.
# Any other character belongs to the statement: MIT/GPL-3.0-only begins like an expression.
BEHIND = frozenset("*#\"'`\\}%]<>")
# Words for "no statement", and for "all rights reserved" (npm's UNLICENSED), the opposite of the Unlicense.
NO_LICENCE = frozenset({"UNKNOWN", "NOASSERTION", "NONE", "UNLICENSED", "PROPRIETARY"})
PREFIX = "License :: OSI Approved :: "
# A licence that is not in SPDX's list, with the name that its owner gives it (SPDX 2.3, annex D.1).
REFERENCE = re.compile(r"(?:DocumentRef-[A-Za-z0-9.-]+:)?LicenseRef-[A-Za-z0-9.-]+")
_REFERENCE_WORDS = re.compile(r"(?<![A-Za-z0-9.+-])(document|license)ref-", re.IGNORECASE)


@cache
def spdx_licensing() -> Licensing:
    """The parser of SPDX expressions, with SPDX's list of licences."""
    from license_expression import build_spdx_licensing, get_license_index  # 1 MB: loaded for the first licence only

    # ScanCode's index has 1,694 names LicenseRef-..., some of them aliases of an SPDX licence. SPDX defines none of
    # them: the owner of LicenseRef-MIT-TC defines it, so it is not MIT.
    index = [entry for entry in get_license_index() if "ref-" not in (entry.get("spdx_license_key") or "").lower()]
    for entry in index:
        aliases = entry.get("other_spdx_license_keys", [])
        entry["other_spdx_license_keys"] = [alias for alias in aliases if "ref-" not in alias.lower()]
    return build_spdx_licensing(index)


def normalise(expression: str) -> str | None:
    """The canonical spelling of an SPDX expression (SPDX 2.3, annex D); None when it is not an SPDX expression.

    None also for more than 1,000 characters or more than 20 nested groups. SPDX includes licences of your own:
    LicenseRef-NAME and DocumentRef-NAME:LicenseRef-NAME.
    """
    # the length is tested here, because the cache keeps its arguments
    return _normalised(expression) if len(expression) <= MOST_CHARACTERS else None


@lru_cache(maxsize=CACHED)
def _normalised(expression: str) -> str | None:
    parsed = parsed_expression(expression)
    return None if parsed is None else str(parsed)


def parsed_expression(expression: str) -> Any:
    """The tree of the expression, with nodes OR, AND and licences; None when it is not an SPDX expression."""
    from license_expression import ExpressionError

    if _depth(expression) > DEEPEST:
        return None
    licensing = spdx_licensing()
    expression = _REFERENCE_WORDS.sub(lambda word: f"{word[1].capitalize()}Ref-", expression)
    try:
        parsed = licensing.parse(expression, strict=True)
        unknown = licensing.unknown_license_keys(parsed)
        return parsed if all(REFERENCE.fullmatch(key) for key in unknown) else None
    except (ExpressionError, AttributeError, TypeError, IndexError):  # the last three are errors inside the parser
        return None


def _depth(expression: str) -> int:
    steps = ((character == "(") - (character == ")") for character in expression)
    return max(accumulate(steps), default=0)


def licence_of_metadata(headers: Message) -> str | None:
    """The licence in METADATA of a Python distribution: `License-Expression` (PEP 639), else `License`, classifiers.

    Returns:
        an SPDX expression, or None when the metadata does not name an SPDX licence.
    """
    stated = headers.get_all("License-Expression", [])
    if stated:  # ignore the others: MIT AND LicenseRef-Strict must not become the MIT of an old classifier
        return normalise(str(stated[0])) if len(stated) == 1 else None
    values = {str(value).strip() for value in headers.get_all("License", [])}
    if len(values) > 1:  # they contradict each other
        return None
    value = values.pop() if values else ""
    if value and (found := normalise(value)):
        return found
    classifiers = [str(value) for value in headers.get_all("Classifier", [])]
    named = {c.removeprefix(PREFIX) for c in classifiers if c.startswith("License :: ") and c != PREFIX[:-4]}
    known = sorted(CLASSIFIERS[name] for name in named if name in CLASSIFIERS)
    if not named or len(known) < len(named):  # a classifier that we do not know may be the strict one
        return None
    # METADATA does not say whether several classifiers are alternatives or all apply: "Apache" and "MIT" is a choice in
    # one package, and licences of different parts in the next. AND never permits too much.
    return " AND ".join(known)


def both(licence: str, own: str) -> str:
    """The licence of a file that states `own` inside a package under `licence`: both apply, unless one is unknown.

    >>> both("MIT", "GPL-3.0-only")
    '(MIT) AND (GPL-3.0-only)'
    """
    if licence == own or not licence or UNKNOWN in (licence, own):
        return own
    return f"({licence}) AND ({own})"


def stricter(first: str, second: str) -> str:
    """The licence of a record with two licence fields: the first where they agree, else both of them.

    It is "unknown" where they differ and one is not an SPDX expression.

    >>> stricter("MIT", "GPL-3.0-only")
    'MIT AND GPL-3.0-only'
    """
    if first.strip() == second.strip():
        return first
    one, other = normalise(first), normalise(second)
    if one is None or other is None:
        return UNKNOWN
    return first if one == other else normalise(f"({one}) AND ({other})") or UNKNOWN


def licence_of_text(text: str) -> str | None:
    """The licence that the `SPDX-License-Identifier:` lines among the first 20 lines state (SPDX 2.3, annex E).

    Returns:
        AND of all such lines; None without one; UNKNOWN when one does not hold an SPDX expression.
    """
    if text.find(MARK, 0, HEAD) < 0:  # true for nearly every document; takes 2 us
        return None
    head = "\n".join(text.split("\n", 20)[:20])
    found = []
    for expression, behind in HEADER.findall(head):
        if behind and behind not in BEHIND and not behind.isspace():
            return UNKNOWN
        if expression.strip():  # the mark alone occurs in code that searches for it
            found.append(expression.split(" --")[0].strip())  # "--" ends an HTML comment
    if not found:
        return None
    each = [normalise(expression) for expression in found]  # one by one, because "MIT) OR (ISC" is not an expression
    if None in each:
        return UNKNOWN
    return normalise(" AND ".join(f"({expression})" for expression in each)) or UNKNOWN


def is_allowed(expression: str | None, allowed: frozenset[str]) -> bool | None:
    """Whether the allow list permits text under an SPDX expression.

    `A OR B` needs one allowed licence, `A AND B` needs both; AND binds tighter than OR (SPDX 2.3, annex D.4).
    `A WITH x` is A with more permissions, so it is allowed where A is. Identifiers, LicenseRef too, are compared
    without case (annex D.2). A deprecated identifier counts as its replacement.

    Returns:
        True or False; None when the expression is unknown or not SPDX, so that the caller decides.
    """
    if not expression or len(expression) > MOST_CHARACTERS or expression.upper() in NO_LICENCE:
        return None
    return _verdict(expression, allowed)


@lru_cache(maxsize=CACHED)
def _verdict(expression: str, allowed: frozenset[str]) -> bool | None:
    parsed = parsed_expression(expression)
    return None if parsed is None else _evaluate(parsed, _canonical(allowed))


@lru_cache(maxsize=16)
def _canonical(allowed: frozenset[str]) -> frozenset[str]:
    return frozenset((normalise(licence) or licence).lower() for licence in allowed)


def _evaluate(node: Any, allowed: frozenset[str]) -> bool:
    licensing = spdx_licensing()
    if isinstance(node, licensing.OR):
        return any(_evaluate(child, allowed) for child in node.args)
    if isinstance(node, licensing.AND):
        return all(_evaluate(child, allowed) for child in node.args)
    return str(node).lower() in allowed or str(getattr(node, "license_symbol", node)).lower() in allowed
