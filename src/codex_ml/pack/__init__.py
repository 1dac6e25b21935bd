"""The stage `pack`: encode the splits, and pack whole documents into rows.

Training, evaluation and the audit read the rows by number, through `codex_ml.modeling.rows`. Used by: stages/pack.py.
"""
