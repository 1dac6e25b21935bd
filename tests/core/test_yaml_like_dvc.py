"""Thousands of invented documents: each has the value that DVC reads, or is refused.

What DVC refuses is refused. What DVC reads may be refused too, but only for a reason of the list STRICTER.
"""

import random
import re
import warnings
from collections import Counter
from pathlib import Path

import pytest
from dvc.utils.serialize._yaml import loads_yaml

from codex_ml.core.errors import UserError
from codex_ml.core.yaml import parse_yaml

STRICTER = re.compile(
    r"p:\d+: (?:expected a mapping, found a string|nested deeper than|more than \d+ values|a line that begins with %|a tab cannot indent|an invisible end of line"
    r"|expected a space before|a mapping in brackets needs braces|a key must be a string|a tag without a value"
    r"|could not determine a value for the tag 'tag:yaml.org,2002:(?:set|binary|omap|timestamp|value)'"
    r"|found duplicate (?:anchor|key)|did not find expected alphabetic or numeric character"
    r"|'.*' looks like a value of type bool"
    # `:x` in braces, an empty key of a block, and what follows a block scalar without indentation
    r"|found unexpected ':'|did not find expected (?:node content|key|<document start>)|but found another document"
    r"|found character that cannot start any token)"
)  # fmt: skip

PLAIN = [
    "3e-4", "1e3", "1E+3", "010", "017", "0o17", "0o18", "0b101", "-0o7", "+0x1F", "0x", "0o", "0b", "1_000", "_1",
    "-_1", "1__0.5_0", ".5", "-.5", ".5e3", ".5e+3", "5.", "5.e3", "+.inf", "-.INF", ".nan", ".NaN", "-.nan", "yes",
    "no", "on", "off", "y", "N", "true", "TRUE", "tRue", "~", "null", "NULL", "nUll", "12:30:45", "1:2.5", "2024-05-06",
    "2024-5-6", "2024-05-06T01:02:03Z", "2001-1-1t1:02:03.9999995", "1.5.2", "1e", "1e+", "0e0", "0", "-0", "+0", "00",
    "0.0", "-0.0", "08", "0_", "1e400", "-1e-400", "a", "a#b", "a:b", "a?b", "c-d", "http://x/?y=z", "é",
    "9999999999999999999999999", "a\\b", "\U0001f600", "", "a b", "2024-05-06 1:02:03.1234567 +02:00",
    "2024-05-06 01:02:03 -5", "a\n   b", "a #b",
]  # fmt: skip
ODD = [
    "2024-13-40", "+_", "=", "<<", "'a''b'", '"x\\ty"', '"\\x41\\u00e9\\U0001F600"', '"\\/"', '"\\q"', "a: b", "::", ":a", "-a",
    "- a", "?a", "? a", "!!int 3", "!!str 3", "!!float 3", "!!float 1:2", "!!int '7'", "!!bool yes", "!!null x", "!!set {a, b}",
    "!!binary aGk=", "!!omap [a: 1]", "!!timestamp 2024-05-06", "!!map {}", "!!seq []", "!foo x", "! 12", "! '12'", "&a 1", "*a",
    "&b {x: 1, y: 2}", "*b", "&c [1,2]", "*c", "[]", "{}", "{a, b}", "[a: 1]", "[a:1]", "{a:1}", '{"a":1}', '["a":1]', "{a: }",
    "[,]", "[1,]", "[1,,2]", "{a: 1,}", "{? a : b}", "[? a]", "|\n   x\n   y", "|-\n   x\n", "|+\n   x\n\n", ">\n   x\n   y\n\n   z",
    ">2\n   x", "|2-\n   x", "|x", "%a", "@a", "`a", '"multi\n   line"', "9" * 5000, "-", "--- a", "...", "a\tb", "\ta", "'a\tb'",
    "\ufeff", "\x07", "\x7f", "\x80", "\x85", "\u2028", "\xa0", "\ud800", "!", "&", "*", "|", ">", "!<tag:yaml.org,2002:int> 3",
    "!!int [1]", "&é 1", "&a&b 1", '"a\\\n   b"', "#", "# c", "a:", "'", '"', "[", "]", "{", "}", "<<: *b", "? x\n  : y",
]  # fmt: skip
KEYS = [
    "a", "b", "<<", "1", "1.0", "01", "0x1", "true", "True", "~", "null", "no", "'a'", '"b"', "=", "? a", "2024-05-06", "[1]",
    "{x: 1}", "&k a", "*k", "*b", "!!str a", "!!int '1'", "-", "a:b", "", "é",
]  # fmt: skip
SIGNS = [*"\t\n :-,[]{}'\"#&*!|>%@`?<=~019aexon_.+\\\r\x85\ufeff", "\r\n", "---\n", "...\n", " #", "- ", ": "]


class Documents:
    """Random documents: scalars, flow and block collections, changed pieces of real files, and noise."""

    def __init__(self, seed: int, files: list[str]) -> None:
        self.random = random.Random(seed)
        self.files = files

    def document(self) -> str:
        kind = self.random.random()
        if kind < 0.3:
            return self.changed()
        if kind < 0.5:
            return "".join(f"{name}: {self.scalar()}\n" for name in "abcd")
        if kind < 0.65:
            return self.flow(0)
        if kind < 0.7:
            return "".join(self.random.choices(SIGNS, k=self.random.randint(1, 14)))
        start = self.random.choice(["", "", "", "---\n", "# c\n", "\ufeff", "%YAML 1.2\n---\n"])
        return start + self.block(0, 0).lstrip("\n") + self.random.choice(["", "", "", "...\n", "---\nx\n"])

    def scalar(self) -> str:
        return self.random.choice(ODD if self.random.random() < 0.1 else PLAIN)

    def key(self) -> str:
        return self.random.choice(KEYS) if self.random.random() < 0.1 else f"k{self.random.randint(0, 99)}"

    def flow(self, depth: int) -> str:
        kind, comma = self.random.random(), self.random.choice([", ", ",", ",\n  ", " ,"])
        if depth > 3 or kind < 0.5:
            return self.scalar()
        items = [self.flow(depth + 1) for _ in range(self.random.randint(0, 3))]
        if kind < 0.75:
            return f"[{comma.join(items)}]"
        colons = [": "] * 8 + [":", " : "]
        return "{" + comma.join(self.key() + self.random.choice(colons) + item for item in items) + "}"

    def block(self, depth: int, indent: int) -> str:
        kind, step = self.random.random(), self.random.choice([1, 2, 2, 2, 4])
        if depth > 3 or (depth and kind < 0.4):
            return f" {self.flow(depth)}{self.random.choice(['', '', ' # c', '  '])}\n"
        inner = [self.block(depth + 1, indent + step) for _ in range(self.random.randint(1, 4))]
        start = self.random.choice(["", "", "", "", " &a", " &b", " !!map"]) if depth else ""
        if kind < 0.6:
            return f"{start}\n" + "".join(f"{' ' * indent}-{item}" for item in inner)
        return f"{start}\n" + "".join(f"{' ' * indent}{self.key()}:{item}" for item in inner)

    def changed(self) -> str:
        lines = self.random.choice(self.files).splitlines(keepends=True)
        first = self.random.randrange(len(lines))
        text = "".join(lines[first : first + self.random.randint(3, 25)])
        for _ in range(self.random.choice([0, 1, 1, 2, 3])):
            at = self.random.randrange(len(text) + 1)
            added = self.random.choice([self.random.choice(SIGNS), "", self.scalar()])
            text = text[:at] + added + text[at + (0 if added else self.random.randint(1, 3)) :]
        return text


def same(ours: object, theirs: object) -> bool:
    """Equal, of equal types, with the keys in the same order; -0.0 is not 0.0, and NaN equals NaN."""
    if type(ours) is not type(theirs):
        return False
    if isinstance(ours, dict):
        return list(map(repr, ours)) == list(map(repr, theirs)) and all(same(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, list):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    if isinstance(ours, float):
        return repr(ours) == repr(theirs)
    return ours == theirs


def verdict(text: str) -> str:
    try:
        theirs = loads_yaml(text)
    except Exception:
        theirs = None
        dvc_reads = False
    else:
        dvc_reads = True
    try:
        ours = parse_yaml(text, "p")
    except UserError as error:
        if not dvc_reads:
            return "refused by both"
        assert STRICTER.match(str(error)), f"only we refuse {text!r}: {error}"
        return "refused by us"
    assert dvc_reads, f"only DVC refuses {text!r}, we read {ours!r}"
    assert same(ours, {} if theirs is None else theirs), f"{text!r}: we read {ours!r}, DVC reads {theirs!r}"
    return "the same value"


def compare(seed: int, count: int, repository: Path, project: Path) -> Counter[str]:
    names = ("params.yaml", "dvc.yaml", "data/policy.yaml", "models/presets.yaml")
    files = [((project if name != "dvc.yaml" else repository) / name).read_text(encoding="utf-8") for name in names]
    documents = Documents(seed, files)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ruamel.yaml: an anchor defined twice
        return Counter(verdict(documents.document()) for _ in range(count))


def test_a_thousand_documents_have_the_values_of_dvc(repository, project):
    counts = compare(1, 1000, repository, project)
    assert counts["the same value"] > 400 and counts["refused by both"] > 100 and counts["refused by us"] < 100, counts


@pytest.mark.slow
def test_ten_thousand_documents_have_the_values_of_dvc(repository, project):
    counts = compare(2, 10_000, repository, project)
    assert counts["the same value"] > 4000 and counts["refused by both"] > 999 and counts["refused by us"] < 999, counts
