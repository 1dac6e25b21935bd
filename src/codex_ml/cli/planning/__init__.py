"""What `codex-ml plan` computes: what `dvc repro` would do with each stage, why, and at what cost.

This file imports nothing, so that one module can be imported without the others.
"""
