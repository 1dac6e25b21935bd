"""The border between an instruction and its input in a prompt. Used by: ingest, modeling.prompt_template."""

# `ingest` writes it where a source names `fields.input`. So both are part of the prompt that the policy, the search for
# near-duplicates and the search for benchmarks see, and a template can tell them apart.
INPUT = "\n\n### Input:\n"
