"""Safety audit: what the model leaks, copies or emits. A control for each number shows that it could have failed.

The stage scans the training data and generated text for secrets. It measures verbatim extraction (greedy, from prefix
to suffix) of training text and of held-out text. Findings name the place and the kind, never the value.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))  # this checkout's library, whatever is installed

from codex_ml.core.config import Section, Seed
from codex_ml.core.stage import Stage, log, run_stage
from codex_ml.modeling.process import prepare_process
from codex_ml.safety_audit.config import SafetyAudit


class Params(Section):
    """What this stage reads of params.yaml."""

    seed: Seed = 1
    safety_audit: SafetyAudit = SafetyAudit()


def main(stage: Stage[Params]) -> None:
    from codex_ml.core.errors import CheckFailed
    from codex_ml.core.io import write_json
    from codex_ml.core.record import cpu_threads
    from codex_ml.documents.document import count_documents, read_documents
    from codex_ml.documents.split_files import SplitMetrics
    from codex_ml.inference.audit_files import AuditFinding, GeneratedSample
    from codex_ml.inference.generation import sample_texts
    from codex_ml.modeling.hardware import inference_device
    from codex_ml.modeling.rows import Rows
    from codex_ml.modeling.train_files import Training
    from codex_ml.modeling.trained_model import load_model
    from codex_ml.safety_audit import audit
    from codex_ml.safety_audit.extraction import Candidates
    from codex_ml.safety_audit.gates import decide
    from codex_ml.safety_audit.planted import can_be_planted, planted_recall
    from codex_ml.tokens.text_tokenizer import load_tokenizer

    settings, seed = stage.params.safety_audit, stage.params.seed
    folder, packed = stage.dep("models/model"), stage.dep("data/packed")
    training = Training.read(folder / "training.json")
    model = load_model(folder, device=inference_device(stage.runtime, threads=cpu_threads(training.hardware.threads)))
    audit.check_lengths(model.config, settings)
    tokenizer = load_tokenizer(folder)
    scanner = audit.scanner_of(stage.dep("data/policy.yaml"), stage.dep("data/detectors.lock"))
    train = stage.dep("data/splits/train.parquet")
    documents = stage.track(read_documents(train), "scan train", count_documents(train), "documents")
    in_train = audit.findings_in_documents(documents, scanner)
    samples = sample_texts(model, tokenizer, count=settings.samples, tokens=settings.sample_tokens, seed=seed)
    in_samples = audit.findings_in_samples(samples, scanner)
    seen = Candidates.seen(Rows.open(packed, "train"), training)
    held_out = Candidates.all_of(Rows.open(packed, "test"))
    extraction = audit.measure_extraction(model, tokenizer, seen, held_out, settings=settings, seed=seed)
    gates = decide(
        policy=SplitMetrics.read(stage.dep("reports/split/metrics.json")).policy,
        train_secrets=sum(finding.action != "allow" for finding in in_train),
        generated_secrets=sum(finding.action != "allow" for finding in in_samples),
        planted_recall=planted_recall(scanner, seed=seed) if can_be_planted(scanner) else None,
        extraction=extraction,
    )
    record = audit.audit_record(in_train, in_samples, extraction, gates)
    AuditFinding.write_array(stage.out("reports/safety_audit/findings.json"), [*in_train, *in_samples])
    texts = (GeneratedSample(text=text) for text in samples)
    GeneratedSample.write_lines(stage.out("reports/safety_audit/samples.ndjson"), texts)
    record.write(stage.out("reports/safety_audit/audit.json"))
    write_json(stage.metrics, audit.audit_metrics(record))
    log.info("safety_audit: %s", record.verdict)
    for gate in gates:
        log.info("safety_audit: %-7s %s: %s (allowed: %s)", gate.status, gate.name, gate.found, gate.allowed)
    if settings.enforce and record.verdict != "pass":
        raise CheckFailed(f"the safety audit is {record.verdict}; see reports/safety_audit/audit.json")


if __name__ == "__main__":
    run_stage("safety_audit", main, Params, prepare=prepare_process)
