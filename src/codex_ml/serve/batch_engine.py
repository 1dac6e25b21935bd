"""One thread owns the model and writes many texts at once, one token of each per step (continuous batching).

New texts join the running batch between two steps: their prompts are read as a batch of their own, and the keys and
values of both are put together. The logits of a text depend on its neighbours in the last bits only, and its random
keys on its own seed only, so neighbours do not change a text (see `codex_ml.inference.sampling`). Where a model's cache
cannot be joined (sliding windows, recurrent states, encoder-decoders), new texts wait for the end of the batch.

Used by: own_model.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from codex_ml.core.errors import CheckFailed
from codex_ml.inference.decoding import CausalDecoder, PairDecoder, batch_key, start_decoder
from codex_ml.inference.growing_text import Ending, GrowingText
from codex_ml.inference.sampling import Sampling, draw_keys, next_tokens
from codex_ml.serve.engine_rows import EngineCounts, EngineRow, Progress, Reports, TokenScore, Wanted

if TYPE_CHECKING:
    from torch import Tensor

    from codex_ml.tokens.text_tokenizer import TextTokenizer

log = logging.getLogger("codex_ml")
PREFILL_TOKENS = 8192  # of prompts that are read in one step, padding included; a longer prompt is read alone


class QueueFull(Exception):
    """More texts wait than the engine allows."""


class BatchEngine:
    """Runs until `close`.

    Args:
        max_batch: texts that are written at once.
        max_waiting: further texts that wait for a place.
        deliver: is called from the engine's thread with the reports of one step, and must call `report` of each row.

    >>> engine = BatchEngine(model, tokenizer, max_batch=32, max_waiting=256)  # doctest: +SKIP
    >>> rows = engine.submit([wanted], report=print)  # doctest: +SKIP
    """

    def __init__(
        self,
        model: Any,
        tokenizer: TextTokenizer,
        *,
        max_batch: int,
        max_waiting: int,
        deliver: Callable[[Reports], None],
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.max_batch, self.max_waiting = max_batch, max_waiting
        self.counts = EngineCounts()
        self._deliver = deliver
        self._waiting: deque[EngineRow] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._rows: list[EngineRow] = []
        self._decoder: CausalDecoder | PairDecoder | None = None
        self._reports: Reports = []
        self._thread = threading.Thread(target=self._run, name="codex-ml engine", daemon=True)
        self._thread.start()

    def submit(self, wanted: Sequence[Wanted], report: Callable[[int, Progress], None]) -> list[EngineRow]:
        """Let texts wait for their place: all of them or none. `report` is called with the number of a text.

        Raises:
            QueueFull: when too many wait already, or the engine is closed.
        """
        rows = [self._row(one, number, report) for number, one in enumerate(wanted)]
        with self._changed:
            self._waiting = deque(row for row in self._waiting if not row.cancelled)  # whose clients have left
            free = self.max_batch - len(self._rows)
            if self._closed or len(self._waiting) + len(rows) > self.max_waiting + max(free, 0):
                raise QueueFull
            self._waiting.extend(rows)
            self.counts.waiting = len(self._waiting)
            self._changed.notify()
        return rows

    def _row(self, wanted: Wanted, number: int, report: Callable[[int, Progress], None]) -> EngineRow:
        ending = Ending(wanted.ends, wanted.sampling.stop, wanted.sampling.max_tokens)
        keys = draw_keys(wanted.seed, wanted.key, wanted.sample, wanted.sampling.max_tokens)
        text = GrowingText(self.tokenizer, list(wanted.ids), ending)
        draws = replace(wanted.sampling, max_tokens=1, stop=())
        return EngineRow(wanted, draws, text, keys, lambda progress: report(number, progress))

    def close(self) -> None:
        """End the thread; texts that are not done get no further report."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive() and not self._closed

    def _run(self) -> None:
        import torch

        with torch.inference_mode():
            while self._has_work():
                try:
                    self._admit()
                    if self._rows:
                        self._step()
                except BaseException as error:  # a panic of a Rust library is not an Exception
                    self._fail(self._rows, error)
                    self._rows, self._decoder = [], None
                self.counts.running = len(self._rows)
                self._flush()

    def _has_work(self) -> bool:
        with self._changed:
            while not (self._closed or self._waiting or self._rows):
                self._changed.wait()
            return not self._closed

    def _admit(self) -> None:
        """Read the prompts of waiting texts that may run with the current batch."""
        running = self._decoder
        if running is not None and not (isinstance(running, CausalDecoder) and running.joinable):
            return
        new = self._next_waiting(self.max_batch - len(self._rows))
        if not new:
            return
        ids = [row.wanted.ids for row in new]
        try:
            started = start_decoder(self.model, ids, [len(one) for one in ids])
        except Exception as error:  # such as too little memory for these prompts; the running texts go on
            self._fail(new, error)
            return
        self.counts.prompt_tokens += sum(map(len, ids))
        if running is None:
            self._decoder = started
        else:
            assert isinstance(started, CausalDecoder)
            running.join(started)
        self._rows += new

    def _next_waiting(self, places: int) -> list[EngineRow]:
        new: list[EngineRow] = []
        width, group = 0, None
        with self._changed:
            while self._waiting and len(new) < places:
                row = self._waiting[0]
                ids = row.wanted.ids
                own = batch_key(self.model, ids, len(ids))
                wider = max(width, len(ids))
                if not row.cancelled:
                    if new and (own != group or wider * (len(new) + 1) > PREFILL_TOKENS):
                        break
                    new.append(row)
                    width, group = wider, own
                self._waiting.popleft()
            self.counts.waiting = len(self._waiting)
        return new

    def _step(self) -> None:
        """Write one token of each text, and let the texts that have ended or are cancelled go."""
        import torch

        assert self._decoder is not None
        chosen = self._choose(self._decoder.logits)
        for row, token in zip(self._rows, chosen.tolist(), strict=True):
            if not row.cancelled:
                self._add(row, token)
        self.counts.steps += 1
        kept = [place for place, row in enumerate(self._rows) if not (row.cancelled or row.text.finished)]
        if len(kept) < len(self._rows):
            self._rows = [self._rows[place] for place in kept]
            if not kept:
                self._decoder = None
                return
            places = torch.tensor(kept).to(chosen.device)
            self._decoder.keep(places)
            chosen = chosen[places]
            if isinstance(self._decoder, CausalDecoder) and self._decoder.joinable:
                self._decoder.trim()
        self._decoder.add(chosen)

    def _choose(self, logits: Tensor) -> Tensor:
        """The next token of each row, (rows,) int64; rows with equal sampling are drawn together."""
        import numpy as np
        import torch

        keys = torch.from_numpy(np.array([row.keys[row.step] for row in self._rows])).to(logits.device)
        groups: dict[Sampling, list[int]] = {}
        for place, row in enumerate(self._rows):
            groups.setdefault(row.draws, []).append(place)
        chosen = torch.empty(len(self._rows), dtype=torch.int64, device=logits.device)
        for draws, places in groups.items():
            at = torch.tensor(places).to(logits.device)
            chosen[at] = next_tokens(logits[at], draws, keys[at], None)
        self._score(logits, chosen)
        return chosen

    def _score(self, logits: Tensor, chosen: Tensor) -> None:
        import torch

        places = [place for place, row in enumerate(self._rows) if row.wanted.top is not None]
        if not places:
            return
        at = torch.tensor(places).to(logits.device)
        logarithms = logits[at].log_softmax(-1)
        own = logarithms.gather(-1, chosen[at, None])[:, 0].tolist()
        most = max(self._rows[place].wanted.top or 0 for place in places)
        values, ids = logarithms.topk(most) if most else (None, None)
        for number, place in enumerate(places):
            row = self._rows[place]
            top: list[tuple[int, float]] = []
            if ids is not None and values is not None:
                top = list(zip(ids[number].tolist(), values[number].tolist(), strict=True))[: row.wanted.top]
            start = len(row.text.text)
            row.scores.append(TokenScore(int(chosen[place]), own[number], start, start, tuple(top)))

    def _add(self, row: EngineRow, token: int) -> None:
        row.step += 1
        row.text.add(token)
        text, finished, streamed = row.text, row.text.finished, row.wanted.streamed
        self.counts.new_tokens += finished != "end"
        if row.scores:
            last = row.scores.pop()
            if finished != "end":  # END is not in the text
                row.scores.append(replace(last, end=max(len(text.text), last.start)))
        if not (finished or streamed):
            return
        try:
            new = text.take() if streamed else text.text
        except CheckFailed as error:  # of this text alone; the others go on
            self._fail([row], error)
            row.cancel()
            return
        self._reports.append((row, Progress(new, len(text.tokens), tuple(row.scores), finished)))
        row.scores = []

    def _fail(self, rows: Sequence[EngineRow], error: BaseException) -> None:
        said = str(error) if isinstance(error, CheckFailed) else type(error).__name__  # a message may quote a text
        log.error("serve: the model failed on %d texts: %s", len(rows), said)
        self._reports += [(row, Progress("", row.step, finished="error")) for row in rows]

    def _flush(self) -> None:
        if self._reports:
            reports, self._reports = self._reports, []
            self._deliver(reports)
