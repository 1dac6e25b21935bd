"""One answer of a stream: what of it may leave at each step, with the scores of exactly that text.

Used by: own_model.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from codex_ml.serve.api_answers import FILTERED, REASONS, Choice
from codex_ml.serve.engine_rows import Progress, TokenScore
from codex_ml.serve.screening import TextGate

if TYPE_CHECKING:
    from codex_ml.policy.filter_rules import Decision

QUICK = 4096  # characters, which the filter reads in milliseconds; more are read beside the event loop


class StreamedChoice:
    """Text goes through the gate. Scores spell tokens, so those of a token leave only after its text has left as it is.

    Attributes:
        tokens: number of new ids so far.
        finished: whether nothing more follows.
    """

    def __init__(self, index: int, gate: TextGate, *, scored: bool) -> None:
        self._index, self._gate, self._scored = index, gate, scored
        self._raw, self._left = "", 0  # text of the model, and number of characters that have left
        self._changed = False  # whether the filter has changed the text
        self._scores: list[TokenScore] = []
        self.tokens = 0
        self.finished = False

    @property
    def decision(self) -> Decision | None:
        return self._gate.decision

    @property
    def why(self) -> str:
        return self._gate.why

    async def add(self, progress: Progress) -> Choice | None:
        """What leaves after this report; None for nothing. The report must not be one of a failure."""
        held = len(self._raw) - self._left + len(progress.text)
        if held > QUICK or (progress.finished and len(self._raw) > QUICK):  # the end is read as a whole
            return await asyncio.to_thread(self._add, progress)
        return self._add(progress)

    def _add(self, progress: Progress) -> Choice | None:
        self.tokens = progress.tokens
        self._raw += progress.text
        self._scores += progress.scores
        text = self._gate.push(progress.text)
        if progress.finished and self._gate.decision != "refuse":
            text += self._gate.finish()
        refused = self._gate.decision == "refuse"
        self._changed = self._changed or refused or not self._raw.startswith(text, self._left)
        self._left += len(text)
        scores = self._ready(done=bool(progress.finished))
        self.finished = refused or progress.finished is not None
        if not (text or scores or self.finished):
            return None
        finish = FILTERED if refused else REASONS[progress.finished] if progress.finished else None
        return Choice(self._index, text, finish, self._gate.why if refused else "", scores if self._scored else None)

    def _ready(self, *, done: bool) -> list[TokenScore]:
        """Scores of the tokens whose text has left; a stop string and what follows it never leave."""
        if self._changed:
            return []
        ready = [one for one in self._scores if one.end <= self._left or (done and one.start < self._left)]
        self._scores = self._scores[len(ready) :]
        return ready
