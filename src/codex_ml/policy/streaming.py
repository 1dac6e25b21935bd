"""The filter of answers for a text that is still being written: what has left holds no part of a value.

A filter that looks at each piece of a stream by itself misses a value that two pieces share. This one holds back the
end of the text until no rule can still reach it (horizon.py), and passes on the rest. So the pieces that leave, joined,
are the text that `TextFilter.screen_output` gives for the whole answer, however the answer was cut into pieces.

What is held back: in ordinary text at most 210 characters and the current word; after a literal of a rule, such as
`token`, what the rule can read (mostly 210 to 480 characters, 760 after a mail address, 5,000 after `-----BEGIN`); a
text without white space, a private key and base64 in lines until they end; of a row of numbers or of words of thousands
of characters a sixteenth more. At `MAX_CHARACTERS` the filter refuses the answer, as for a whole one. An answer leaves
as a whole at its end if a detector of another package reads it, or if `filters.output.injection` is not `allow`: a
disguised order has no bound.

`finish` screens the whole answer once more. Where that differs from what has left, nothing more leaves.
Used by: serve, `codex-ml generate`.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

from codex_ml.policy.filter_rules import Decision
from codex_ml.policy.filters import MAX_CHARACTERS, TextFilter
from codex_ml.policy.finding import Finding
from codex_ml.policy.horizon import end_of_word
from codex_ml.policy.reach import FoldedLength
from codex_ml.policy.redacted_output import CONTEXT

STEP = 32  # characters after which the text is looked at again, or a part of what is held back or kept
NEVER = 1 << 62
LINE = re.compile(r" \(line \d+\)")


class StreamFilter:
    """The filter of one answer.

    Attributes:
        decision: "allow", "redact" or "refuse". Final after `finish`; "refuse" is final at once: nothing more leaves.
        findings: what the decision rests on; complete after `finish` or a refusal.
        why: one sentence for people; "" if the text is allowed.

    >>> stream = StreamFilter(load_filter(POLICY, DETECTORS, KEY))  # doctest: +SKIP
    >>> shown = [stream.push(piece) for piece in ("a mail to jane.", "roe@acme-lab.org")]  # doctest: +SKIP
    >>> "".join(shown) + stream.finish()  # doctest: +SKIP
    'a mail to <SECRET:email:9f86d081>'
    """

    def __init__(self, screen: TextFilter) -> None:
        self._screen = screen
        self._pieces, self._left = list[str](), list[str]()  # the text as it came, and what has left
        self._window, self._sent = "", 0  # the end of the text, and how much of it has left
        self._size, self._next = 0, STEP
        self._full = screen.horizon.context  # characters that have left before some are forgotten
        if not screen.horizon.bounded or screen.rules.output.injection != "allow":
            self._next = NEVER
        self.decision: Decision = "allow"
        self.findings: tuple[Finding, ...] = ()
        self.why = ""

    def push(self, text: str) -> str:
        """Add text to the answer; return what may leave."""
        left = len(self._left)
        while text and self.decision != "refuse":
            piece, text = text[: self._next - self._size], text[self._next - self._size :]
            self._pieces.append(piece)
            self._window += piece
            self._size += len(piece)
            if self._size > MAX_CHARACTERS:
                self._refuse(f"the answer has more than {MAX_CHARACTERS} characters, which the filter does not read")
            elif self._size == self._next:
                self._advance()
        return "".join(self._left[left:])

    def finish(self) -> str:
        """End the answer; return the rest of it, or "" if it is refused."""
        if self.decision == "refuse":
            return ""
        whole = self._screen.screen_output("".join(self._pieces))
        gone = "".join(self._left)
        self.decision, self.findings, self.why = whole.decision, whole.findings, whole.why
        if whole.decision == "refuse":
            return ""
        if not whole.text.startswith(gone):
            self._refuse("the end of the answer changes what the policy finds in its beginning, which has left")
            return ""
        self._next = NEVER
        return whole.text[len(gone) :]

    def _refuse(self, why: str) -> None:
        self.decision, self.why = "refuse", why
        self._window = ""

    def _advance(self) -> None:
        """Let the part of the text leave that is settled."""
        text, horizon = self._window, self._screen.horizon
        found = [finding for finding in self._screen.values_in_output(text) if finding.action != "allow"]
        if any(finding.start < self._sent < finding.end for finding in found):
            self._next = NEVER  # `finish` decides
            return
        cut = self._border(horizon.settled(text, found), found)
        ready = [finding for finding in found if self._sent <= finding.start and finding.end <= cut]
        if any(finding.action == "block" for finding in ready):
            self._refuse_values()
            return
        if cut > self._sent:
            moved = [replace(f, start=f.start - self._sent, end=f.end - self._sent) for f in ready]
            self._left.append(self._screen.redacted(text[self._sent : cut], moved))
            self.decision = "redact" if moved else self.decision
            self._sent = cut
            self._forget()
        held, more = len(self._window) - self._sent, len(self._window) - 2 * horizon.context
        self._next = self._size + max(STEP, held // 8, more // 16)

    def _forget(self) -> None:
        """Drop text that the rules need no more. It is tried only when a quarter more has come: it may be in vain."""
        if self._sent < self._full:
            return
        horizon = self._screen.horizon
        kept = horizon.start_of_scan(self._window, FoldedLength(self._window[: self._sent]).back(horizon.context))
        self._window, self._sent = self._window[kept:], self._sent - kept
        self._full = self._sent * 5 // 4

    def _refuse_values(self) -> None:
        whole = self._screen.screen_output("".join(self._pieces))
        if whole.decision == "refuse":
            self._refuse(whole.why)
            self.findings = whole.findings
        else:
            self._next = NEVER

    def _border(self, place: int, found: list[Finding]) -> int:
        """The last offset up to `place` that is inside no value and no word."""
        values = [(finding.start, finding.end) for finding in found if finding.start < place]
        while True:
            place = end_of_word(self._window, place, self._sent)
            while values and values[-1][0] >= place:
                values.pop()
            if not values or values[-1][1] <= place:
                return place
            place = values[-1][0]


class AnswerFilter:
    """The filter of one answer, read after its prompt: after `password = "` more values are secrets than alone.

    The answer passes two filters. The first one reads the end of the prompt too, and gives a placeholder at the
    beginning of the answer for a value that begins in the prompt. The second one reads the answer alone, because a
    value that touches the prompt is hidden by it. So the text is that of `redacted_output`.

    What prompts may hold and answers may not is replaced in the prompt before the answer is read. Otherwise the filter
    would refuse the prompt, or the answer because of its prompt.

    Args:
        prompt: what the model has read, as `TextFilter.screen_input` returned it.

    Attributes:
        decision, why: as of `StreamFilter`; the reason names no lines, which would count from inside the prompt.
    """

    def __init__(self, screen: TextFilter, prompt: str = "") -> None:
        self._before = screen.replaced_in_output(prompt[-CONTEXT:])
        self._after, self._alone = StreamFilter(screen), StreamFilter(screen)
        self._passed = 0  # characters of the prompt that have come out of the first filter
        self._first = self._after.push(self._before)

    @property
    def decision(self) -> Decision:
        """The stronger decision of both filters."""
        return max((self._after.decision, self._alone.decision), key=("allow", "redact", "refuse").index)

    @property
    def why(self) -> str:
        return LINE.sub("", self._after.why or self._alone.why)

    @property
    def rules(self) -> dict[str, int]:
        """How many values of each rule were replaced or refused in the answer; complete after `finish`."""
        after = [f for f in self._after.findings if f.end > len(self._before) and f.action != "allow"]
        return dict(Counter(finding.rule for finding in [*after, *self._alone.findings] if finding.action != "allow"))

    def push(self, text: str) -> str:
        """Add text to the answer; return what may leave."""
        return self._alone.push(self._answer(self._after.push(text)))

    def finish(self) -> str:
        """End the answer; return the rest of it, or "" if it is refused."""
        rest = self._alone.push(self._answer(self._after.finish()))
        if self._after.decision == "refuse":
            return ""
        return rest + self._alone.finish()

    def _answer(self, text: str) -> str:
        """The text without the characters of the prompt at its beginning."""
        text, self._first = self._first + text, ""
        rest = self._before[self._passed :]
        same = next(
            (at for at, (a, b) in enumerate(zip(text, rest, strict=False)) if a != b), min(len(text), len(rest))
        )
        self._passed = len(self._before) if same < min(len(text), len(rest)) else self._passed + same
        return text[same:]
