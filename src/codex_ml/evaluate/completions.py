"""The text that a model writes for held-out documents, compared with their own.

Metrics are computed on the raw text. What is stored is redacted by the text policy, because a model can repeat a
secret that it has seen. Used by: evaluate.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from codex_ml.core.errors import UserError
from codex_ml.documents.document import opened, read_documents
from codex_ml.evaluate.completion_prompts import Completion, NotCompleted, PromptMaker, document_key, rank
from codex_ml.evaluate.documents import TEXTS as DOCUMENT_TEXTS
from codex_ml.evaluate.item_tables import content_hash, write_table
from codex_ml.evaluate.job import Job
from codex_ml.evaluate.metrics.protocol import Pair
from codex_ml.evaluate.summary import summarise
from codex_ml.inference.evaluate_files import COMPLETIONS, TaskResult
from codex_ml.inference.generation import Generation, Prompt, generate
from codex_ml.inference.sampling import Sampling
from codex_ml.modeling.prompt_template import templated
from codex_ml.policy.redacted_output import redacted_output

SPARE = 4  # documents that are tried for each one that is completed
TEXTS = (*DOCUMENT_TEXTS, "split_at", "prompt", "reference", "finished", "output")
COUNTED = ("cut_prompts", "cut_references", "finished_end", "finished_length", "finished_stop", "tokens")


@dataclass(frozen=True)
class Sample:
    """The documents that are completed.

    Attributes:
        completions: in the order of their ranks.
        skipped: reason -> number of documents that were tried and cannot be completed.
    """

    completions: list[Completion]
    skipped: Counter[str]


def completions_task(job: Job) -> dict[str, TaskResult]:
    """Generate text for a sample of the test documents; {} where `evaluate.completions.documents` is 0.

    Raises:
        UserError: when the model sees too few tokens at once for the text and a prompt.
    """
    settings = job.settings.completions
    if not settings.documents:
        return {}
    if settings.max_tokens >= job.subject.length:
        raise UserError(
            f"evaluate.completions.max_tokens {settings.max_tokens} leaves no room for a prompt: the model was trained "
            f"on {job.subject.length} tokens at once; lower it"
        )
    sample, columns = choose(job), job.metrics.columns("pair")
    counts, units = Counter(dict.fromkeys(COUNTED, 0)), set()
    texts = zip(sample.completions, generated(job, sample.completions), strict=True)
    with write_table(job.results, COMPLETIONS, texts=TEXTS, numbers=columns) as table:
        for completion, text in job.track(texts, "complete", len(sample.completions), "documents"):
            output = completion.cut(text.text)
            pair = Pair(
                prompt=completion.prompt,
                output=output,
                reference=completion.reference,
                language=completion.texts["language"],
                weight=completion.weight,
            )
            numbers = dict(zip(columns, job.metrics.measure(pair), strict=True))
            table.add(row_texts(completion, text, redacted_output(job.data.redact, completion.prompt, output)), numbers)
            units.add(completion.texts["unit"])
            for name, more in (
                (f"finished_{text.finished}", 1),
                (f"split_at_{completion.kind}", 1),
                ("cut_prompts", text.cut_prompt),
                ("cut_references", completion.cut_reference),
                ("tokens", len(text.tokens)),
            ):
                counts[name] += more
    values = summarise(job, job.results / f"{COMPLETIONS}.parquet", "pair") if columns and table.rows else {}
    skipped = sorted(sample.skipped.items())
    result = TaskResult(
        task=COMPLETIONS,
        items=table.rows,
        units=len(units),
        settings={**settings.model_dump(mode="json"), "length": job.subject.length, "precision": "fp32"},
        metrics=values,
        counts=dict(sorted(counts.items())),
        notes=[f"documents that are not completed: {count}, because each {why}" for why, count in skipped],
    )
    return {COMPLETIONS: result}


def choose(job: Job) -> Sample:
    """Choose documents by a hash of their names, so that neither their order nor other documents nor the seed decides.

    The test split is read twice: once for the names, once for the chosen documents. Each document that is tried is
    split at once, so that prompts wait in memory and no documents.
    """
    count, test = job.settings.completions.documents, job.data.test
    maker = PromptMaker(job.subject.tokenizer, job.settings.completions)
    ranks = {row: key for key, row in heapq.nsmallest(SPARE * count, _ranks(job))}
    tried: list[tuple[str, Completion | str]] = []
    for row, document in enumerate(templated(read_documents(test), job.subject.template)):
        if row in ranks:
            try:
                tried.append((ranks[row], maker.make(document)))
            except NotCompleted as reason:
                tried.append((ranks[row], str(reason)))
    sample = Sample([], Counter())
    for _, found in sorted(tried, key=lambda item: item[0]):
        if len(sample.completions) == count:
            break
        if isinstance(found, Completion):
            sample.completions.append(found)
        else:
            sample.skipped[found] += 1
    return sample


def _ranks(job: Job) -> Iterator[tuple[str, int]]:
    """(rank, row) of every test document; reads their names only."""
    names, row = ["source", "path", "id"], 0
    with opened(job.data.test) as file:
        for batch in file.iter_batches(columns=names):
            for source, path, id in zip(*(batch.column(name).to_pylist() for name in names), strict=True):
                yield rank(document_key(source, path, id)), row
                row += 1


def generated(job: Job, completions: list[Completion]) -> Iterator[Generation]:
    """The model's text after each prompt."""
    settings = job.settings.completions
    sampling = Sampling(
        max_tokens=settings.max_tokens,
        temperature=settings.temperature,
        top_k=settings.top_k,
        top_p=settings.top_p,
        repetition_penalty=settings.repetition_penalty,
        stop=settings.stop,
        context=job.subject.length,
    )
    ends = _turn_ends(job) if any(completion.kind == "chat" for completion in completions) else ()
    prompts = (
        Prompt(completion.ids, completion.key, ends=ends if completion.kind == "chat" else ())
        for completion in completions
    )
    size, subject = job.settings.batch_size, job.subject
    return generate(subject.model, subject.tokenizer, prompts, sampling, seed=job.seed, batch_size=size)


def _turn_ends(job: Job) -> tuple[int, ...]:
    """Ids that end an answer: those of the template, and those of the model's own settings."""
    from codex_ml.tokens.chat import turn_ends

    own = job.subject.model.config.eos_token_id
    listed = own if isinstance(own, list) else [own] if own is not None else []
    return tuple(sorted({*turn_ends(job.subject.tokenizer), *listed}))


def row_texts(completion: Completion, text: Generation, output: str) -> dict[str, str]:
    """The text columns of one row; prompt and reference are stored as hashes, because they are test data."""
    return {
        **completion.texts,
        "split_at": completion.kind,
        "prompt": content_hash(completion.prompt),
        "reference": content_hash(completion.reference),
        "finished": text.finished,
        "output": output,
    }
