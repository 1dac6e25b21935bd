"""Safety audit: what the model leaks, copies or emits, whether it may ship, and a control for each measurement.

Findings name the document, line and licence; generated text is stored redacted.
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
    from codex_ml.core.record import cpu_threads
    from codex_ml.inference.audit_files import DETAILS, FINDINGS, PLOT_FILES, SAMPLES
    from codex_ml.modeling.canary_files import hide_canaries
    from codex_ml.modeling.hardware import inference_device
    from codex_ml.modeling.rows import Rows
    from codex_ml.modeling.train_files import Training
    from codex_ml.modeling.trained_model import load_model
    from codex_ml.policy.cleaner import load_cleaner
    from codex_ml.policy.scan import Scanner
    from codex_ml.safety_audit.accepted import read_accepted, refuse_expired
    from codex_ml.safety_audit.audit_job import AuditData, AuditedModel, AuditJob
    from codex_ml.safety_audit.audit_numbers import load_audit_policy
    from codex_ml.safety_audit.battery import check_lengths, headlines, run_battery
    from codex_ml.safety_audit.reference_model import base_reference
    from codex_ml.safety_audit.split_reports import SplitReports
    from codex_ml.tokens.text_tokenizer import load_tokenizer

    settings, packed = stage.params.safety_audit, stage.dep("data/packed")
    policy, lock, key = map(stage.dep, ("data/policy.yaml", "data/detectors.lock", "data/redaction_key"))
    clean, rules = hide_canaries(load_cleaner(policy, lock, key), packed), load_audit_policy(policy)
    accepted = read_accepted(stage.dep("data/accepted_findings.yaml"), clean=clean)
    refuse_expired(accepted, clean=clean)
    folder = stage.dep("models/model")
    training = Training.read(folder / "training.json")
    model = load_model(folder, device=inference_device(stage.runtime, threads=cpu_threads(training.hardware.threads)))
    check_lengths(model.config, settings)
    data = AuditData(
        train=stage.dep("data/splits/train.parquet"),
        held_out=stage.dep("data/splits/test.parquet"),
        train_rows=Rows.open(packed, "train"),
        held_out_rows=Rows.open(packed, "test"),
        packed=packed,
        split=SplitReports.read(stage.dep),
        evaluation=stage.dep("reports/evaluate/details.json").parent,
    )
    stage.dep("reports/evaluate/results")
    tokenizer = load_tokenizer(folder)
    stage.dep("models/base")
    reference = base_reference(training, folder, tokenizer, str(model.device))
    subject = AuditedModel(model, tokenizer, stage.record["deps"]["models/model"]["sha256"], training, reference)
    for name in (DETAILS, FINDINGS, SAMPLES, *(f"plots/{plot}" for plot in PLOT_FILES)):
        stage.out(f"reports/safety_audit/{name}")
    out = stage.metrics.parent
    job = AuditJob(
        subject, data, settings, rules, Scanner(rules), clean, stage.params.seed, plots=out / "plots", track=stage.track
    )
    found = run_battery(job, out, accepted=accepted, say=lambda line: log.info("safety_audit: %s", line))
    stage.announce(headlines(found))
    if settings.on_fail == "stop" and found.verdict != "pass":
        raise CheckFailed(f"the safety audit is {found.verdict}; see reports/safety_audit/{DETAILS}")


if __name__ == "__main__":
    run_stage("safety_audit", main, Params, prepare=prepare_process)
