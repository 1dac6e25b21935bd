"""The data card: what the splits consist of, and what the text policy found and did."""

from __future__ import annotations

from codex_ml.report.cells import Table, escaped_line, table
from codex_ml.report.facts import HITS_A_RULE, Facts

DONE = {"redact": "redacted", "block": "document dropped", "allow": "reported only"}


def contents(facts: Facts) -> Table:
    """Languages of each split."""
    parts = facts.manifest.splits
    names = sorted({name for part in (parts.train, parts.val, parts.test) for name in part.languages})
    rows = [
        (name, *(f"{part.languages.get(name, 0):,}" for part in (parts.train, parts.val, parts.test))) for name in names
    ]
    return table(
        "Documents by language", {"language": "text", "train": "number", "val": "number", "test": "number"}, rows
    )


def policy_note(facts: Facts) -> str:
    """Whether the text policy was applied before training; being off is said first."""
    policy, marks = facts.manifest.policy, facts.manifest.benchmarks
    checked = (
        f" {marks.items_found:,} items of {', '.join(map(escaped_line, marks.files))} were found in "
        f"{marks.documents:,} documents; {len(marks.too_short_to_check):,} texts of them are too short to be looked "
        "for."
        if marks.files
        else " No benchmark was compared with the corpus."
    )
    if policy.state != "enforce":
        return (
            "THE TEXT POLICY WAS OFF: secrets and personal data of the corpus were not looked for, and what there is "
            f"stands in the training text.{checked}"
        )
    total = sum(policy.findings.values())
    return (
        f"The text policy (data/policy.yaml) found {total:,} places in the corpus and redacted "
        f"{policy.documents_redacted:,} documents before the split. Values are stored nowhere; "
        f"equal values have equal placeholders.{checked}"
    )


def policy(facts: Facts) -> Table:
    """Places by rule and action, most first."""
    counts = sorted(facts.manifest.policy.findings.items(), key=lambda item: (-item[1], item[0]))
    parts = ((*name.partition(": ")[::2], count) for name, count in counts)
    rows = [(rule, DONE.get(action, action), f"{count:,}") for rule, action, count in parts]
    head = {"rule": "text", "what was done": "text", "places": "number"}
    return table("What the text policy found in the corpus", head, rows)


def hits(facts: Facts) -> Table:
    """Rule, place and placeholder of the first of each rule; no value."""
    rows = [(hit.rule, hit.source, hit.path, hit.line, hit.placeholder) for hit in facts.hits]
    head = {"rule": "text", "source": "code", "path": "code", "line": "number", "placeholder": "code"}
    return table(f"The first {HITS_A_RULE} places of each rule", head, rows)
