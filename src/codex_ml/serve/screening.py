"""The text policy of the endpoint: prompts before the model reads them, answers before they leave.

Used by: own_model, upstream.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from codex_ml.policy.filters import ScreenedText, TextFilter
from codex_ml.policy.streaming import StreamFilter
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
        screened = [self._screened(text, answer=False) for text in texts]
        if self.screen is None:
            return [one.text for one in screened], None, ""
        decision, why = strictest(screened)
        self.counters.decided("prompt", decision)
        return [one.text for one in screened], decision, why

    def answer(self, text: str) -> tuple[str, Decision | None, str]:
        """What may leave of a whole answer: (text, decision, why)."""
        if self.screen is None:
            return text, None, ""
        found = self._screened(text, answer=True)
        self.counters.decided("answer", found.decision)
        return found.text, found.decision, found.why

    def gate(self) -> TextGate:
        """A filter of one answer that is sent while it is written."""
        return _Open() if self.screen is None else StreamFilter(self.screen)

    def _screened(self, text: str, *, answer: bool) -> ScreenedText:
        if self.screen is None:
            return ScreenedText("allow", text)
        return self.screen.screen_output(text) if answer else self.screen.screen_input(text)


def strictest(screened: Iterable[ScreenedText]) -> tuple[Decision, str]:
    """The strictest decision of several texts, and its reason."""
    worst = max(screened, key=lambda one: RANK[one.decision], default=ScreenedText("allow", ""))
    return worst.decision, worst.why


def worse(one: Decision | None, other: Decision | None) -> Decision | None:
    """The stricter of two decisions; None if there is no policy."""
    return max(one, other, key=lambda decision: RANK[decision])
