"""The other values of a list or a table of which a rule has found the first one.

One match of a pattern has one value. `tokens = ["A", "B"]`, a YAML list with one value per line, the rows of a table
below the name of a secret, and the rows of an INSERT have more, so this module goes on from the first one. An element
that cannot be a value (`""`, "two words") does not end its list. Each element is visited once, also if many names lead
to it, so the cost is that of the text.
Used by: match.py, which confirms each value by the checks of the rule; horizon.py, which waits for the end of the list.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from functools import partial
from itertools import accumulate, pairwise

SHORTEST = 8  # characters of a value, as in the patterns of the rules
LONGEST = 300  # characters of a row; a longer one ends its table
AHEAD = 2 * LONGEST + 100  # characters after a value that decide whether its list goes on: to the end of the next row

_VALUE = r"[^\s\"'`,<>\[\]{}()\\]{1,300}"
_MARK = r"<[^<>\s]{6,58}>"  # a placeholder
# Before the first value of a list in brackets; `f("A", "B")` is a call, and `name = ("A", "B")` is a list.
_OPENED = re.compile(r"(?:[\[{]|(?<![\w\])])\()\s{0,40}[bfru]{0,2}\Z")
_GAP = r"\s{0,40}(?:(?:#|//)[^\n]{0,80}\n\s{0,24})?"
_NEXT = re.compile(
    rf"[\"'`]?{_GAP},{_GAP}(?:[bfru]{{0,2}}(?:([\"'`])({_VALUE}|{_MARK})\1|\"[^\"\n]{{0,100}}\"|'[^'\n]{{0,100}}')"
    rf"|({_VALUE}|{_MARK}))(?={_GAP}[,\])}}])"
)
_DASHED = re.compile(r"(\r?\n[ \t]{0,40}- )\Z")
_REST = re.compile(r"[\"']?[ \t]{0,20}(?:#[^\n]{0,80})?(?:\r?\n[ \t]{0,40}(?:#[^\n]{0,80})?){0,2}(?=\r?\n)")
_ITEM = re.compile(rf"[\"']?({_VALUE}|{_MARK})(?=[\"']?[ \t]{{0,20}}(?:#[^\n]{{0,80}})?(?:\r?\n|\Z))|[^\n]{{0,100}}")
_TUPLE = re.compile(r"\s{0,20},?\s{0,40}\(((?:'[^'\n]{0,100}'|[^()'\n]){1,200})\)")
_END_OF_TUPLE = 160
_QUOTED = {'"': re.compile(r'"[^"\n]*"'), "'": re.compile(r"'[^'\n]*'")}
_CELL = re.compile(rf"[\s\"'`]*+({_VALUE})[\s\"'`]*+\Z")

_QUOTES = frozenset("\"'`")
_OPENING = frozenset("[{(")
_JOINS = frozenset("[{(,;|-\t\r\n bru")  # what is before a value, or before its quote and one blank

Span = tuple[int, int]


def may_be_listed(text: str, start: int) -> bool:
    """A cheap test for a value that begins at an offset: whether the characters before it can be those of a list."""
    place = start - 2 if text[start - 1 : start] in _QUOTES else start - 1
    if text[place : place + 1] == " ":
        place -= 1
    return place >= 0 and text[place] in _JOINS


class Others:
    """Finds the other values of lists and tables in one text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._ends: dict[int, int] = {}  # where a value begins -> where its list ends

    def after(self, match: re.Match[str], span: Span, run: re.Pattern[str] | None) -> tuple[list[Span], int]:
        """The other values after the one that a match found, and the offset at which their list ends.

        Args:
            match: of a rule; one of its groups `row` matches in a table, and `tuple` in an INSERT.
            span: of the value.
            run: what continues the value.
        """
        walk = self._walk(match, span[0])
        if walk is None:
            return [], span[1]
        last = run.match(self._text, span[1]).end() if run else span[1]  # type: ignore[union-attr]  # it may be empty
        found: list[Span] = []
        for start, end in walk(last):
            if start in self._ends:
                last = self._ends[start]
                break
            found.append((start, end))
            last = max(last, end)
        self._ends |= dict.fromkeys((start for start, _ in found), last)
        return [(start, end) for start, end in found if start < end], last

    def _walk(self, match: re.Match[str], start: int) -> Callable[[int], Iterator[Span]] | None:
        """What yields the values after an offset; None if the value is in no list."""
        if match.re.groups > 1:
            row, row2, row3, values = match.group("row", "row2", "row3", "tuple")
            if row is not None or row2 is not None or row3 is not None:
                return partial(self._rows, start)
            if values is not None:
                return partial(self._tuples, start)
        before = self._text[max(0, start - 48) : start].rstrip("\"'`")
        if before.endswith("- "):
            dashed = _DASHED.search(before)
            return partial(self._items, dashed[1]) if dashed else None
        return self._elements if before.rstrip("bru \t\r\n")[-1:] in _OPENING and _OPENED.search(before) else None

    def _elements(self, end: int) -> Iterator[Span]:
        """The values of a list in brackets after the one that ends at `end`."""
        while found := _NEXT.match(self._text, end):
            group = 2 if found[2] else 3
            end = found.end(group) if found[group] else found.end()
            yield found.span(group) if found[group] else (end, end)

    def _items(self, dash: str, end: int) -> Iterator[Span]:
        """The values of a list with one value per line, each after `dash`."""
        while (rest := _REST.match(self._text, end)) and self._text.startswith(dash, rest.end()):
            found = _ITEM.match(self._text, rest.end() + len(dash))
            assert found is not None  # it may be empty
            end = found.end(1) if found[1] else found.end()
            yield found.span(1) if found[1] else (end, end)

    def _rows(self, start: int, end: int) -> Iterator[Span]:
        """The values of the rows below, in the column of the value."""
        text = self._text
        line = text.rfind("\n", 0, start) + 1
        end = _end_of_line(text, end)
        separator = next((c for c in "|\t;," if c in text[line:end]), ",")
        cells = _cells(text, (line, end), separator, "" if separator == "|" else '"')
        column, width = bisect_right(cells, start, key=lambda cell: cell[0]) - 1, len(cells)
        while (line := end + 1) < len(text):
            end = _end_of_line(text, line)
            cells = _cells(text, (line, end), separator, "" if separator == "|" else '"')
            if len(cells) != width or end - line > LONGEST or not text[line:end].strip():
                return
            yield _value_in(text, cells[column])

    def _tuples(self, start: int, end: int) -> Iterator[Span]:
        """The values of the next rows of an INSERT, in the column of the value."""
        text = self._text
        column = text.count(",", text.rfind("(", 0, start), start)
        place = text.find(")", end, end + _END_OF_TUPLE) + 1
        while place and (row := _TUPLE.match(text, place)):
            cells = _cells(text, row.span(1), ",", "'")
            if len(cells) <= column or row.end() - place > LONGEST:
                return
            yield _value_in(text, cells[column])
            place = row.end()


def _cells(text: str, span: Span, separator: str, quote: str) -> list[Span]:
    """The cells of a row; a separator between two quotes separates nothing."""
    row = text[span[0] : span[1]]
    if quote and quote in row:
        row = _QUOTED[quote].sub(lambda quoted: "-" * len(quoted[0]), row)
    ends = list(accumulate((len(cell) + 1 for cell in row.split(separator)), initial=span[0]))
    return [(start, end - 1) for start, end in pairwise(ends)]


def _value_in(text: str, cell: Span) -> Span:
    """The value of a cell; an empty span for a cell without one."""
    found = _CELL.match(text, *cell)
    return found.span(1) if found else (cell[1], cell[1])


def _end_of_line(text: str, start: int) -> int:
    """Offset of the next end of a line, at most one character more than `LONGEST` away."""
    end = text.find("\n", start, start + LONGEST + 1)
    return end if end >= 0 else min(len(text), start + LONGEST + 1)
