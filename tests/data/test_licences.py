"""Unknown is never silently permissive: SPDX expressions, METADATA of wheels, headers of files."""

from email.parser import HeaderParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codex_ml.data.licences import (
    is_allowed,
    licence_of_metadata,
    licence_of_text,
    normalise,
)

ALLOWED = frozenset({"MIT", "Apache-2.0", "BSD-3-Clause", "CC0-1.0", "Unlicense"})
LGPL = "GNU Lesser General Public License v3 or later (LGPLv3+)"


@pytest.mark.parametrize(
    ("expression", "verdict"),
    [
        ("Apache-2.0 OR AGPL-3.0-only", True),
        ("Apache-2.0 AND AGPL-3.0-only", False),
        ("(BSD-3-Clause OR GPL-2.0-only) AND MIT", True),
        ("CC0-1.0 OR MIT AND LGPL-3.0-only", True),  # AND binds tighter
        ("(CC0-1.0 OR MIT) AND LGPL-3.0-only", False),
        ("bsd-3-CLAUSE", True),
        ("apache-2.0 or mit", True),
        ("GPL-3.0-only WITH GCC-exception-3.1", False),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("MIT WITH GPL-3.0-only", None),  # a licence is no exception
        ("UNLICENSED", None),
        ("unlicensed", None),
        ("Unlicense", True),
        ("unlicense", True),
        ("NOASSERTION", None),
        ("NONE", None),
        ("unknown", None),
        ("Proprietary", None),
        ("", None),
        ("   ", None),
        ("()", None),
        ("MIT/Apache-2.0", None),
        ("MIT, Apache-2.0", None),
        ("LicenseRef-Internal", None),
        ("AGPL-3.0", False),
        ("LGPL-2.1+", False),
        ("see COPYING", None),
        ("BSD", None),
        ("MIT AND", None),
        ("OR MIT", None),
        ("MIT MIT", None),
        ("MIT OR LicenseRef-Internal", None),
        ("licenseref-scancode-public-domain", None),  # ScanCode's name, which its index knows; SPDX does not
        ("DocumentRef-a:LicenseRef-b", None),
        ("MIT OR", None),
        ("see LICENSE file", None),
        ("mit", True),
        ("GPL-3.0", False),  # known, deprecated
        ("GPL-2.0+", False),
        ("GPL-2.0-only WITH Classpath-exception-2.0", False),
        ("(MIT WITH LLVM-exception) AND ISC", False),
        ("MIT WITH", None),
        ("MIT WITH no-such-exception", None),
        ("(MIT OR Apache-2.0) WITH LLVM-exception", None),  # an exception belongs to one licence
        ("Classpath-exception-2.0", None),
        ("MIT/Apache-2.0 OR MIT", None),
        ("MIT & Apache-2.0", None),
        ("MIT | GPL-3.0-only", None),
        ("!GPL-3.0-only", None),
        ("MIT)", None),
        ("(MIT", None),
        ("MIT\x00", None),
        ("МIT", None),  # a Cyrillic letter
    ],
)
def test_the_verdict_of_an_expression(expression, verdict):
    assert is_allowed(expression, ALLOWED) is verdict


def test_the_allow_list_is_read_as_expressions_are():
    assert is_allowed("GPL-3.0-only", frozenset({"gpl-3.0"})) is True
    assert is_allowed("GPL-3.0+", frozenset({"GPL-3.0-or-later"})) is True
    assert is_allowed("GPL-3.0-or-later", frozenset({"GPL-3.0-only"})) is False
    assert is_allowed("LicenseRef-Internal", frozenset({"LicenseRef-Internal"})) is None
    assert is_allowed("unknown", frozenset({"unknown"})) is None
    assert is_allowed("MIT", frozenset()) is False


@pytest.mark.parametrize(
    "expression",
    [
        "(" * 100_000,
        "(" * 100_000 + "MIT" + ")" * 100_000,
        "(" * 21 + "MIT" + ")" * 21,
        "(MIT OR " * 21 + "MIT" + ")" * 21,
        "(MIT OR (ISC AND " * 300 + "MIT" + "))" * 300,
        " OR ".join(["MIT"] * 100_000),
        "MIT " * 250,
        "M" * 1_000_000,
        "AND " * 250,
        ")" * 500 + "(" * 500,
    ],
    ids=range(10),
)
def test_a_hostile_expression_is_unknown(expression):
    assert normalise(expression) is None
    assert is_allowed(expression, ALLOWED) is None
    assert licence_of_text(f"# SPDX-License-Identifier: {expression}\n") == "unknown"


def test_a_long_or_nested_expression_of_good_will_is_read():
    assert is_allowed(" OR ".join(["GPL-3.0-only"] * 50 + ["MIT"]), ALLOWED) is True
    assert is_allowed("(" * 20 + "MIT" + ")" * 20, ALLOWED) is True


IDENTIFIERS = ["MIT", "apache-2.0", "BSD-3-Clause", "GPL-3.0-only", "ISC", "AGPL-3.0", "MIT WITH LLVM-exception"]
GOOD = {"MIT", "apache-2.0", "BSD-3-Clause", "MIT WITH LLVM-exception"}
TREES = st.recursive(
    st.sampled_from(IDENTIFIERS),
    lambda trees: st.tuples(st.sampled_from(["AND", "OR"]), trees, trees),
    max_leaves=12,
)


def written(tree, parent=""):
    """With no more parentheses than "AND binds tighter than OR" asks for."""
    if isinstance(tree, str):
        return tree
    text = f" {tree[0]} ".join(written(child, tree[0]) for child in tree[1:])
    return f"({text})" if parent == "AND" and tree[0] == "OR" else text


def permitted(tree):
    if isinstance(tree, str):
        return tree in GOOD
    return (all if tree[0] == "AND" else any)(permitted(child) for child in tree[1:])


@given(TREES)
def test_and_binds_tighter_than_or(tree):
    expression = written(tree)
    assert is_allowed(expression, ALLOWED) is permitted(tree)
    assert is_allowed(normalise(expression), ALLOWED) is permitted(tree)


@given(st.text(st.sampled_from("MIT()ANDORWH -+./|&!~*\n\t0\u00a0"), max_size=60) | st.text())
def test_any_text_has_a_verdict(expression):
    assert is_allowed(expression, ALLOWED) in (True, False, None)
    assert (normalise(expression) is None) <= (is_allowed(expression, ALLOWED) is None)


def test_spelling_becomes_canonical():
    assert normalise("mit or (apache-2.0 AND bsd-3-clause)") == "MIT OR (Apache-2.0 AND BSD-3-Clause)"
    assert normalise("GPL-3.0") == "GPL-3.0-only"


def classifier(name):
    return f"Classifier: License :: OSI Approved :: {name}"


@pytest.mark.parametrize(
    ("lines", "licence"),
    [
        (["License-Expression: mit", "License: GPL-3.0-only"], "MIT"),
        (["License: Apache-2.0"], "Apache-2.0"),
        (["License: some words", classifier("MIT License")], "MIT"),
        (["License: " + "MIT " * 100, classifier("BSD License")], "BSD-3-Clause"),
        (["License-Expression: MIT OR", "License: MIT"], None),  # PEP 639: nothing else counts beside an expression
        (["License-Expression: MIT AND LicenseRef-Strict", classifier("MIT License")], None),
        (["License-Expression: MIT", "License-Expression: GPL-3.0-only"], None),
        (["License: " + " OR ".join(["MIT"] * 40)], " OR ".join(["MIT"] * 40)),
        ([classifier("MIT License"), "Classifier: Programming Language :: Python"], "MIT"),
        (
            [classifier("Apache Software License"), classifier("MIT License")],
            "Apache-2.0 AND MIT",
        ),  # a choice or not: not said
        ([classifier(LGPL)], "LGPL-3.0-or-later"),
        ([classifier("MIT License"), classifier("Some Strict License")], None),
        ([classifier("MIT License"), "Classifier: License :: Other/Proprietary License"], None),
        (["License: UNKNOWN"], None),
        (["License: "], None),
        ([], None),
    ],
)
def test_the_licence_of_a_wheel(lines, licence):
    headers = HeaderParser().parsestr("\n".join(["Metadata-Version: 2.4", *lines, "", "Body: License: MIT"]))
    assert licence_of_metadata(headers) == licence


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("# SPDX-License-Identifier: MIT\n", "MIT"),
        ("// SPDX-License-Identifier: Apache-2.0 OR mit\r\nx", "Apache-2.0 OR MIT"),
        ("/* SPDX-License-Identifier: GPL-2.0+ */", "GPL-2.0-or-later"),
        ("<!-- SPDX-License-Identifier: GPL-3.0-only -->\n", "GPL-3.0-only"),
        ("#\n" * 19 + "# SPDX-License-Identifier:\tISC", "ISC"),
        ("#\n" * 20 + "# SPDX-License-Identifier: ISC", None),
        ("no header", None),
        ("", None),
        ("# SPDX-License-Identifier:\n", None),
        ("# SPDX-License-Identifier: see LICENSE\n", "unknown"),
        ("# SPDX-License-Identifier: LicenseRef-Internal\n", "unknown"),
        ("# SPDX-License-Identifier: MIT/GPL-3.0-only\n", "unknown"),  # it begins like an expression
        ("# SPDX-License-Identifier: MIT, GPL-3.0-only\n", "unknown"),
        ("# SPDX-License-Identifier: MIT & GPL-3.0-only\n", "unknown"),
        ("# SPDX-License-Identifier: MIT_custom\n", "unknown"),
        ("# SPDX-License-Identifier: MIT (see LICENSE)\n", "unknown"),
        ("# SPDX-License-Identifier: ?\n", "unknown"),
        ("/* SPDX-License-Identifier: MIT*/ int x; /* y/z */", "MIT"),
        ("* SPDX-License-Identifier: MIT   *\n", "MIT"),
        ("{# SPDX-License-Identifier: MIT #}", "MIT"),
        ("<p>SPDX-License-Identifier: MIT</p>", "MIT"),
        ('"""SPDX-License-Identifier: MIT"""\n', "MIT"),
        ("# SPDX-License-Identifier: MIT\x0c\n", "MIT"),
        ('if "SPDX-License-Identifier:" in text:\n', None),
        ("# SPDX-License-Identifier: MIT\n# SPDX-License-Identifier: ISC OR MIT\n", "MIT AND (ISC OR MIT)"),
        ("# SPDX-License-Identifier: MIT\n# SPDX-License-Identifier: ?\n# SPDX-License-Identifier: BSD\n", "unknown"),
        ("# SPDX-License-Identifier: MIT) OR (ISC\n", "unknown"),
        ("# SPDX-License-Identifier: MIT\n" + "x" * 100_000, "MIT"),
        ("x" * 100_000 + " SPDX-License-Identifier: MIT\n", None),
        ("# SPDX-License-Identifier: MIT\n" * 30, " AND ".join(["MIT"] * 20)),
    ],
)
def test_the_header_of_a_file(text, licence):
    assert licence_of_text(text) == licence


@pytest.mark.parametrize("expression", [None, "", "x" * 2_000_000])
def test_what_is_no_text_or_too_long_is_unknown(expression):
    assert is_allowed(expression, ALLOWED) is None
