"""A document, its Parquet form, its licence and the stored signals of its text.

The package also holds the typed definitions of the files that `ingest` and `split` write for later stages.
Used by: ingest, split, tokenizer, pack, evaluate, safety_audit, report.
"""
