"""The likelihood of the test documents. Used by: evaluate."""

from __future__ import annotations

import re
import zlib
from collections import Counter, deque
from collections.abc import Iterator
from typing import Any

import numpy as np

from codex_ml.core.errors import CheckFailed, UserError, one_line
from codex_ml.documents.document import Document, count_documents, read_documents
from codex_ml.evaluate.groups import groups_table, write_groups
from codex_ml.evaluate.item_tables import content_hash, unit_of, write_table
from codex_ml.evaluate.job import Job
from codex_ml.evaluate.metrics.likelihood_metrics import needs_whole_text
from codex_ml.evaluate.metrics.protocol import ScoredDocument
from codex_ml.evaluate.ngram import NgramModel, train_ngram
from codex_ml.evaluate.plot_files import CALIBRATION, write_plots
from codex_ml.evaluate.summary import summarise
from codex_ml.evaluate.units import read_pools
from codex_ml.inference.evaluate_files import DOCUMENTS, LossyTexts, TaskResult
from codex_ml.inference.likelihood import Score, Scoring, score
from codex_ml.modeling.examples import Scorable, scorables
from codex_ml.modeling.pack_files import PLAIN
from codex_ml.modeling.prompt_template import templated

ZLIB_LEVEL = 9
TEXTS = ("source", "path", "language", "licence", "group", "content")
NGRAM = "ngram_bits"
ALWAYS = ("nll", "tokens", "top1", "bytes", "words", "zlib_bits")  # columns, whatever metrics are chosen


class ScoredTexts:
    """The documents of a file on their way through the model, in order.

    Attributes:
        waiting: what is known of each document whose score is still to come.
        lossy: number of texts that the tokenizer does not reproduce.
        unscored: number of documents with nothing to score, by reason.
        forms: number of the scored chats, and of the scored records of a prompt and a completion.
    """

    def __init__(self, job: Job, baseline: NgramModel | None) -> None:
        self._job, self._baseline = job, baseline
        self.waiting: deque[tuple[dict[str, str], dict[str, Any]]] = deque()
        self.lossy = 0
        self.unscored: Counter[str] = Counter()
        self.forms = Counter({"chats": 0, "records": 0})
        self._first: dict[str, str] = {}

    def sequences(self) -> Iterator[Scorable]:
        """Yield what is scored of each document."""
        subject, test = self._job.subject, self._job.data.test
        documents = templated(read_documents(test), subject.template)
        found = scorables(documents, subject.tokenizer, loss_on=subject.loss_on, length=subject.length)
        for document, item in zip(read_documents(test), found, strict=True):
            if isinstance(item, Scorable):
                self.lossy += not item.lossless
                self.forms["chats"] += document.messages is not None
                self.forms["records"] += document.prompt is not None or document.completion is not None
                self.waiting.append((document_texts(document), text_numbers(item.text, self._baseline)))
                yield item
            else:
                self.unscored[item.reason] += 1
                self._first.setdefault(item.reason, one_line(f"{document.id} of {document.source}: {item.why}"))

    def notes(self) -> list[str]:
        """What was not scored, one sentence per reason."""
        return [
            f"documents with nothing to score ({reason}): {count}, such as {self._first[reason]}"
            for reason, count in sorted(self.unscored.items())
        ]

    def scored(self) -> Iterator[tuple[dict[str, str], ScoredDocument]]:
        """Yield the text columns and the numbers of each document that has something to score."""
        for result in score(self._job.subject.model, self.sequences(), scoring_of(self._job)):
            texts, numbers = self.waiting.popleft()
            yield texts, _measured(texts, numbers, result)


def documents_task(job: Job) -> dict[str, TaskResult]:
    """Score every test document, as it was trained; see `codex_ml.modeling.examples`.

    Raises:
        UserError: when no document has anything to score.
        CheckFailed: when a likelihood is not a finite number.
    """
    baseline = ngram_baseline(job)
    texts, counts, columns = ScoredTexts(job, baseline), {"bytes": 0, "tokens": 0}, job.metrics.columns("score")
    always = (*ALWAYS, *CALIBRATION.columns)
    scored = job.track(texts.scored(), "evaluate", count_documents(job.data.test), "documents")
    with write_table(job.results, DOCUMENTS, texts=TEXTS, numbers=dict.fromkeys((*always, *columns))) as table:
        for row, item in scored:
            numbers = {name: float(getattr(item, name)) for name in ALWAYS}
            numbers |= zip(CALIBRATION.columns, CALIBRATION.measure(item), strict=True)
            table.add(row, numbers | dict(zip(columns, job.metrics.measure(item), strict=True)))
            counts["bytes"] += item.bytes
            counts["tokens"] += item.tokens
    if not table.rows:
        raise UserError(
            f"{job.data.test} has no documents that can be scored; add some, or, of a split, raise split.test"
        )
    of_baseline = [m.name for m in job.metrics.of("score") if NGRAM in m.columns]
    absent = dict.fromkeys([] if baseline else of_baseline, _why_no_baseline(job))
    optional: dict[str, Any] = {}
    if texts.lossy:
        reason = f"no bits per byte: the tokenizer does not give {texts.lossy} of {table.rows} test documents back"
        optional["lossy"] = LossyTexts(documents=texts.lossy, reason=reason)
        absent |= {m.name: reason for m in job.metrics.of("score") if needs_whole_text(m.columns)}
    file = job.results / f"{DOCUMENTS}.parquet"
    values = summarise(job, file, "score", absent=absent)
    if baseline:
        signed = {name: f"{values[name].signature}|{baseline.signature}" for name in of_baseline}
        values |= {name: values[name].model_copy(update={"signature": text}) for name, text in signed.items()}
    groups = groups_table(job, file, values)
    write_groups(job.results, groups)
    write_plots(job.plots, groups, file)
    result = TaskResult(
        task=DOCUMENTS,
        items=table.rows,
        units=read_pools(file).count,
        settings=_settings(job, baseline),
        metrics=values,
        counts={
            **counts,
            **texts.forms,
            **{f"unscored_{reason}": number for reason, number in sorted(texts.unscored.items())},
        },
        notes=texts.notes(),
        **optional,
    )
    return {DOCUMENTS: result}


def scoring_of(job: Job) -> Scoring:
    """How the likelihood is computed."""
    subject, settings = job.subject, job.settings
    return Scoring(subject.length, settings.stride, settings.batch_size, subject.precision, subject.compile)


def document_texts(document: Document) -> dict[str, str]:
    """The text columns that say which document a row is about."""
    return {
        "item": document.id,
        "unit": unit_of(document),
        "content": content_hash(document.content),
        **{name: getattr(document, name) for name in TEXTS if name != "content"},
    }


def ngram_baseline(job: Job) -> NgramModel | None:
    """The n-gram model of the train documents; None if the settings or the data have none."""
    if not job.settings.ngram_order or job.data.train is None:
        return None
    return train_ngram((document.content for document in read_documents(job.data.train)), job.settings.ngram_order)


def _why_no_baseline(job: Job) -> str:
    why = "no train documents were given" if job.settings.ngram_order else "evaluate.ngram_order is 0"
    return f"there is no n-gram model ({why})"


def text_numbers(text: str, baseline: NgramModel | None) -> dict[str, Any]:
    """The numbers of a scored text that the model has no part in. The baselines read this text alone."""
    data = text.encode("utf-8")
    return {
        "bytes": len(data),
        "words": len(re.split(r"\s+", text)),  # as lm-evaluation-harness counts
        "zlib_bits": 8 * len(zlib.compress(data, ZLIB_LEVEL)),
        NGRAM: baseline.bits(text) if baseline else float("nan"),
    }


def _measured(texts: dict[str, str], numbers: dict[str, Any], result: Score) -> ScoredDocument:
    if not np.isfinite(result.nll):
        raise CheckFailed(
            f"the model gives document {texts['item']} ({texts['source']}) a log-likelihood of {-result.nll:g}: its "
            "weights or activations are not finite; train it with a lower learning rate, or use evaluate.precision fp32"
        )
    return ScoredDocument(
        nll=result.nll,
        tokens=result.tokens,
        top1=result.top1,
        top5=result.top5,
        calibration=result.calibration,
        **numbers,
    )


def _settings(job: Job, baseline: NgramModel | None) -> dict[str, Any]:
    subject, settings = job.subject, job.settings
    return {
        "length": subject.length,
        "stride": settings.stride or subject.length,
        "batch_size": settings.batch_size,
        "precision": subject.precision,
        "compile": subject.compile,
        "loss_on": subject.loss_on,
        **({} if subject.template == PLAIN else {"template": subject.template.name}),
        "begin": "END" if subject.tokenizer.bos is None else "BOS",
        "end": "END is scored, as a token of zero bytes; a chat ends as its template ends it",
        "zlib_level": ZLIB_LEVEL,
        "ngram": baseline.signature if baseline else "none",
    }
