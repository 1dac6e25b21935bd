"""Run programs that nobody trusts, and judge what they answer. Used by: evaluate."""
