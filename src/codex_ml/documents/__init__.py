"""A document, its Parquet form and its licence. Used by: ingest, split, tokenizer, pack, evaluate, safety_audit."""
