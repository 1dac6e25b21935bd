"""Markdown of texts of unknown origin: lines, tables and code blocks. Used by: report.card, report.card_results."""

from __future__ import annotations

import re

from codex_ml.core.errors import safe_line, safe_text
from codex_ml.report.cells import Table

# What CommonMark, GFM's extensions (tables, strikethrough, links, mentions) or a maths renderer reads as markup inside
# a line. All else is text without a backslash: `train.max_steps`, `(1)`, `+0.5`, `C#`.
MARKUP = re.compile(
    r"[\\`*\[<|~@$^{}]"
    r"|(?<![^\W_])_|_(?![^\W_])"  # between letters an underscore is text (CommonMark 0.31.2, section 6.2, rule 2)
    r"|(?<!\w)#"  # closes a heading, or is the number of an issue
    r"|&(?=#?\w)|:(?=//)|(?<=www)\."
)


def escape(text: str) -> str:
    """Escape text of unknown origin for the middle of a line: Markdown and HTML show it and do not interpret it."""
    return MARKUP.sub(r"\\\g<0>", safe_line(text))


def markdown_table(content: Table) -> str:
    """Return a GFM table; a cell can neither end its row nor start another column."""
    marks = ["---:" if kind == "number" else "---" for kind in content.kinds]
    rows = (content.head, *content.rows)
    head, *body = ("| " + " | ".join(escape(cell) for cell in row) + " |" for row in rows)
    return "\n".join([head, "| " + " | ".join(marks) + " |", *body])


def fenced(text: str) -> str:
    """Return a code block whose fence is longer than any run of backticks in the text."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{safe_text(text)}\n{fence}"
