"""An unknown licence never counts as permissive: SPDX expressions, METADATA of wheels, headers of files."""

from email.parser import HeaderParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codex_ml.core.errors import UserError
from codex_ml.documents.licence_mistakes import refuse_unknown_expression, refuse_unknown_licence
from codex_ml.documents.licences import is_allowed, licence_of_metadata, licence_of_text, normalise

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
        ("LicenseRef-Internal", False),
        ("AGPL-3.0", False),
        ("LGPL-2.1+", False),
        ("see COPYING", None),
        ("BSD", None),
        ("MIT AND", None),
        ("OR MIT", None),
        ("MIT MIT", None),
        ("MIT OR LicenseRef-Internal", True),
        ("licenseref-scancode-public-domain", False),  # a name of somebody's own, like each LicenseRef
        ("LicenseRef-MIT-TC", False),  # another name of MIT in ScanCode's index; SPDX knows none such
        ("DocumentRef-a:LicenseRef-b", False),
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
    assert is_allowed("LicenseRef-Internal", frozenset({"LicenseRef-Internal"})) is True
    assert is_allowed("unknown", frozenset({"unknown"})) is None
    assert is_allowed("MIT", frozenset()) is False


OWN = frozenset({"LicenseRef-ACME", "DocumentRef-x:LicenseRef-b", "MIT"})


@pytest.mark.parametrize(
    ("expression", "canonical", "verdict"),
    [
        ("LicenseRef-Acme", "LicenseRef-Acme", True),
        ("licenseref-acme", "LicenseRef-acme", True),  # annex D.2: identifiers are matched without case
        ("LICENSEREF-ACME.", "LicenseRef-ACME.", False),  # another name
        ("LicenseRef-Acme-2", "LicenseRef-Acme-2", False),
        ("documentref-X:LICENSEREF-B", "DocumentRef-X:LicenseRef-B", True),
        ("LicenseRef-b", "LicenseRef-b", False),  # of this document, not of x
        ("DocumentRef-y:LicenseRef-b", "DocumentRef-y:LicenseRef-b", False),
        ("MIT OR LicenseRef-Other", "MIT OR LicenseRef-Other", True),
        ("MIT AND LicenseRef-Other", "MIT AND LicenseRef-Other", False),
        ("mit and LicenseRef-Acme", "MIT AND LicenseRef-Acme", True),
        ("(GPL-3.0-only OR LicenseRef-acme) AND MIT", "(GPL-3.0-only OR LicenseRef-acme) AND MIT", True),
        ("LicenseRef-Acme WITH LLVM-exception", "LicenseRef-Acme WITH LLVM-exception", True),
        ("LicenseRef-Other WITH LLVM-exception", "LicenseRef-Other WITH LLVM-exception", False),
        ("LicenseRef-AND", "LicenseRef-AND", False),
        ("LicenseRef-MIT", "LicenseRef-MIT", False),
        ("LicenseRef-or-MIT", "LicenseRef-or-MIT", False),
        ("LicenseRef-", None, None),
        ("LicenseRef-Acme+", None, None),  # "+" belongs to identifiers of the list only
        ("LicenseRef-Ac me", None, None),
        ("LicenseRef-Ac_me", None, None),
        ("LicenseRef-Acmé", None, None),
        ("LicenseRef-Acme/MIT", None, None),
        ("LicenceRef-Acme", None, None),
        ("xLicenseRef-Acme", None, None),
        ("DocumentRef-x", None, None),
        ("DocumentRef-x:MIT", None, None),
        ("DocumentRef-x:LicenseRef-", None, None),
        ("DocumentRef-:LicenseRef-b", None, None),
        ("DocumentRef-x: LicenseRef-b", None, None),
        ("DocumentRef-x:DocumentRef-y:LicenseRef-b", None, None),
        ("MIT WITH LicenseRef-Acme", None, None),
        ("LicenseRef-Acme MIT", None, None),
        ("LicenseRef-Acme OR", None, None),
    ],
)
def test_a_licence_of_your_own_counts_by_its_whole_name(expression, canonical, verdict):
    assert normalise(expression) == canonical
    assert is_allowed(expression, OWN) is verdict


def test_an_exception_can_be_allowed_without_its_licence():
    allowed = frozenset({"gpl-2.0-only with classpath-exception-2.0"})
    assert is_allowed("GPL-2.0-only WITH Classpath-exception-2.0", allowed) is True
    assert is_allowed("GPL-2.0-only", allowed) is False
    assert is_allowed("GPL-2.0-only WITH GCC-exception-3.1", allowed) is False


LIST = "split.licences"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("Apache 2.0", "'Apache 2.0' is not an SPDX licence, so no document is under it; did you mean Apache-2.0?"),
        ("BSD3-Clause", "did you mean BSD-3-Clause?"),
        ("MIT-Licence", "did you mean"),
        ("LicenceRef-Acme", "a licence of your own is written LicenseRef-"),
        ("LicenseRef-Acme_Ltd", "a licence of your own is written LicenseRef-"),
        ("in house!", "a licence of your own is written LicenseRef-in-house"),
        ("proprietary", "a licence of your own is LicenseRef-proprietary; split.unknown_licence decides"),
        ("unknown", "a licence of your own is LicenseRef-unknown; split.unknown_licence decides"),
        ("NOASSERTION", "split.unknown_licence decides"),
        ("MIT OR ISC", "MIT OR ISC combines licences; list each of them as an entry of its own"),
        ("Classpath-exception-2.0", "is not an SPDX licence"),  # an exception is not a licence
        ("", "'' is not an SPDX licence"),
        ("M" * 5000, "is not an SPDX licence"),
        ("(" * 500, "is not an SPDX licence"),
    ],
)
def test_an_entry_that_no_document_can_match_is_refused(entry, message):
    with pytest.raises(UserError) as error:
        refuse_unknown_licence(entry, LIST)
    assert str(error.value).startswith("split.licences: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    "entry", ["MIT", "mit", "GPL-3.0", "LicenseRef-x", "DocumentRef-a:LicenseRef-b", "MIT WITH LLVM-exception"]
)
def test_an_entry_that_is_not_refused_matches_itself(entry):
    refuse_unknown_licence(entry, LIST)
    assert is_allowed(entry, frozenset({entry})) is True


@pytest.mark.parametrize("expression", ["", "unknown", "NOASSERTION", "proprietary", "MIT OR LicenseRef-a", "mit"])
def test_the_licence_of_a_source_is_an_expression_or_unknown(expression):
    refuse_unknown_expression(expression, "ingest.sources.0.licence")


@pytest.mark.parametrize("expression", ["Apache 2", "MIT OR", "see LICENSE", "LicenseRef_a", "MTI"])
def test_another_licence_of_a_source_is_refused(expression):
    with pytest.raises(
        UserError,
        match=r"^ingest\.sources\.0\.licence: '.*' is not an SPDX expression; .*LicenseRef-.*, or write unknown",
    ):
        refuse_unknown_expression(expression, "ingest.sources.0.licence")


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


def test_a_long_or_nested_expression_within_the_limits_is_read():
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
        (["License-Expression: MIT AND LicenseRef-Strict", classifier("MIT License")], "MIT AND LicenseRef-Strict"),
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
        ("# SPDX-License-Identifier: LicenseRef-Internal\n", "LicenseRef-Internal"),
        ("# SPDX-License-Identifier: documentref-a.1:licenseref-B OR mit */", "DocumentRef-a.1:LicenseRef-B OR MIT"),
        ("# SPDX-License-Identifier: MIT: see LICENSE\n", "unknown"),
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
def test_a_missing_empty_or_long_expression_is_unknown(expression):
    assert is_allowed(expression, ALLOWED) is None


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("Acme", None), ("Internal", None), ("LicenseRef-A_B", None), ("LicenseRef-", None), ("openrail", None),
        ("MIT-style", None), ("public domain", None), ("bsd", "BSD-3-Clause or BSD-2-Clause"), ("The MIT License", "MIT"),
        ("mit licence", "MIT"), ("Expat", "MIT"), ("GPLv3", "GPL-3.0-only"), ("agpl", "AGPL-3.0-only"), ("mpl", "MPL-2.0"),
        ("apache", "Apache-2.0"), ("PSF", "PSF-2.0"), ("CC-BY", "CC-BY-4.0"), ("EUPL", "EUPL-1.2"),
        ("Apach-2.0", "Apache-2.0"),
    ],
)  # fmt: skip
def test_the_advice_names_the_licence_that_was_meant_or_none(name, meant):
    with pytest.raises(UserError) as error:
        refuse_unknown_licence(name, "split.licences")
    advised = str(error.value).partition("did you mean ")[2].partition("?")[0]
    assert advised == (meant or "")
    assert "LicenseRef-LicenseRef" not in str(error.value)
