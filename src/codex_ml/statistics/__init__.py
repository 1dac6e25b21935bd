"""Confidence intervals for numbers that were measured on a sample. Used by: evaluate, safety_audit."""
