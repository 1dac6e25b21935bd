"""The tables of the report, the same on the page and in the model card."""

from __future__ import annotations

from typing import Any

from codex_ml.report.cells import Table, percent, table
from codex_ml.report.facts import Facts
from codex_ml.report.sentences import trained_from

# Parameters of `model` that a model on disk does not read.
SIZES = ("preset", "architecture", "hidden_size", "intermediate_size", "layers", "heads", "kv_heads", "max_positions",
         "tie_embeddings")  # fmt: skip


def _share(share: float) -> str:
    """A percentage that is 100 % only if the share is exactly 1."""
    return percent(share) if share == 1 else percent(min(share, 0.999999), 4)


def splits(facts: Facts) -> Table:
    """Return documents, megabytes and tokens of each split."""
    parts = (("train", facts.split.train, facts.pack.train), ("val", facts.split.val, facts.pack.val))
    rows = [
        (name, f"{part.documents:,}", f"{part.megabytes:.3f}", f"{stream.tokens:,}")
        for name, part, stream in (*parts, ("test", facts.split.test, facts.pack.test))
    ]
    head = {"split": "text", "documents": "number", "MB": "number", "tokens": "number"}
    return table("Splits", head, rows)


def dropped(facts: Facts) -> Table:
    """Return the number of documents that ingest and split left out, by reason."""
    rows = [("could not be read as a document", f"{facts.ingest.refused:,}")]
    rows += [(reason, f"{count:,}") for reason, count in sorted(facts.manifest.dropped.items())]
    return table("Left out", {"reason": "text", "documents": "number"}, rows)


def licences(facts: Facts) -> Table:
    """Return the number and the share of training documents under each licence."""
    total = sum(count for _, count in facts.licences)
    rows = [(licence, f"{count:,}", percent(count / total)) for licence, count in facts.licences]
    head = {"licence (SPDX)": "text", "documents": "number", "share": "number"}
    return table("Licences of the training data", head, rows)


def tokenizer(facts: Facts) -> Table:
    """Return the size of the vocabulary and what it does to the validation split."""
    found = facts.tokenizer
    rows = [
        ("vocabulary", f"{found.vocab_size:,} tokens"),
        ("bytes per token, validation", f"{found.bytes_per_token:.4f}"),
        ("documents that decode to their own text", _share(found.lossless)),
    ]
    if found.growth:
        rows.append(("pieces of train added to its vocabulary", f"{found.growth.pieces:,}"))
        for split, rate in (("train", found.growth.train), ("validation", found.growth.val)):
            rows.append(
                (f"tokens per byte, {split}, without them and with them", f"{rate.before:.4f} → {rate.after:.4f}")
            )
    return table("Tokenizer", {"measure": "text", "value": "number"}, rows)


def model(facts: Facts) -> Table:
    """Return the shape and the origin of the model, and on what it was trained."""
    shape, hardware = facts.training.model, facts.training.hardware
    rows = [
        ("parameters", f"{facts.parameters:,}"),
        ("trained", trained_from(facts)),
        ("precision", f"{hardware.precision} on {hardware.device}{', compiled' * hardware.compile}"),
        ("longest text, tokens", f"{shape.positions:,}" if shape.positions else "relative positions"),
        ("steps", f"{facts.train.step:,}"),
        ("step of the weights kept", f"{facts.training.global_step:,}"),
        ("their validation loss, nats per token", f"{facts.train.best_val_loss:.4f}"),
        ("tokens trained until then, about", f"{round(facts.passes * facts.pack.train.targets):,}"),
        ("passes over the training rows", f"{facts.passes:.2f}"),
    ]
    return table("Model", {"model": "text", "value": "number"}, rows)


def recipe(facts: Facts) -> Table:
    """Return the parameters of the stages that decide the model, from their records."""
    rows: dict[str, str] = {}
    without = {f"model.{name}" for name in SIZES} if facts.base else set()
    if facts.lineage["tokenizer"].params.get("tokenizer", {}).get("kind") == "local":
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


def commands() -> Table:
    """Return the command that makes each kind of result, and the files that hold it."""
    rows = [
        ("corpus", "dvc repro ingest", "reports/ingest/metrics.json"),
        ("splits, left out, leakage", "dvc repro split", "reports/split, data/splits"),
        ("tokenizer", "dvc repro tokenizer", "reports/tokenizer/metrics.json"),
        ("tokens", "dvc repro pack", "reports/pack/metrics.json"),
        ("weights, curves", "dvc repro train", "reports/train/metrics.json"),
        ("evaluation", "dvc repro evaluate", "reports/evaluate/metrics.json"),
        ("audit", "dvc repro safety_audit", "reports/safety_audit/metrics.json"),
        ("this report", "dvc repro report", "reports/report"),
        ("check of the records", "codex-ml verify", "dvc.lock, reports/*/lineage.json"),
    ]
    return table("Commands", {"what": "text", "command": "code", "written to": "code"}, rows)


def lineage(facts: Facts) -> Table:
    """Return what each stage read: one row per data input with its size and SHA-256."""
    rows = [
        (record.stage, len(record.deps), len(record.code), path, f"{hashes.size:,}", hashes.sha256)
        for record in facts.lineage.values()
        for path, hashes in sorted(record.data.items())
    ]
    head = {
        "stage": "text",
        "inputs": "number",
        "code": "number",
        "data input": "code",
        "bytes": "number",
        "SHA-256": "code hash",
    }
    return table("Lineage", head, rows)


def packages(facts: Facts) -> Table:
    """Return the versions in the records of all stages; two versions in a row mean two different environments.

    Code that runs at Python's start, and environment variables that may decide bytes, have rows too.
    """
    environments = [record.environment for record in facts.lineage.values()]
    found: dict[str, set[str]] = {
        "python": {e.python for e in environments},
        "machine": {e.machine for e in environments},
        "threads": {str(e.threads) for e in environments},
    }
    for environment in environments:
        for name, version in environment.packages.items():
            found.setdefault(name, set()).add(version or "not installed")
        for name, value in {**environment.start_code, **environment.variables}.items():
            found.setdefault(name, set()).add(value)
    rows = [(name, " and ".join(sorted(versions))) for name, versions in found.items()]
    return table("Environment", {"package": "text", "version": "code"}, rows)
