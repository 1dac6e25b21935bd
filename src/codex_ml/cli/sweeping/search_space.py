"""The parameters that a sweep varies, read from `KEY=DISTRIBUTION`.

    train.lr=loguniform(1e-4,1e-2)      the logarithm is uniform
    train.weight_decay=uniform(0,0.2)
    train.accumulation=int(1,4)         whole numbers, both ends included
    model.layers=choice(2,4,8)          one of these values
    train.max_steps=300                 the same value in every trial

Used by: `codex-ml sweep`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from codex_ml.cli.sweeping.trial_values import check_value
from codex_ml.core.errors import UserError
from codex_ml.core.yaml import parse_yaml

FORMS = "uniform(LOW,HIGH), loguniform(LOW,HIGH), int(LOW,HIGH), choice(A,B,...), or one value"
KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*")
CALL = re.compile(r"([a-z]+)\((.*)\)", re.DOTALL)
DIGITS = 6  # significant digits of a sampled number: enough to tell trials apart, short enough to read
LARGEST_INT = 2**53


@dataclass(frozen=True)
class SweepAxis:
    """One parameter of a sweep.

    Attributes:
        key: its dotted name in params.yaml.
        kind: uniform, loguniform, int or choice; a constant is a choice of one value.
        low, high: of the numbers, both included.
        options: of a choice, as the user wrote them.
    """

    key: str
    kind: str
    low: float = 0.0
    high: float = 0.0
    options: tuple[str, ...] = ()

    @property
    def varies(self) -> bool:
        """Whether two trials can differ in it."""
        return len(self.options) != 1 if self.kind == "choice" else self.low < self.high

    def values(self) -> list[str]:
        """Every value, for a grid; `uniform` and `loguniform` have infinitely many.

        Raises:
            UserError: for `uniform` and `loguniform`.
        """
        if self.kind == "choice":
            return list(self.options)
        if self.kind == "int":
            return [str(number) for number in range(int(self.low), int(self.high) + 1)]
        raise UserError(
            f"--method grid needs a list of values for {self.key}, and {self.kind} has infinitely many; write "
            f"{self.key}=choice(...), or use --method sobol"
        )

    def at(self, share: float) -> str:
        """The value at a share of the axis, from 0 to 1 (excluded), as text of params.yaml.

        >>> SweepAxis("train.lr", "loguniform", 1e-4, 1e-2).at(0.5)
        '0.001'
        """
        if self.kind == "choice":
            return self.options[min(int(share * len(self.options)), len(self.options) - 1)]
        if self.kind == "int":
            return str(min(int(self.low) + int(share * (self.high - self.low + 1)), int(self.high)))
        if self.kind == "loguniform":
            logarithm = math.log(self.low) + share * (math.log(self.high) - math.log(self.low))
            return self.rounded(math.exp(logarithm))
        return self.rounded(self.low + share * (self.high - self.low))

    def holds(self, text: str) -> bool:
        """Whether a text is a value of the axis."""
        if self.kind == "choice":
            return text in self.options
        try:
            return self.low <= (int(text) if self.kind == "int" else float(text)) <= self.high
        except (ValueError, OverflowError):
            return False

    def rounded(self, number: float) -> str:
        """A number of `uniform` or `loguniform` with DIGITS significant digits, inside the axis."""
        return repr(min(max(float(f"{number:.{DIGITS}g}"), self.low), self.high))


def read_axes(settings: list[str]) -> tuple[SweepAxis, ...]:
    """The axes of `--set` options, in their order.

    Raises:
        UserError: for a setting of another form, a key given twice, or a key that no sweep may vary.
    """
    axes = tuple(map(read_axis, settings))
    for number, axis in enumerate(axes):
        if axis.key in (other.key for other in axes[:number]):
            raise UserError(f"--set {axis.key}=... is given twice; name each key once")
    if not any(axis.varies for axis in axes):
        raise UserError(
            "no --set gives more than one value, so all trials would be equal; write for example "
            "--set 'train.lr=loguniform(1e-4,1e-2)'"
        )
    return axes


def read_axis(setting: str) -> SweepAxis:
    """One axis from `KEY=DISTRIBUTION`; see the module for the forms.

    Raises:
        UserError: for anything else.
    """
    if not setting.isprintable():
        raise UserError(f"--set {setting!r}: a setting is one line without control characters; YAML has \\n in quotes")
    key, equals, text = setting.partition("=")
    text = text.strip()
    if not equals or not KEY.fullmatch(key) or not text:
        raise UserError(f"--set {setting}: expected KEY=DISTRIBUTION with {FORMS}")
    if key.startswith("runtime."):
        raise UserError(f"--set {setting}: a key of runtime changes no result; set it in params.yaml and commit that")
    call = CALL.fullmatch(text)
    if call is None:
        if _at_commas(text)[1:]:
            raise UserError(f"--set {setting}: for several values write '{key}=choice({text})'")
        return SweepAxis(key, "choice", options=(_checked(text, setting),))
    kind, inner = call[1], _at_commas(call[2])
    if kind == "choice":
        options = tuple(_checked(option, setting) for option in inner)
        if len(set(options)) != len(options):
            raise UserError(f"--set {setting}: a value is given twice; name each once")
        return SweepAxis(key, kind, options=options)
    if kind not in ("uniform", "loguniform", "int"):
        raise UserError(f"--set {setting}: {kind} is not a distribution; expected {FORMS}")
    low, high = _bounds(kind, inner, setting)
    return SweepAxis(key, kind, low, high)


def _bounds(kind: str, inner: list[str], setting: str) -> tuple[float, float]:
    try:
        low, high = (float(int(text)) if kind == "int" else float(text) for text in inner)
    except (ValueError, OverflowError):
        what = "two whole numbers" if kind == "int" else "two numbers"
        raise UserError(f"--set {setting}: {kind} takes {what}, LOW and HIGH") from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UserError(f"--set {setting}: LOW must be below HIGH, and both finite")
    if kind == "loguniform" and low <= 0:
        raise UserError(f"--set {setting}: LOW of loguniform must be above 0")
    if kind == "int" and max(abs(low), abs(high)) > LARGEST_INT:
        raise UserError(f"--set {setting}: the numbers must lie within 2^53")
    return low, high


def _at_commas(text: str) -> list[str]:
    """Split at the commas that lie outside brackets and quotes.

    >>> _at_commas("[a, b], 'c,d', 3")
    ['[a, b]', "'c,d'", '3']
    """
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter in "[{(":
            depth += 1
        elif letter in "]})":
            depth -= 1
        if letter == "," and not quote and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


def _checked(option: str, setting: str) -> str:
    """A value as the user wrote it, if it is one value of YAML that DVC can set."""
    if not option:
        raise UserError(f"--set {setting}: a value is empty; write null or '' for it")
    try:
        check_value(parse_yaml(f"value: {option}", f"--set {setting}")["value"])
    except ValueError as error:
        raise UserError(f"--set {setting}: {error}") from None
    return option
