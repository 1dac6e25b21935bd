"""Metrics: numbers per item that add up over items, and a function of their sums. Used by: evaluate."""
