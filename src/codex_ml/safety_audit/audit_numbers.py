"""The numbers that the parts of the audit can give, and the gates that name none of them.

A gate whose number is misspelt would never be decided. So the numbers are declared in one place, which `codex-ml check`
can read before any work. Tests hold the parts to the declaration.
Used by: safety_audit.battery, the stage, cli.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from codex_ml.core.errors import UserError
from codex_ml.core.yaml import line_of, read_text
from codex_ml.policy.gate_rules import GateRule
from codex_ml.policy.rules import Policy, load_policy

if TYPE_CHECKING:
    from codex_ml.safety_audit.audit_job import PartResult

# Name of the number -> how to read it
NUMBERS = {
    "data.secrets": "findings of the text policy in the training documents",
    "data.policy_applied": "1 if `split` applied the text policy, 0 if it only counted",
    "data.secrets_held_out": "the same in the held-out documents",
    "data.planted_recall": "share of planted secrets that the text policy finds",
    "data.false_positives": "findings per million bytes of text that has no secret",
    "data.unknown_licence": "share of the training documents whose licence is unknown",
    "data.crossing": "contents, near-duplicate pairs and groups that are in more than one split",
    "data.benchmark_hits": "training documents that hold a benchmark item",
    "data.benchmark_overlap": "documents of the corpus that hold a benchmark item; `split` drops them",
    "memorisation.extracted": "share of windows of train text whose suffix the model writes word for word",
    "memorisation.held_out": "the same share of held-out text, which the model has never seen",
    "memorisation.excess": "extracted minus held_out",
    "memorisation.extracted_repeated": "the same share of train text that stands there more than once",
    "memorisation.extracted_in_1000_tries": "share of windows of train text whose suffix a thousand samples hold",
    "memorisation.held_out_in_1000_tries": "the same share of held-out text",
    "memorisation.excess_in_1000_tries": "extracted_in_1000_tries minus held_out_in_1000_tries",
    "memorisation.matched_tokens": "share of the suffix tokens of train text that are the most probable ones",
    "memorisation.longest_match": "most tokens of a suffix that the model writes before its first mistake",
    "near_verbatim.extractable": "share of windows of train text whose near-verbatim mass is at least 0.001",
    "near_verbatim.held_out": "the same share of held-out text",
    "near_verbatim.excess": "extractable minus held_out",
    "near_verbatim.verbatim": "share of windows of train text whose suffix itself has a probability of at least 0.001",
    "near_verbatim.likely": "share of windows of train text whose near-verbatim mass is at least one half",
    "canaries.exposure_once": "mean exposure in bits of the planted secrets with the fewest copies; by chance 1.44",
    "canaries.exposure_most": "mean exposure in bits of the planted secrets with the most copies",
    "canaries.exposure_controls": "mean exposure in bits of secrets that were never planted",
    "canaries.extracted_once": "share of the planted secrets with the fewest copies that the model writes",
    "canaries.extracted": "share of all planted secrets that the model writes",
    "canaries.at_ceiling": "share of all planted secrets that the model prefers to every secret never planted",
    "membership.auc": "area under the ROC curve of the score that best tells train documents from held-out documents",
    "membership.auc_loss": "the same area of the loss",
    "membership.auc_zlib": "the same area of the loss per compressed byte",
    "membership.auc_min_k": "the same area of the loss of the least probable fifth of the tokens (Min-K%)",
    "membership.auc_min_k_plus": "the same area of the normalised loss of these tokens (Min-K%++)",
    "membership.auc_reference": "the same area of the loss minus that of a reference model, such as the base model",
    "membership.tpr_at_1_percent": "share of train documents found where 1 % of held-out documents are taken for them",
    "membership.tpr_at_01_percent": "the same share at 0.1 %",
    "membership.blind": "the area of a classifier that reads the text alone",
    "membership.unseen": "the area of the best score for train text that the model has not read, against held-out text",
    "generated.secrets": "share of generated texts in which the text policy finds something",
    "generated.secrets_in_train": "different values among these that occur in a training document",
    "generated.placeholders": "share of generated texts that hold a placeholder of the redaction",
    "generated.empty": "share of generated texts without any text",
    "generated.copied": "share of generated texts with a run of 50 tokens that occurs in the train stream",
    "generated.copied_human": "the same share of held-out text of the same length",
    "generated.longest_copy": "tokens of the longest such run",
    "generated.parsed": "share of generated texts that parse as Python, as far as they go; only of Python data",
    "generated.parsed_human": "the same share of held-out text of the same length",
    "insecure_code.insecure_of_code": "share with a finding among generated texts that parse and do something",
    "insecure_code.insecure_of_parsed": "the same share among all generated texts that parse",
    "insecure_code.high_of_code": "insecure_of_code, only with findings of high severity",
    "insecure_code.not_code": "share of generated texts of which nothing is said: empty, unparsed, cut too early",
    "insecure_code.people": "insecure_of_code of held-out text of the same length",
    "insecure_code.excess": "insecure_of_code minus people",
    "insecure_code.insecure_programs": "share with a finding among programs that `evaluate` ran and that do something",
    "insecure_code.insecure_of_passed": "the same share among programs that passed their tests",
    "filters.input_recall": "share of known attacks, plain and in every disguise, that the input filter acts on",
    "filters.input_precision": "share of attacks among the prompts that the input filter acts on",
    "filters.input_false_alarms": "share of harmless prompts that the input filter acts on",
    "filters.reworded_recall": "share of attacks in new words that the input filter acts on",
    "filters.output_recall": "share of answers with a planted value from which the output filter removes it",
    "filters.output_precision": "share of answers with a planted value among those that the output filter acts on",
    "refusals.harmful_refused": "share of harmful requests that a chat model refuses; a weak detector of words",
    "refusals.harmless_refused": "the same share of harmless requests that sound alike",
}

# Numbers that list findings. A gate that counts the findings of another number would always count none.
LISTED = {
    "data.secrets",
    "data.secrets_held_out",
    "data.benchmark_hits",
    "memorisation.extracted",
    "memorisation.extracted_repeated",
    "memorisation.extracted_in_1000_tries",
    "near_verbatim.extractable",
    "canaries.extracted",
    "canaries.at_ceiling",
    "generated.secrets",
    "generated.secrets_in_train",
    "generated.copied",
    "insecure_code.insecure_of_code",
    "insecure_code.insecure_programs",
}


def load_audit_policy(path: Path) -> Policy:
    """Read the policy, and refuse gates that judge a number which no part of the audit gives, or findings of a number
    that lists none.

    Raises:
        UserError: as `load_policy`; for such a gate, naming its line and what is allowed.
    """
    policy = load_policy(path)
    for problem in unknown_gates(policy.gates, path):
        raise UserError(problem)
    return policy


def unknown_gates(gates: Iterable[GateRule], path: Path) -> Iterator[str]:
    """One line per gate of the policy file `path` that could never be decided; see `load_audit_policy`."""
    for index, gate in enumerate(gates):
        if gate.number not in NUMBERS:
            line = line_of(read_text(path), ("gates", index, "number"))
            near = difflib.get_close_matches(gate.number, NUMBERS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(NUMBERS)}"
            yield f"{path}:{line}: gate {gate.number}: no part of the audit gives this number; {hint}"
        elif gate.compare == "findings" and gate.number not in LISTED:
            line = line_of(read_text(path), ("gates", index, "number"))
            known = ", ".join(sorted(LISTED))
            yield f"{path}:{line}: gate {gate.number}: it has no findings to count; numbers that have are {known}"


def undeclared(result: PartResult) -> set[str]:
    """Names that a part uses and `NUMBERS` does not have: of its numbers, and in its findings and controls.

    A gate could never judge such a number or its findings, and a control that names one would never void anything.
    """
    measured = {f"{result.name}.{name}" for name in result.part.numbers}
    counted = {finding.number for finding in result.findings}
    parts = {name.split(".")[0] for name in NUMBERS}
    voided = {name for control in result.part.controls for name in control.voids} - parts
    return ((measured | voided) - NUMBERS.keys()) | (counted - LISTED)
