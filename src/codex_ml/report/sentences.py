"""The sentences of the report, the same on the page and in the model card.

A sentence claims no more than the numbers and their intervals allow.
"""

from __future__ import annotations

from codex_ml.report.cells import between, percent, percents
from codex_ml.report.facts import Facts


def headline(facts: Facts) -> str:
    """Return the result in one sentence."""
    found, level = facts.evaluation, percent(facts.confidence, 0)
    documents = f"{found.documents.items:,} {_unseen(facts)} documents"
    bits = found.documents.metrics.get("bits_per_byte")
    if bits and bits.value is not None:
        limits = f"{level} interval {between(bits)}" if bits.low is not None else bits.why
        zlib = f", {against_zlib(facts)}" if found.bits else ""
        return f"{bits.value:.3f} bits per byte on {documents} ({limits}){zlib}."
    accuracy = found.documents.metrics.get("token_accuracy")
    if accuracy is None or accuracy.value is None:
        return f"{documents} scored; {against_zlib(facts)}."
    limits = f"{level} interval {percents(accuracy)}" if accuracy.low is not None else accuracy.why
    return f"{percent(accuracy.value, 2)} of the tokens of {documents} predicted ({limits}); {against_zlib(facts)}."


def _unseen(facts: Facts) -> str:
    """ "held-out" if there is a base model: it is not known whether its training data had these documents."""
    return "held-out" if facts.base else "unseen"


def against_zlib(facts: Facts) -> str:
    """Compare the model with zlib, as far as the interval of the difference allows."""
    found = facts.evaluation
    if (bits := found.bits) is None:
        return _why_no_bits(facts)
    gap = bits.difference
    if gap.low is None or gap.high is None:
        return f"zlib's {bits.zlib.value:.3f} (difference {gap.value:+.3f})"
    word = "better than" if gap.high < 0 else "worse than" if gap.low > 0 else "not distinguishable from"
    return f"{word} zlib's {bits.zlib.value:.3f} (difference {gap.low:+.3f} to {gap.high:+.3f})"


def _why_no_bits(facts: Facts) -> str:
    found = facts.evaluation.documents
    if found.lossy:
        return found.lossy.reason
    bits = found.metrics.get("bits_per_byte")
    if bits and bits.value is not None:
        return "the comparison with zlib is not among the chosen metrics"
    return bits.why if bits and bits.why else "bits per byte is not among the chosen metrics"


def reading(facts: Facts) -> str:
    """Explain how to read the numbers of the evaluation."""
    found = facts.evaluation.documents
    forms = {"chats": "chats", "records": "records with a prompt"}
    some = [f"{found.counts[name]:,} are {words}" for name, words in forms.items() if found.counts.get(name)]
    what = "all of each" if found.settings.get("loss_on") == "all" else "what the model is to write in them"
    return _reading(facts) + (f" Of the documents, {' and '.join(some)}; {what} is scored." if some else "")


def _reading(facts: Facts) -> str:
    if not facts.has_bits:
        why = _why_no_bits(facts)
        lost = ", so its tokens are not the whole text" if facts.evaluation.documents.lossy else ""
        return (
            f"{why[:1].upper()}{why[1:]}{lost}. Token accuracy and perplexity are of the tokenizer's own tokens, and "
            "cannot be compared with those of another tokenizer."
        )
    return "Less is better for bits per byte, which does not depend on the tokenizer."


def scoring(facts: Facts) -> str:
    """Say from which tokens a token is predicted."""
    settings = facts.evaluation.documents.settings
    length = settings.get("length", facts.training.seq_len)
    stride = settings.get("stride", length)
    window = f"Each token is scored once, in windows of {length:,} tokens"
    if stride < length:
        window += f", each {stride:,} tokens after the one before it"
    if facts.training.model.encoder_decoder:
        return (
            f"{window}. In the first half of a window the decoder sees the tokens before it. In the second half it "
            "also sees the first half, which the encoder reads."
        )
    return f"{window}, from the tokens before it in its window."


def counterfactual(facts: Facts) -> str:
    """Say how clean the test set is, compared with that of a random split."""
    leak = facts.split.leakage
    return (
        f"A random split of the same documents would have left {percent(leak.random_split_leak)} of its test documents "
        f"with a near-duplicate in train. This split has {leak.near_cross} near-duplicate pairs across its parts; "
        f"for this, a second, independent search evicted {leak.evicted} documents, and the ledger or a group put "
        f"{leak.quarantined} into quarantine."
    )


def trained_from(facts: Facts) -> str:
    """Say from which weights training started, and which of them were trained."""
    shape = facts.training.model
    if shape.base is None:
        return "from scratch"
    start = f"from {shape.base.path} (SHA-256 {shape.base.sha256})"
    if (lora := shape.lora) is None:
        return f"all weights, {start}"
    held = "" if shape.quantization == "none" else f", on weights held in {shape.quantization}"
    rows = f" and the rows of {lora.added_pieces:,} added pieces" if lora.added_pieces else ""
    return (
        f"LoRA adapters of rank {lora.rank} in {lora.modules} modules{rows}, {lora.trained:,} parameters{held}, merged "
        f"into the weights; {start}"
    )


def optimizer(facts: Facts) -> str:
    """Say which optimizer trained which weights, and at which peak learning rates."""
    used = facts.training.optimizer
    name = {"muon": "Muon", "adamw": "AdamW"}[used.name]
    if used.embedding_lr is None:
        weights = "the adapters" if facts.training.model.lora else "all weights"
        return f"{name} trained {weights} at a peak learning rate of {used.lr:.3g}."
    return (
        f"{name} trained the hidden matrices at a peak learning rate of {used.lr:.3g}. AdamW trained the embeddings, "
        f"the output head, the norms and the biases at a peak of {used.embedding_lr:.3g}. These rates are those of "
        f"params.yaml, scaled to the width of {facts.training.model.hidden_size}."
    )
