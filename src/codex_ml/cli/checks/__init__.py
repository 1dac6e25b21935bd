"""The checks of `codex-ml check` and `codex-ml verify`.

`check` runs `workspace`, which calls the other modules, before any work is done. `verify` runs `hash_chain`, which
computes the hashes of the results again. Used by: cli.check, cli.verify.
"""
