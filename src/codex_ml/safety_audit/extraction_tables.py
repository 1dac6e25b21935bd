"""Tables and curves of the part memorisation: extraction by kind of text, by recency, by context, and by tries.

Used by: safety_audit.memorisation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from codex_ml.inference.likelihood import Window
from codex_ml.modeling.encoder_decoder import is_encoder_decoder
from codex_ml.modeling.positions import longest_sequence
from codex_ml.modeling.rows import Rows
from codex_ml.safety_audit.audit_job import AuditJob
from codex_ml.safety_audit.audit_windows import AuditWindow, WindowSet
from codex_ml.safety_audit.exact_share import exact_share
from codex_ml.safety_audit.extraction import Suffix, with_context
from codex_ml.safety_audit.plot_tables import significant, write_plot_table

Line = dict[str, Any]

TRAIN, HELD_OUT = "train", "held-out"
BY_PREFIX, BY_TRIES = "extraction_by_prefix.csv", "extraction_tries.csv"
MEASURED = ("windows", "share", "low", "high")
PREFIXES = (10, 25, 50, 100)  # tokens of context
TRIES = tuple(10**power for power in range(10))
REPEATS = ((2, 4), (5, 16), (17, None))  # how often text stands in the train stream: first and last of each class
NO_WINDOW = "there is no window of this kind of text"
QUARTERS = ("last", "third", "second", "first")


@dataclass(frozen=True)
class Side:
    """The windows of train text or of held-out text, and how well the model reproduces their suffixes.

    Attributes:
        name: TRAIN or HELD_OUT.
        suffixes: kind of `WindowSet` -> its suffixes; tokens of context -> suffixes of the curve.
        prefix: tokens of context of all but the curve.
    """

    name: str
    windows: WindowSet
    suffixes: Mapping[str | int, Sequence[Suffix]]
    prefix: int

    @property
    def once(self) -> Sequence[Suffix]:
        """The suffixes that numbers are about."""
        return self.suffixes["windows"]

    def pairs(self, kind: str) -> Iterator[tuple[AuditWindow, Suffix]]:
        """Windows of a kind with their suffixes."""
        return zip(getattr(self.windows, kind), self.suffixes[kind], strict=True)


def _line(
    head: Line, suffixes: Sequence[Suffix], confidence: float, positive: Callable[[Suffix], bool] | None = None
) -> Line:
    """A line of a table: the number of windows, and the share of them that is extracted, or `positive`."""
    count = sum(positive(suffix) if positive else suffix.extracted for suffix in suffixes)
    number = exact_share(count, len(suffixes), confidence=confidence, why=NO_WINDOW)
    limits = {"share": number.value, "low": number.low, "high": number.high}
    rounded = {name: None if value is None else significant(value) for name, value in limits.items()}
    return {**head, "windows": len(suffixes), **rounded}


def by_kind(sides: Sequence[Side], *, confidence: float) -> list[Line]:
    """How much is extracted of text that stands in train once, repeatedly, and of trivial text."""
    lines = []
    for side in sides:
        train = side.name == TRAIN
        once = "stands in train once" if train else "does not stand in train"
        lines.append(_line({"set": side.name, "text": once}, side.once, confidence))
        for first, last in REPEATS if train else ((1, None),):
            held = [
                suffix for window, suffix in side.pairs("repeated") if first <= window.duplicates <= (last or math.inf)
            ]
            times = f" {first} to {last} times" if last else f" {first} times or more" if train else ""
            lines.append(_line({"set": side.name, "text": f"stands in train{times}"}, held, confidence))
        lines.append(_line({"set": side.name, "text": "trivial"}, side.suffixes["trivial"], confidence))
    return lines


def by_recency(inside: Side, steps: int, *, confidence: float) -> list[Line]:
    """How much is extracted of text that was last seen in each quarter of the training steps.

    Args:
        inside: train text; its windows know when they were last seen.
        steps: number of optimizer steps.
    """
    quarters: list[list[Suffix]] = [[] for _ in QUARTERS]
    for window, suffix in inside.pairs("windows"):
        assert window.last_seen is not None
        quarters[4 * window.last_seen // steps].append(suffix)
    return [
        _line({"last_seen": f"{name} quarter of the steps"}, quarter, confidence)
        for name, quarter in zip(QUARTERS, quarters, strict=True)
    ]


def prefix_lengths(job: AuditJob, rows: Rows) -> list[int]:
    """Context lengths of the curve other than `prefix_tokens`, as far as the model and the rows reach.

    An encoder-decoder has none: its context is the half of a row.
    """
    if is_encoder_decoder(job.subject.model):
        return []
    most = min(longest_sequence(job.subject.model.config)[0], rows.seq_len) - job.settings.suffix_tokens
    return [length for length in PREFIXES if length <= most and length != job.settings.prefix_tokens]


def asked_for_curve(job: AuditJob) -> int:
    """How many windows the curve asks at each context.

    The other contexts together cost three times as much as `prefix_tokens`, so a quarter of the windows is asked.
    """
    return max(1, job.settings.sizes.windows // 4)


def prefix_windows(job: AuditJob, rows: Rows, windows: Sequence[AuditWindow]) -> Iterator[tuple[int, list[Window]]]:
    """Yield the tokens of context, and the first windows with this context and the same suffixes."""
    for length in prefix_lengths(job, rows):
        made = (
            with_context(rows, window, length, prefix=job.settings.prefix_tokens)
            for window in windows[: asked_for_curve(job)]
        )
        yield length, [window for window in made if window is not None]


def write_curves(job: AuditJob, sides: Sequence[Side]) -> None:
    """Write which share of windows is extracted by tokens of context, and by the number of samples.

    A window counts from the number of samples on in which the suffix is written at least once with a chance of a half.
    """
    confidence, lines = job.settings.confidence, list[Line]()
    for side in sides:
        curve = {length: suffixes for length, suffixes in side.suffixes.items() if isinstance(length, int)}
        curve[side.prefix] = side.once
        lines += [_line({"set": side.name, "prefix": length}, curve[length], confidence) for length in sorted(curve)]
    write_plot_table(job.plots / BY_PREFIX, ("set", "prefix", *MEASURED), lines)
    lines = [
        _line({"set": side.name, "tries": tries}, side.once, confidence, _within(tries))
        for side in sides
        for tries in TRIES
    ]
    write_plot_table(job.plots / BY_TRIES, ("set", "tries", *MEASURED), lines)


def _within(tries: int) -> Callable[[Suffix], bool]:
    return lambda suffix: suffix.tries <= tries
