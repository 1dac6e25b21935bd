"""The words and numbers of the report as plain sentences and tables, the same for the page and the model card."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from codex_ml.core.errors import safe_text
from codex_ml.report.facts import Facts
from codex_ml.report.shapes import ExtractionNumbers, Interval

# Parameters of `model` that a model on disk does not read.
SIZES = ("preset", "architecture", "hidden_size", "intermediate_size", "layers", "heads", "kv_heads", "max_positions",
         "tie_embeddings")  # fmt: skip
MAX_FINDINGS = 200  # rows shown; the rest is counted, and all are in findings.json


@dataclass(frozen=True)
class Table:
    """A table of texts, each on one line.

    Attributes:
        kinds: of each column: "text", "status", "number" (right-aligned), "code" (paths, commands), "code key" or
            "code hash"; the page has a style for each.
    """

    title: str
    head: tuple[str, ...]
    kinds: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def one_line(text: str) -> str:
    """`safe_text` with line ends and tabs as escapes too."""
    return safe_text(text).replace("\n", "\\n").replace("\t", "\\t")


def table(title: str, columns: dict[str, str], rows: list[tuple[Any, ...]]) -> Table:
    cells = tuple(tuple(one_line(str(cell)) for cell in row) for row in rows)
    assert all(len(row) == len(columns) for row in cells)
    return Table(title, tuple(columns), tuple(columns.values()), cells)


def percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"


def _between(interval: Interval, digits: int = 3) -> str:
    return f"{interval.low:.{digits}f} to {interval.high:.{digits}f}"


def summary(facts: Facts) -> str:
    """The result in one sentence."""
    found, level = facts.evaluation, percent(facts.confidence, 0)
    if (bits := found.bits) is None:
        between = _percents(found.interval.token_accuracy)
        return (
            f"{percent(found.token_accuracy, 2)} of the tokens of {found.documents:,} {_unseen(facts)} documents "
            f"predicted ({level} interval {between}); {against_zlib(facts)}."
        )
    return (
        f"{bits.value:.3f} bits per byte on {found.documents:,} {_unseen(facts)} documents "
        f"({level} interval {_between(bits.interval)}), {against_zlib(facts)}."
    )


def _unseen(facts: Facts) -> str:
    """What a base model was trained on is not known here."""
    return "held-out" if facts.base else "unseen"


def against_zlib(facts: Facts) -> str:
    """What the interval of the difference allows to say, and no more."""
    found = facts.evaluation
    if (bits := found.bits) is None:
        return _why_no_bits(facts)
    gap = bits.minus_zlib
    word = "better than" if gap.high < 0 else "worse than" if gap.low > 0 else "not distinguishable from"
    return f"{word} zlib's {found.zlib_bits_per_byte:.3f} (difference {gap.low:+.3f} to {gap.high:+.3f})"


def _why_no_bits(facts: Facts) -> str:
    assert facts.evaluation.lossy is not None
    return facts.evaluation.lossy.reason


def reading(facts: Facts) -> str:
    """How to read the numbers of the evaluation."""
    chats = facts.evaluation.chats
    form = (
        f" {chats:,} of the documents are chats. They are scored as lines of role and content, not as the chat "
        "template writes them, so these numbers do not measure the answers."
    )
    return _reading(facts) + (form if chats else "")


def _reading(facts: Facts) -> str:
    if facts.evaluation.bits is None:
        why = _why_no_bits(facts)
        return (
            f"{why[:1].upper()}{why[1:]}, so its tokens are not the whole text. Token accuracy and perplexity are of "
            "its own tokens, and cannot be compared with those of another tokenizer."
        )
    return "Less is better for bits per byte, which does not depend on the tokenizer."


def is_encoder_decoder(facts: Facts) -> bool:
    """Whether the model is one."""
    return facts.training.model.encoder_decoder


def scoring(facts: Facts) -> str:
    """What a token is predicted from, in a sentence."""
    window = f"Each token is scored once, in windows of {facts.training.seq_len:,} tokens"
    if is_encoder_decoder(facts):
        return (
            f"{window}: of the first half the decoder sees the tokens before it, of the second half also the first, "
            "which the encoder reads."
        )
    return f"{window}, from the tokens before it in its window."


def verdict(facts: Facts) -> str:
    """The audit's result in words that cannot be mistaken."""
    total = len(facts.gates)
    names = "; ".join(gate.name for gate in facts.gates if gate.status == facts.verdict)
    return {
        "pass": f"Safety audit: PASS. All {total} gates hold, the controls included.",
        "fail": f"Safety audit: FAIL. Do not ship this model. What does not hold: {names}.",
        "invalid": f"Safety audit: INVALID. A control failed, so nothing is proven, good or bad: {names}.",
    }[facts.verdict]


def counterfactual(facts: Facts) -> str:
    """How clean the test set is, beside what the usual way would have given."""
    leak = facts.split.leakage
    return (
        f"A random split of the same documents would have left {percent(leak.random_split_leak)} of its test documents "
        f"with a near-duplicate in train. This split has {leak.near_cross} near-duplicate pairs across its parts; "
        f"{leak.evicted} documents were evicted by a second, independent search and {leak.quarantined} put into "
        "quarantine by the ledger or a group to get there."
    )


def evaluation(facts: Facts) -> Table:
    found = facts.evaluation
    zlib = ("bits per byte, zlib -9", f"{found.zlib_bits_per_byte:.4f}", "–")
    compared: list[tuple[Any, ...]] = [("bits per byte", "none; the tokenizer loses text", "–"), zlib]
    if bits := found.bits:
        difference = f"{bits.value - found.zlib_bits_per_byte:+.4f}"
        compared = [
            ("bits per byte", f"{bits.value:.4f}", _between(bits.interval, 4)),
            zlib,
            ("difference to zlib", difference, _between(bits.minus_zlib, 4)),
        ]
    rows: list[tuple[Any, ...]] = [
        *compared,
        ("token accuracy", percent(found.token_accuracy, 2), _percents(found.interval.token_accuracy)),
        ("perplexity a token", f"{found.perplexity:,.2f}" if found.perplexity is not None else "not finite", "–"),
        ("documents", f"{found.documents:,}", "–"),
        ("bytes", f"{found.bytes:,}", "–"),
        ("tokens", f"{found.tokens:,}", "–"),
    ]
    head = {"test split": "text", "value": "number", f"{percent(facts.confidence, 0)} interval": "number"}
    return table("Evaluation", head, rows)


def _percents(interval: Interval) -> str:
    return f"{percent(interval.low, 2)} to {percent(interval.high, 2)}"


def _share(share: float) -> str:
    """100 % is said of all only."""
    return percent(share) if share == 1 else percent(min(share, 0.999999), 4)


def splits(facts: Facts) -> Table:
    parts = (("train", facts.split.train, facts.pack.train), ("val", facts.split.val, facts.pack.val))
    rows = [
        (name, f"{part.documents:,}", f"{part.megabytes:.3f}", f"{stream.tokens:,}")
        for name, part, stream in (*parts, ("test", facts.split.test, facts.pack.test))
    ]
    head = {"split": "text", "documents": "number", "MB": "number", "tokens": "number"}
    return table("Splits", head, rows)


def dropped(facts: Facts) -> Table:
    rows = [("could not be read as a document", f"{facts.ingest.refused:,}")]
    rows += [(reason, f"{count:,}") for reason, count in sorted(facts.manifest.dropped.items())]
    return table("Left out", {"reason": "text", "documents": "number"}, rows)


def licences(facts: Facts) -> Table:
    total = sum(count for _, count in facts.licences)
    rows = [(licence, f"{count:,}", percent(count / total)) for licence, count in facts.licences]
    head = {"licence (SPDX)": "text", "documents": "number", "share": "number"}
    return table("Licences of the training data", head, rows)


def tokenizer(facts: Facts) -> Table:
    found = facts.tokenizer
    rows = [
        ("vocabulary", f"{found.vocab_size:,} tokens"),
        ("bytes a token, validation", f"{found.bytes_per_token:.4f}"),
        ("documents that decode to their own text", _share(found.lossless)),
    ]
    return table("Tokenizer", {"measure": "text", "value": "number"}, rows)


def model(facts: Facts) -> Table:
    seen = facts.training.global_step * facts.training.rows_a_step * facts.training.seq_len
    shape, hardware = facts.training.model, facts.training.hardware
    rows = [
        ("parameters", f"{facts.parameters:,}"),
        ("trained", trained_from(facts)),
        ("precision", f"{hardware.precision} on {hardware.device}{', compiled' * hardware.compile}"),
        ("longest text, tokens", f"{shape.positions:,}" if shape.positions else "relative positions"),
        ("steps", f"{facts.train.step:,}"),
        ("step of the weights kept", f"{facts.training.global_step:,}"),
        ("their validation loss, nats a token", f"{facts.train.best_val_loss:.4f}"),
        ("tokens seen until then", f"{seen:,}"),
        ("passes over the training tokens", f"{seen / facts.pack.train.tokens:.2f}"),
    ]
    return table("Model", {"model": "text", "value": "number"}, rows)


def trained_from(facts: Facts) -> str:
    """What the weights were before, and which of them were trained."""
    shape = facts.training.model
    if shape.base is None:
        return "from scratch"
    start = f"from {shape.base.path} (SHA-256 {shape.base.sha256})"
    if (lora := shape.lora) is None:
        return f"all weights, {start}"
    held = "" if shape.quantization == "none" else f", beside weights held in {shape.quantization}"
    return (
        f"LoRA adapters of rank {lora.rank} in {lora.modules} modules, {lora.trained:,} parameters{held}, merged into "
        f"the weights; {start}"
    )


def recipe(facts: Facts) -> Table:
    """The parameters of all stages that shaped the model, as their records have them."""
    rows: dict[str, str] = {}
    without = {f"model.{name}" for name in SIZES} if facts.base else set()
    if facts.lineage["train"].params.get("tokenizer", {}).get("kind") == "local":
        without.add("tokenizer.vocab_size")
    for stage in ("split", "tokenizer", "pack", "train"):
        for section, value in facts.lineage[stage].params.items():
            rows |= {key: text for key, text in _flat(section, value).items() if key not in without}
    return table("Training recipe", {"parameter": "code key", "value": "code"}, list(rows.items()))


def _flat(name: str, value: Any) -> dict[str, str]:
    if isinstance(value, dict):
        return {key: text for leaf in value for key, text in _flat(f"{name}.{leaf}", value[leaf]).items()}
    if isinstance(value, list):
        return {name: ", ".join(map(str, value))}
    return {name: str(value).lower() if isinstance(value, bool) else str(value)}


def gates(facts: Facts) -> Table:
    rows = [(gate.status, gate.name, gate.found, gate.allowed) for gate in facts.gates]
    head = {"status": "status", "gate": "text", "found": "text", "allowed": "text"}
    return table("Gates", head, rows)


def extraction(facts: Facts) -> Table:
    found = facts.audit.extraction
    rows = [
        _extraction_row("training text (members)", found.members),
        _extraction_row("held-out text", found.held_out),
        _extraction_row("control: the model's own text", found.control),
    ]
    head = {
        "text": "text",
        "windows": "number",
        "extracted": "number",
        "rate, exact interval": "number",
        "tokens right": "number",
        "trivial, left out": "number",
    }
    return table("Verbatim extraction", head, rows)


def _extraction_row(name: str, found: ExtractionNumbers) -> tuple[Any, ...]:
    rate = "no window"
    if found.rate is not None and found.low is not None and found.high is not None:
        rate = f"{percent(found.rate)} ({percent(found.low)} to {percent(found.high)})"
    return name, found.windows, found.extracted, rate, percent(found.token_share), found.trivial


def findings(facts: Facts) -> Table:
    """Place and kind of each secret; no value."""
    rows = [(f.severity, f.rule, f.source, f.path, f.line) for f in facts.findings[:MAX_FINDINGS]]
    head = {"severity": "status", "rule": "text", "source": "code", "path": "code", "line": "number"}
    return table("Secrets found", head, rows)


def findings_note(facts: Facts) -> str:
    if not facts.findings:
        return "No secret was found in the training data or in generated text."
    more = len(facts.findings) - MAX_FINDINGS
    rest = f" The first {MAX_FINDINGS} are shown; {more:,} more are in the file." if more > 0 else ""
    return f"{len(facts.findings):,} findings in reports/safety_audit/findings.json; values are stored nowhere.{rest}"


def commands() -> Table:
    rows = [
        ("corpus", "dvc repro ingest", "reports/ingest/metrics.json"),
        ("splits, left out, leakage", "dvc repro split", "reports/split, data/splits"),
        ("tokenizer", "dvc repro tokenizer", "reports/tokenizer/metrics.json"),
        ("tokens", "dvc repro pack", "reports/pack/metrics.json"),
        ("weights, curves", "dvc repro train", "reports/train/metrics.json"),
        ("evaluation", "dvc repro evaluate", "reports/evaluate/metrics.json"),
        ("audit", "dvc repro safety_audit", "reports/safety_audit/metrics.json"),
        ("this report", "dvc repro report", "reports/report"),
        ("that the records hold", "codex-ml verify", "dvc.lock, reports/*/lineage.json"),
    ]
    return table("Commands", {"what": "text", "command": "code", "written to": "code"}, rows)


def lineage(facts: Facts) -> Table:
    rows = [
        (record.stage, len(record.deps), len(record.code), path, f"{hashes.size:,}", hashes.sha256)
        for record in facts.lineage.values()
        for path, hashes in sorted(record.data.items())
    ]
    head = {
        "stage": "text",
        "inputs": "number",
        "code files": "number",
        "data input": "code",
        "bytes": "number",
        "SHA-256": "code hash",
    }
    return table("Lineage", head, rows)


def packages(facts: Facts) -> Table:
    """Versions from the records of all stages; more than one in a row means that they ran in different environments."""
    environments = [record.environment for record in facts.lineage.values()]
    found: dict[str, set[str]] = {
        "python": {e.python for e in environments},
        "machine": {e.machine for e in environments},
        "threads": {str(e.threads) for e in environments},
    }
    for environment in environments:
        for name, version in environment.packages.items():
            found.setdefault(name, set()).add(version or "not installed")
    rows = [(name, " and ".join(sorted(versions))) for name, versions in found.items()]
    return table("Environment", {"package": "text", "version": "code"}, rows)
