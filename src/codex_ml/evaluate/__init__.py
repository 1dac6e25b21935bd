"""Turn the scores of test documents into metrics with confidence intervals. Used by: stages/evaluate.py."""
