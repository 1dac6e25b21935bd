"""The text policy of the endpoint: prompts before the model reads them, answers before they leave.

An answer is read after its prompt: a value that begins in the prompt, or that only its prompt makes a secret, does not
leave either.

Used by: own_model, upstream.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from codex_ml.policy.filters import ScreenedText, TextFilter
from codex_ml.policy.streaming import AnswerFilter
from codex_ml.serve.api_counters import Counters

if TYPE_CHECKING:
    from codex_ml.policy.filter_rules import Decision

RANK: dict[Decision | None, int] = {None: 0, "allow": 1, "redact": 2, "refuse": 3}


class TextGate(Protocol):
    """A filter of a text that arrives in pieces: what comes out may leave."""

    def push(self, text: str) -> str:
        """Add a piece; return what may leave."""
        ...

    def finish(self) -> str:
        """Return the rest."""
        ...

    @property
    def decision(self) -> Decision | None:
        """The decision so far; "refuse" is final. None without a policy."""
        ...

    @property
    def why(self) -> str:
        """One sentence; "" for a text that is allowed."""
        ...


class _Open:
    """Without a policy everything passes."""

    decision: Decision | None = None
    why = ""

    def push(self, text: str) -> str:
        return text

    def finish(self) -> str:
        return ""


@dataclass(frozen=True)
class Screening:
    """The filter that an endpoint applies.

    Attributes:
        screen: None: no policy.
        digest: SHA-256 of the file of the policy, hexadecimal; None without a policy.
    """

    screen: TextFilter | None
    digest: str | None
    counters: Counters

    def prompt(self, texts: Iterable[str]) -> tuple[list[str], Decision | None, str]:
        """What the model may read of the texts of a request: (texts, the strictest decision, why)."""
        if self.screen is None:
            return list(texts), None, ""
        screened = list(map(self.screen.screen_input, texts))
        decision, why = strictest(screened)
        self.counters.decided("prompt", decision)
        return [one.text for one in screened], decision, why

    def answer(self, text: str, before: str) -> tuple[str, Decision | None, str]:
        """What may leave of a whole answer: (text, decision, why).

        Args:
            before: the screened text that the answer follows.
        """
        gate = self.gate(before)
        left = gate.push(text) + gate.finish()
        return "" if gate.decision == "refuse" else left, gate.decision, gate.why

    def gate(self, before: str) -> TextGate:
        """A filter of one answer that is sent while it is written.

        Args:
            before: the screened text that the answer follows.
        """
        return _Open() if self.screen is None else AnswerFilter(self.screen, before)


def strictest(screened: Iterable[ScreenedText]) -> tuple[Decision, str]:
    """The strictest decision of several texts, and its reason."""
    worst = max(screened, key=lambda one: RANK[one.decision], default=ScreenedText("allow", ""))
    return worst.decision, worst.why


Decided = tuple["Decision | None", str]  # a decision, and why


def stricter(one: Decided, other: Decided) -> Decided:
    """The stricter of two decisions with its reason, the first of equal ones; None if there is no policy."""
    return max(one, other, key=lambda decided: RANK[decided[0]])
