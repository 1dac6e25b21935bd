"""Unknown is never silently permissive: SPDX expressions, METADATA of wheels, headers of files."""

from email.parser import HeaderParser

import pytest

from codex_ml.data.licences import is_allowed, licence_of_metadata, licence_of_text, normalise

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
    ],
)
def test_the_verdict_of_an_expression(expression, verdict):
    assert is_allowed(expression, ALLOWED) is verdict


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
        (["License-Expression: MIT OR", "License: MIT"], "MIT"),
        ([classifier("MIT License"), "Classifier: Programming Language :: Python"], "MIT"),
        ([classifier("Apache Software License"), classifier("MIT License")], "Apache-2.0 OR MIT"),
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
    ],
)
def test_the_header_of_a_file(text, licence):
    assert licence_of_text(text) == licence
