"""Mistakes in the licences that params.yaml names, and what the user probably meant.

Used by: ingest, split, `codex-ml check`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator

from codex_ml.core.errors import UserError
from codex_ml.documents.licences import (
    MOST_CHARACTERS,
    NO_LICENCE,
    PERMISSIVE,
    UNKNOWN,
    normalise,
    parsed_expression,
    spdx_licensing,
)

# Common names of licences whose SPDX names are spelt differently: letters and digits, without "the" and "license".
COMMON_NAMES = {
    "bsd": "BSD-3-Clause or BSD-2-Clause",
    "newbsd": "BSD-3-Clause",
    "bsd3": "BSD-3-Clause",
    "bsd2": "BSD-2-Clause",
    "simplifiedbsd": "BSD-2-Clause",
    "mit": "MIT",
    "expat": "MIT",
    "gpl": "GPL-3.0-only or GPL-2.0-only",
    "gplv2": "GPL-2.0-only",
    "gpl2": "GPL-2.0-only",
    "gplv3": "GPL-3.0-only",
    "gpl3": "GPL-3.0-only",
    "lgpl": "LGPL-3.0-only or LGPL-2.1-only",
    "lgplv3": "LGPL-3.0-only",
    "lgpl3": "LGPL-3.0-only",
    "agpl": "AGPL-3.0-only",
    "agplv3": "AGPL-3.0-only",
    "agpl3": "AGPL-3.0-only",
    "mpl": "MPL-2.0",
    "mpl2": "MPL-2.0",
    "apache2": "Apache-2.0",
    "apachev2": "Apache-2.0",
    "artistic2": "Artistic-2.0",
}
NEAR = 0.8  # difflib's ratio: Apach2.0 is near Apache-2.0; Acme is near no licence (Naumen has 0.6)


def refuse_unknown_licence(expression: str, where: str) -> None:
    """Raise for an entry of the allow list that is not an SPDX licence, because no document could be under it.

    Args:
        where: the key of params.yaml, for the message.

    Raises:
        UserError: names the entry, the nearest SPDX licence, and how to write a licence of your own.
    """
    parsed = parsed_expression(expression) if len(expression) <= MOST_CHARACTERS else None
    if parsed is not None and parsed.isliteral:
        return
    if parsed is not None:
        raise UserError(f"{where}: {expression} combines licences; list each of them as an entry of its own")
    raise UserError(
        f"{where}: {expression[:80]!r} is not an SPDX licence, so no document is under it; {_advice(expression)}"
    )


def refuse_unknown_expression(expression: str, where: str) -> None:
    """Raise for the licence of a source that is neither an SPDX expression nor a word for "unknown".

    Raises:
        UserError: as `refuse_unknown_licence`.
    """
    if expression and expression.upper() not in NO_LICENCE and normalise(expression) is None:
        raise UserError(
            f"{where}: {expression[:80]!r} is not an SPDX expression; {_advice(expression)}, or write unknown"
        )


def refuse_wrong_licences(licences: Iterable[str], sources: Iterable[str]) -> None:
    """Raise for the first mistake in split.licences and in the licences of ingest.sources.

    Raises:
        UserError: see `wrong_licences`.
    """
    for mistake in wrong_licences(licences, sources):
        raise mistake


def wrong_licences(licences: Iterable[str], sources: Iterable[str]) -> Iterator[UserError]:
    """The mistakes in split.licences and in the licences of ingest.sources."""
    checks = [(refuse_unknown_licence, licence, "split.licences") for licence in licences if licence not in PERMISSIVE]
    checks += [
        (refuse_unknown_expression, expression, f"ingest.sources.{number}.licence")
        for number, expression in enumerate(sources)
        if expression != UNKNOWN and expression not in PERMISSIVE
    ]
    for check, value, where in checks:
        try:
            check(value, where)
        except UserError as error:
            yield error


def _advice(name: str) -> str:
    bare = re.sub(r"^licenseref-", "", name, flags=re.IGNORECASE)
    own = "LicenseRef-" + (re.sub(r"[^A-Za-z0-9.]+", "-", bare[:40]).strip("-.") or "NAME")
    if name.upper() in NO_LICENCE:
        return f"a licence of your own is {own}; split.unknown_licence decides about documents without a licence"
    near = _nearest(bare)
    own = f"a licence of your own is written {own}"
    return f"did you mean {near}? ({own})" if near else own


def _nearest(name: str) -> str:
    """The SPDX name of a licence that people call `name`: its newest version, else the nearest spelling, else ""."""
    letters = re.sub(r"[^a-z0-9]", "", name.lower()[:80])
    letters = letters.removeprefix("the").removesuffix("license").removesuffix("licence").rstrip("v")
    if letters in COMMON_NAMES:
        return COMMON_NAMES[letters]
    known = {key.lower(): key for key, symbol in spdx_licensing().known_symbols.items() if not symbol.is_exception}
    versions = [key for key in known if re.fullmatch(r"[0-9.]+", key.replace("-", "").removeprefix(letters))]
    versions = [key for key in versions if key.replace("-", "").startswith(letters)]
    near = [max(versions)] if letters and versions else difflib.get_close_matches(name.lower()[:80], known, 1, NEAR)
    return known[near[0]] if near else ""
