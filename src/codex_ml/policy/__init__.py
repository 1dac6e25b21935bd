"""The text policy: which values a text must not hold, how to find them, and what replaces them.

`data/policy.yaml` holds the rules, `Scanner` finds the values, and `redact` replaces them by placeholders.
`TextFilter` decides about prompts and answers.
Used by: split, safety_audit, the Git hooks, `codex-ml check` and `codex-ml policy`.
"""
