"""Metrics of Python that a model wrote, from its syntax tree; nothing is executed.

The text of an output starts inside a document, so prompt and output are parsed together. Limits bound what a hostile
output costs; an output beyond them does not parse.
"""

from __future__ import annotations

import ast
import math
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from codex_ml.evaluate.metrics.lexing import CHARACTERS
from codex_ml.evaluate.metrics.mean import Mean
from codex_ml.evaluate.metrics.protocol import Metric, Pair, ratio

PROMPT_CHARACTERS = 1 << 18  # of a prompt; a pair with a longer one does not count
_VERSION = f"python:{sys.version_info.major}.{sys.version_info.minor}"  # its grammar decides what parses
_LIMITS = f"prompt:{PROMPT_CHARACTERS}|output:{CHARACTERS}|{_VERSION}"


@lru_cache(maxsize=4)  # of one pair, five metrics ask for the same trees
def parsed(source: str) -> ast.Module | None:
    """Return the syntax tree of a Python module, or None if it does not parse on this Python."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such as an invalid escape sequence
        try:
            return ast.parse(source)
        except (
            SyntaxError,
            ValueError,
            RecursionError,
            MemoryError,
        ):  # null bytes; nesting deeper than the parser goes
            return None


def written_tree(item: Pair) -> ast.Module | None:
    """Return the syntax tree of prompt and output, or None if they do not parse.

    Where the whole does not parse, the last line of the output is left out: the limit of tokens may have cut it. A part
    of the output that is not blank must remain, so a prompt that parses alone is not enough.
    """
    if len(item.output) > CHARACTERS:
        return None
    for kept in (item.output, item.output[: item.output.rfind("\n") + 1]):
        if kept.strip() and (tree := parsed(item.prompt + kept)):
            return tree
    return None


def is_python(item: Pair) -> bool:
    """Whether the metrics of Python count a pair."""
    return item.language.lower() == "python" and len(item.prompt) <= PROMPT_CHARACTERS


def parses(item: Pair) -> float | None:
    """Whether prompt and output are Python; None for other languages."""
    return float(written_tree(item) is not None) if is_python(item) else None


def reference_parses(item: Pair) -> float | None:
    """`parses` of the reference: what the best output reaches, where prompts end inside a statement."""
    return parses(of_reference(item))


def of_reference(item: Pair) -> Pair:
    """A pair whose output is its reference."""
    return Pair(item.prompt, item.reference, item.reference, item.language, item.weight)


def same_code(item: Pair) -> float:
    """Whether output and reference are the same code.

    Python that parses together with the prompt is compared by syntax tree: comments, quotes, blank lines, optional
    brackets and the width of white space do not count. Everything else is compared by lines: indentation counts, other
    runs of white space count as one space, blank lines do not count.
    """
    if item.output == item.reference:
        return 1.0
    if is_python(item) and max(len(item.output), len(item.reference)) <= CHARACTERS:
        trees = parsed(item.prompt + item.output), parsed(item.prompt + item.reference)
        if trees[0] and trees[1]:
            try:
                first = _first_line(item.prompt)
                return float(_dump_from(trees[0], first) == _dump_from(trees[1], first))
            except RecursionError:  # nested too deeply for `ast.dump`, so it is compared by lines
                pass
    return float(_lines(item.output) == _lines(item.reference))


def _first_line(prompt: str) -> int:
    """Number of the line, from 1, in which the text after a prompt begins."""
    return prompt.replace("\r\n", "\n").replace("\r", "\n").count("\n") + 1


def _dump_from(tree: ast.Module, line: int) -> list[str]:
    """The statements of a module that reach `line`; those before it are the same in both texts."""
    return [ast.dump(node) for node in tree.body if (node.end_lineno or 0) >= line]


def _lines(text: str) -> list[str]:
    lines = (line.expandtabs() for line in text[:CHARACTERS].splitlines())
    return [" " * (len(line) - len(line.lstrip())) + " ".join(line.split()) for line in lines if line.strip()]


@dataclass(frozen=True)
class MeanComplexity:
    """Mean McCabe complexity (McCabe 1976) of the functions that a text continues or adds, as flake8 counts it.

    It judges nothing alone: compare that of outputs with that of references. `higher_is_better` is False, as linters
    have it.

    Attributes:
        of_output: whether the text is the output; else it is the reference.
    """

    of_output: bool
    higher_is_better: bool = False
    inputs: Literal["pair"] = "pair"
    bounds: tuple[float, float] = (1.0, math.inf)

    @property
    def name(self) -> str:
        return "complexity" if self.of_output else "reference_complexity"

    @property
    def columns(self) -> tuple[str, ...]:
        return ("complexity", "functions") if self.of_output else ("reference_complexity", "reference_functions")

    @property
    def signature(self) -> str:
        return f"functions of the text|mccabe:{version('mccabe')}|{_LIMITS}"

    def measure(self, item: Pair) -> Sequence[float]:
        item = item if self.of_output else of_reference(item)
        tree = written_tree(item) if is_python(item) else None
        if tree is None:
            return [0.0, 0.0]
        first = _first_line(item.prompt)
        own = [_complexity(node) for node in _functions(tree) if (node.end_lineno or 0) >= first]
        found = [number for number in own if number is not None]
        return [float(sum(found)), float(len(found))]

    def aggregate(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        return ratio(sums[..., 0], sums[..., 1])


def _functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Functions and methods, without the functions inside them, whose complexity counts for the outer one."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
        else:
            waiting.extend(ast.iter_child_nodes(node))


def _complexity(function: ast.AST) -> int | None:
    """McCabe complexity of one function; None where it nests deeper than Python's recursion limit."""
    from mccabe import PathGraphingAstVisitor

    visitor = PathGraphingAstVisitor()
    try:
        visitor.preorder(function, visitor)
    except RecursionError:
        return None
    return next(int(graph.complexity()) for graph in visitor.graphs.values())


_PARSES = f"prompt+text|unfinished last line left out|{_LIMITS}"

PYTHON_SOURCE: tuple[Metric, ...] = (
    Mean(
        "exact_match_code",
        same_code,
        f"exact:python by ast of prompt+text where both parse, else white space|{_LIMITS}",
    ),
    Mean("parse_rate", parses, _PARSES, counts_all=False),
    Mean("reference_parse_rate", reference_parses, _PARSES, counts_all=False),
    MeanComplexity(of_output=True),
    MeanComplexity(of_output=False),
)
