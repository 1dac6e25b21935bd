"""The code that a person wrote in a notebook is kept character for character; outputs are left out."""

import json

import pytest

from codex_ml.ingest.readers.notebooks import code_of_notebook

CELLS = [
    "import math\nprint(math.tau)",
    "%matplotlib inline\n!ls *.csv\nfor i in range(3):\n    print(i)\n",
    "x = 'ä\\u2028\u2028'",
]
PNG = "iVBORw0KGgo" + "A" * 500


def lines(text):
    return text.splitlines(keepends=True)


def version_4(sources):
    outputs = [{"output_type": "display_data", "data": {"image/png": PNG}, "metadata": {}}]
    cells = [{"cell_type": "markdown", "metadata": {}, "source": "# Title"}]
    for source in sources:
        cells += [
            {"cell_type": "code", "metadata": {}, "execution_count": 1, "source": source, "outputs": outputs},
            {"cell_type": "code", "metadata": {}, "execution_count": None, "source": [], "outputs": []},
            {"cell_type": "raw", "metadata": {}, "source": "raw"},
        ]
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells}


def version_3(sources):
    code = [
        {
            "cell_type": "code",
            "language": "python",
            "input": s,
            "outputs": [{"output_type": "display_data", "png": PNG}],
        }
        for s in sources
    ]
    heading = [{"cell_type": "heading", "level": 1, "source": ["Title"]}]
    return {"nbformat": 3, "metadata": {"name": ""}, "worksheets": [{"cells": heading + code[:1]}, {"cells": code[1:]}]}


def code(notebook):
    return code_of_notebook(json.dumps(notebook).encode())


@pytest.mark.parametrize("form", [version_3, version_4])
@pytest.mark.parametrize("spelling", [str, lines], ids=["text", "list"])
def test_both_formats_and_both_spellings_give_the_same_code_without_outputs(form, spelling):
    wanted = CELLS[0] + "\n\n" + CELLS[1] + "\n" + CELLS[2]  # one blank line each: the second cell ends its last line
    assert code(form([spelling(cell) for cell in CELLS])) == wanted


def test_a_notebook_without_code_is_empty():
    assert code(version_4([])) == ""
    assert code(version_4(["", " \n"])) == ""
    assert code({"nbformat": 3, "worksheets": []}) == ""


def test_a_single_cell_stands_as_it_is():
    assert code(version_4(["a = 1\r\n\n\n"])) == "a = 1\r\n\n\n"


def test_a_byte_order_mark_is_not_damage():
    assert code_of_notebook(b"\xef\xbb\xbf" + json.dumps(version_4(["a"])).encode()) == "a"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'{"cells":[{"cell_type":"code","source":["x = 1\\n"', r"^not JSON \(line 1\)$"),
        (b"", r"^not JSON \(line 1\)$"),
        (b'{"nbformat": 4,\n"cells": [', r"^not JSON \(line 2\)$"),
        (b"[" * 200_000, "^not JSON"),
        (b'{"nbformat": 4, "cells": [], "cells": []}', "^not JSON: the key 'cells' stands twice in one object$"),
        (b'{"nbformat": 4, "cells": [{"source": "a", "source": "b"}]}', "^not JSON: the key 'source' stands twice"),
        (b'{"nbformat": 4, "cells": [], "metadata": {"a": {"b": 1, "b": 1}}}', "^not JSON: the key 'b' stands twice"),
        (b'{"nbformat": 4, "cells": [{"outputs": [NaN]}]}', "^not JSON: NaN is not JSON"),
        (b'{"nbformat": 4, "cells": [{"outputs": [-Infinity]}]}', "^not JSON: -Infinity is not JSON"),
        (b'{"nbformat": 4, "cells": [{"execution_count": 1e999}]}', "^not JSON: the number 1e999 is too large"),
        (b'{"nbformat": 4, "x": "\xff"}', r"^not JSON \(not UTF-8\)$"),
        (b"[]", "^not a notebook: no JSON object$"),
        (b'{"cells": []}', r"^not a notebook of format 3 or 4 \(nbformat\)$"),
        (b'{"nbformat": 2, "worksheets": []}', r"^not a notebook of format 3 or 4 \(nbformat\)$"),
        (b'{"nbformat": [4]}', r"^not a notebook of format 3 or 4 \(nbformat\)$"),
        (b'{"nbformat": 4, "cells": {}}', "^not a notebook: cells is not a list of objects$"),
        (b'{"nbformat": 4, "cells": [7]}', "^not a notebook: cells is not a list of objects$"),
        (b'{"nbformat": 3, "worksheets": 7}', "^not a notebook: cells is not a list of objects$"),
        (b'{"nbformat": 4, "cells": [{"cell_type": "code", "source": 7}]}', "neither a text nor a list of texts$"),
        (b'{"nbformat": 4, "cells": [{"cell_type": "code", "source": ["a", null]}]}', "neither a text nor a list"),
        (b'{"nbformat": 4, "cells": [{"cell_type": "code", "source": "\\ud800"}]}', "^a lone surrogate is not text$"),
    ],
)  # fmt: skip
def test_data_that_is_not_a_notebook_is_refused_with_a_reason(data, reason):
    with pytest.raises(ValueError, match=reason):
        code_of_notebook(data)
