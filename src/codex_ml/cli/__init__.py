"""The command `codex-ml`: one module per command. Nothing of it is a dependency of a stage."""
