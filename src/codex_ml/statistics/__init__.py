"""Confidence intervals and paired tests for numbers measured on a sample. Used by: evaluate, safety_audit, cli."""
