"""Tables of the data: the languages of the splits, and what the text policy found and did."""

from __future__ import annotations

from codex_ml.core.errors import safe_line
from codex_ml.report.cells import Table, table
from codex_ml.report.facts import HITS_A_RULE, Facts

DONE = {"redact": "redacted", "block": "document dropped", "allow": "reported only"}


def contents(facts: Facts) -> Table:
    """Return the number of documents per language and split."""
    parts = facts.manifest.splits
    names = sorted({name for part in (parts.train, parts.val, parts.test) for name in part.languages})
    rows = [
        (name, *(f"{part.languages.get(name, 0):,}" for part in (parts.train, parts.val, parts.test))) for name in names
    ]
    return table(
        "Documents by language", {"language": "text", "train": "number", "val": "number", "test": "number"}, rows
    )


def policy_note(facts: Facts) -> str:
    """Return whether the text policy was applied before training; if it was off, the text begins with that."""
    policy, marks = facts.manifest.policy, facts.manifest.benchmarks
    checked = (
        f" {marks.items_found:,} items of {', '.join(map(safe_line, marks.files))} were found in "
        f"{marks.documents:,} documents; {len(marks.too_short_to_check):,} texts of them are too short to be "
        "checked."
        if marks.files
        else " No benchmark was compared with the corpus."
    )
    if policy.state != "enforce":
        return (
            "THE TEXT POLICY WAS OFF: the corpus was not scanned for secrets and personal data. If it contains any, "
            f"the training text contains them too.{checked}"
        )
    total = sum(policy.findings.values())
    return (
        f"The text policy (data/policy.yaml) found {total:,} places in the corpus and redacted "
        f"{policy.documents_redacted:,} documents before the split. Values are stored nowhere; "
        f"equal values have equal placeholders.{checked}"
    )


def policy(facts: Facts) -> Table:
    """Return the number of places by rule and action, the largest number first."""
    counts = sorted(facts.manifest.policy.findings.items(), key=lambda item: (-item[1], item[0]))
    parts = ((*name.partition(": ")[::2], count) for name, count in counts)
    rows = [(rule, DONE.get(action, action), f"{count:,}") for rule, action, count in parts]
    head = {"rule": "text", "what was done": "text", "places": "number"}
    return table("What the text policy found in the corpus", head, rows)


def hits(facts: Facts) -> Table:
    """Return rule, place and placeholder of the first findings of each rule, without the values."""
    rows = [(hit.rule, hit.source, hit.path, hit.line, hit.placeholder) for hit in facts.hits]
    head = {"rule": "text", "source": "code", "path": "code", "line": "number", "placeholder": "code"}
    return table(f"The first {HITS_A_RULE} places of each rule", head, rows)
