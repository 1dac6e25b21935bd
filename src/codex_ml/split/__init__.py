"""The stage `split`: choose the documents that may be trained on, and deal them into train, val and test.

No document of val or test has a near-duplicate in train. Used by: stages/split.py, `codex-ml check`, `codex-ml ledger`.
"""
