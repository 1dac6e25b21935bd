"""The split ledger: it records the split of each content, so that no content moves to another split.

Used by: split.deal, `codex-ml ledger`, `codex-ml merge`, `codex-ml check`.
"""
