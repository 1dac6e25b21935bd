"""Ranks of canaries among references, and the exposure that follows from a rank.

The exposure of a secret is log2(N + 1) - log2(rank), where its rank is 1 plus the number of the N references that the
model finds at least as probable (Carlini et al. 2019, arXiv:1802.08232, section 4.3, by sampling). References that
are as probable as the secret rank before it: under a model that knows nothing every exposure is 0.

Used by: safety_audit.exposure, safety_audit.canary_tables.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from codex_ml.modeling.canary_files import Canary, CanaryList
from codex_ml.modeling.canary_secrets import canary_secrets
from codex_ml.modeling.rows import Rows
from codex_ml.modeling.train_files import Training
from codex_ml.safety_audit.audit_job import AuditJob
from codex_ml.safety_audit.canary_scores import (
    SecretScore,
    own_secret,
    rows_of_documents,
    score_secrets,
    secret_window,
    steps_of_rows,
)


def ranks(bits: NDArray[np.float64], references: NDArray[np.float64]) -> NDArray[np.int64]:
    """1 plus the number of references with at most as many bits: (n,) int64.

    Args:
        bits: (n,) of the secrets.
        references: (N,) ascending.

    >>> ranks(np.array([0.5, 2.0, 9.0]), np.array([1.0, 2.0, 3.0])).tolist()
    [1, 3, 4]
    """
    return 1 + np.searchsorted(references, bits, side="right")


def exposure_of(rank: int, references: int) -> float:
    """Exposure in bits of a rank from 1 to `references` + 1.

    >>> exposure_of(1, 1023), exposure_of(1024, 1023)
    (10.0, 0.0)
    """
    return math.log2(references + 1) - math.log2(rank)


def null_exposure(references: int) -> tuple[float, float]:
    """Mean and standard deviation of the exposure of a secret nobody ever saw: all its ranks are equally probable.

    With ever more references both become 1 / ln 2 = 1.4427.

    >>> [round(value, 3) for value in null_exposure(1000)]
    [1.436, 1.428]
    """
    exposures = math.log2(references + 1) - np.log2(np.arange(1, references + 2))
    return float(exposures.mean()), float(exposures.std())


@dataclass(frozen=True)
class MeasuredCanary:
    """A planted canary that the model saw.

    Attributes:
        repetitions: how often it was planted.
        sights: (optimizer step from 0, row of the train stream), ascending, one per copy that the kept weights saw in
            an epoch; at least one.
    """

    canary: Canary
    repetitions: int
    sights: list[tuple[int, int]]
    score: SecretScore
    rank: int
    exposure: float


@dataclass(frozen=True)
class Measured:
    """All measurements of the part.

    Attributes:
        canaries: in the order of canaries.json, without those never seen.
        planted: number of canaries by number of repetitions, with those never seen.
        references: (n,) bits of the references, ascending.
        controls: exposures of secrets that were never planted.
        own: score of what the model itself writes where a secret would begin.
        steps: optimizer steps of the kept weights.
    """

    canaries: list[MeasuredCanary]
    planted: dict[int, int]
    references: NDArray[np.float64]
    controls: list[float]
    own: SecretScore
    steps: int

    @property
    def ceiling(self) -> float:
        """The largest exposure that a rank among the references can show, in bits."""
        return math.log2(len(self.references) + 1)

    def seen(self, repetitions: int) -> list[MeasuredCanary]:
        """The canaries that were planted this many times and seen."""
        return [canary for canary in self.canaries if canary.repetitions == repetitions]


def measure(job: AuditJob, found: CanaryList, rows: Rows, training: Training) -> Measured:
    """Score the canaries, the controls and the references in one pass, and rank them."""
    model, tokenizer, settings, frame = job.subject.model, job.subject.tokenizer, job.settings, found.frame
    drawn = islice(canary_secrets(tokenizer, frame, first=found.next_draw), settings.sizes.references)
    secrets = [*found.planted, *found.controls, *drawn]
    windows = [secret_window(tokenizer, secret, frame.secret_tokens) for secret in secrets]
    windows.append(own_secret(model, tokenizer, secrets[-1], frame.secret_tokens))
    length = max(settings.prefix_tokens + settings.suffix_tokens, *(len(window.scored) for window in windows))
    tracked = job.track(windows, "score canaries", len(windows), "secrets")
    scores = list(score_secrets(model, tracked, length=length, batch_size=settings.batch_size))
    bits = np.array([score.bits for score in scores])
    compared = len(found.planted) + len(found.controls)
    references = np.sort(bits[compared:-1])
    places = ranks(bits[:compared], references).tolist()
    exposures = [exposure_of(rank, len(references)) for rank in places]
    sights = _sights(found.planted, rows, training)
    return Measured(
        canaries=[
            MeasuredCanary(canary, repetitions, seen, score, rank, exposure)
            for canary, repetitions, seen, score, rank, exposure in zip(
                found.planted, found.repetitions, sights, scores, places, exposures, strict=False
            )
            if seen
        ],
        planted={count: found.repetitions.count(count) for count in sorted(set(found.repetitions))},
        references=references,
        controls=exposures[len(found.planted) :],
        own=scores[-1],
        steps=training.global_step,
    )


def _sights(planted: Sequence[Canary], rows: Rows, training: Training) -> list[list[tuple[int, int]]]:
    """For each canary the steps that saw a copy of it, and the row of the copy."""
    row_of = rows_of_documents(rows, [document for canary in planted for document in canary.documents])
    steps = steps_of_rows(row_of.values(), len(rows), training)
    copies = ([row_of[document] for document in canary.documents] for canary in planted)
    return [sorted((step, row) for row in held for step in steps[row]) for held in copies]
