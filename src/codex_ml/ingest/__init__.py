"""Read the sources of params.yaml into one corpus of documents.

`readers` turn files, tables, archives, packages and Git repositories into documents. The other modules measure the
documents, sort them, and write them to data/corpus/documents.parquet. Used by: the stage `ingest`.
"""
