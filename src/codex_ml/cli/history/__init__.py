"""Read and unite the earlier states of the repository that Git and DVC keep.

It finds lost lines of the split ledger, shows what a result was made from, and resolves a merge. It reads Git with its
commands, and DVC's cache with its files. Used by: check, verify, lineage, merge, hooks.
"""
