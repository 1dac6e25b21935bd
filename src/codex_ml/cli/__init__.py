"""The command `codex-ml`, with one module per command.

The commands check the workspace, verify results, and show what is in the tokenizer, the packed rows and the split
ledger. No stage depends on this package. Used by: people, the Git hooks and the Makefile.
"""
