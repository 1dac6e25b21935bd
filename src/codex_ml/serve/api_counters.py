"""EngineCounts of the endpoint for /metrics, in the text format of Prometheus. They hold numbers only, never a text.

Used by: serve.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping
from threading import Lock

PREFIX = "codex_ml_serve_"
BOUNDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)  # seconds


class Counters:
    """EngineCounts since the start; safe for several threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._decisions: Counter[tuple[str, str]] = Counter()
        self._dropped: Counter[str] = Counter()
        self._buckets = [0] * (len(BOUNDS) + 1)
        self._seconds = 0.0

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Count a request and the time until its answer was complete."""
        with self._lock:
            self._requests[path, status] += 1
            self._buckets[bisect_left(BOUNDS, seconds)] += 1
            self._seconds += seconds

    def decided(self, side: str, decision: str) -> None:
        """Count a decision of the filter about a "prompt" or an "answer"."""
        with self._lock:
            self._decisions[side, decision] += 1

    def dropped(self, why: str) -> None:
        """Count an answer that was not delivered: "gone", "slow" or "timeout"."""
        with self._lock:
            self._dropped[why] += 1

    def as_text(self, gauges: Mapping[str, tuple[str, str, float]]) -> str:
        """All numbers as lines.

        Args:
            gauges: name -> (type, help, value) of numbers that others count.
        """
        return "".join(f"{line}\n" for line in self._lines(gauges))

    def _lines(self, gauges: Mapping[str, tuple[str, str, float]]) -> Iterator[str]:
        with self._lock:
            requests, decisions, dropped = dict(self._requests), dict(self._decisions), dict(self._dropped)
            buckets, seconds = list(self._buckets), self._seconds
        for name, (kind, text, value) in gauges.items():
            yield from _head(name, kind, text)
            yield f"{PREFIX}{name} {_number(value)}"
        yield from _head("requests_total", "counter", "Answered requests by path and status")
        for (path, status), count in sorted(requests.items()):
            yield f'{PREFIX}requests_total{{path="{path}",status="{status}"}} {count}'
        yield from _head("filter_decisions_total", "counter", "Decisions of the text policy by side")
        for (side, decision), count in sorted(decisions.items()):
            yield f'{PREFIX}filter_decisions_total{{side="{side}",decision="{decision}"}} {count}'
        yield from _head("dropped_total", "counter", "Answers that were not delivered, by reason")
        for why, count in sorted(dropped.items()):
            yield f'{PREFIX}dropped_total{{reason="{why}"}} {count}'
        yield from _head("request_seconds", "histogram", "Seconds until an answer was complete")
        total = 0
        for bound, count in zip((*map(str, BOUNDS), "+Inf"), buckets, strict=True):
            total += count
            yield f'{PREFIX}request_seconds_bucket{{le="{bound}"}} {total}'
        yield f"{PREFIX}request_seconds_sum {seconds:.6f}"
        yield f"{PREFIX}request_seconds_count {total}"


def _number(value: float) -> str:
    """All digits: a rate over a counter that is rounded to six digits is wrong beyond a million."""
    return str(int(value)) if float(value).is_integer() else repr(value)


def _head(name: str, kind: str, text: str) -> tuple[str, str]:
    return f"# HELP {PREFIX}{name} {text}", f"# TYPE {PREFIX}{name} {kind}"
