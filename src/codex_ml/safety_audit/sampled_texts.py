"""The texts that the model writes in an audit: half of them without a prompt, half after prompts of held-out documents.

They are drawn at temperature 1 from the whole distribution, each with random numbers of its own. A prompt is the
beginning of a held-out document as the model reads documents: what comes before the first trained token of a record or
a chat, and the first tokens of any other document. The part memorisation gives the model the beginning of train text.

Used by: the parts generated and insecure_code of safety_audit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from codex_ml.inference.generation import Prompt, generate
from codex_ml.inference.sampling import Sampling
from codex_ml.modeling.rows import Rows
from codex_ml.policy.redacted_output import CONTEXT, redacted_output, redacted_prompt
from codex_ml.safety_audit.audit_job import AuditJob
from codex_ml.safety_audit.audit_memory import TOGETHER
from codex_ml.safety_audit.window_places import first_pieces

Kind = Literal["unconditional", "document", "record", "human"]


@dataclass(frozen=True)
class SampledText:
    """A text that the model wrote, as it wrote it: stays in memory, because it may hold a secret.

    Attributes:
        number: from 0.
        kind: "unconditional"; after the beginning of a held-out text ("document"); after the prompt of a record or chat
            ("record"); or held-out text, to compare with ("human").
        prompt: the prompt as a text; "" without one.
        after: how the document goes on from which the prompt was cut.
        text: without the prompt.
        ids: the new tokens, without padding and without what ended the text.
        cut: whether the text ended because of its length.
    """

    number: int
    kind: Kind
    prompt: str = field(repr=False)
    text: str = field(repr=False)
    ids: tuple[int, ...] = field(repr=False)
    cut: bool
    after: str = field(default="", repr=False)

    @property
    def empty(self) -> bool:
        return not self.text.strip()

    def redacted(self, job: AuditJob) -> str:
        """The text as it may be stored and shown."""
        return redacted_output(job.clean, self.prompt, self.text)

    def redacted_prompt(self, job: AuditJob) -> str:
        """The prompt as it may be stored and shown: without the beginning of a value that ends in the text, or in the
        document."""
        return min((redacted_prompt(job.clean, self.prompt, text) for text in (self.text, self.after)), key=len)


def sampled_texts(job: AuditJob) -> list[SampledText]:
    """Return the texts of an audit, `safety_audit.samples` of them; the same ones for each part."""
    return job.once("sampled_texts", lambda: list(_sampled(job)))


def _sampled(job: AuditJob) -> Iterator[SampledText]:
    model, tokenizer, settings = job.subject.model, job.subject.tokenizer, job.settings
    count, ends = settings.sizes.samples, _ends(model)
    held_out = job.data.held_out_rows
    begins = first_pieces(held_out, seed=job.seed, most=count) if held_out else np.zeros((0, 3), np.int64)
    prompts: list[tuple[Kind, Prompt, str]] = []
    for number in range(count):
        if number % 2 and held_out and len(begins):
            document, start, targets = begins[number // 2 % len(begins)].tolist()
            kind, ids = _prompt_ids(held_out, start, targets, settings.prefix_tokens)
            again = number // 2 // len(begins)  # a document gives several texts where there are few documents
            rest = held_out.tokens[start + len(ids) : int(held_out.starts[document + 1])][:CONTEXT].astype(np.int64)
            prompt = Prompt(ids, key=f"held-out {document}", sample=again, ends=ends)
            prompts.append((kind, prompt, tokenizer.decode(rest)))
        else:
            prompts.append(("unconditional", Prompt((tokenizer.begin,), key="", sample=number, ends=ends), ""))
    texts = generate(
        model,
        tokenizer,
        (prompt for _, prompt, _ in prompts),
        Sampling(settings.sample_tokens, temperature=1.0),
        seed=job.seed,
        batch_size=TOGETHER * settings.batch_size,
    )
    shown = job.track(texts, "generate", count, "texts")
    for number, ((kind, prompt, after), written) in enumerate(zip(prompts, shown, strict=True)):
        begun = int(prompt.ids[0]) in (tokenizer.begin, tokenizer.end)
        yield SampledText(
            number,
            kind,
            prompt=tokenizer.decode(prompt.ids[int(begun) :]),
            text=written.text,
            ids=tuple(token for token in written.tokens if token != tokenizer.pad),
            cut=written.finished == "length",
            after=after,
        )


def human_texts(job: AuditJob) -> list[SampledText]:
    """Return held-out text of the length of the samples, one per document, at most as many as there are samples.

    A text document gives its first tokens, and a record or chat those after its prompt, up to what ends a text of the
    model. So people's text is measured as the model's is.
    """
    return job.once("human_texts", lambda: list(_human(job)))


def _human(job: AuditJob) -> Iterator[SampledText]:
    rows, tokenizer, settings = job.data.held_out_rows, job.subject.tokenizer, job.settings
    if rows is None:
        return
    ends = [tokenizer.end, *_ends(job.subject.model)]
    for document, start, targets in first_pieces(rows, seed=job.seed, most=settings.sizes.samples).tolist():
        kind, prompt = _prompt_ids(rows, start, targets, settings.prefix_tokens)
        begin = start + (len(prompt) if kind == "record" else 1)
        ids = rows.tokens[begin : start + targets + 1][: settings.sample_tokens].astype(np.int64)
        ended = np.isin(ids, ends)
        ids = ids[: int(np.argmax(ended)) if ended.any() else len(ids)]
        cut = not ended.any() and begin + len(ids) < int(rows.starts[document + 1])
        yield SampledText(document, "human", "", tokenizer.decode(ids), tuple(ids.tolist()), cut)


def _prompt_ids(rows: Rows, start: int, targets: int, most: int) -> tuple[Kind, NDArray[np.int64]]:
    """Return the kind and the ids of the prompt that a piece begins with."""
    trained = None if rows.mask is None else rows.mask[start + 1 : start + targets + 1] == 1
    first = 0 if trained is None else int(np.argmax(trained))
    length = first + 1 if first else 1 + min(most, targets // 2)
    return "record" if first else "document", rows.tokens[start : start + length].astype(np.int64)


def _ends(model: Any) -> tuple[int, ...]:
    """Return the ids that end a text: END, or a list of it and the ends of turns."""
    end = model.config.eos_token_id
    return () if end is None else tuple(end) if isinstance(end, list) else (end,)
