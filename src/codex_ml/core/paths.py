"""Paths that stages, commands and messages share, relative to the repository."""

from pathlib import Path

SPLIT_LEDGER = Path("data/split_ledger")
FORGOTTEN = "forgotten.txt"  # in that folder: the contents whose lines do not count
FORMER_LEDGER = Path("data/split_ledger.ndjson")  # `codex-ml ledger convert` reads it
SAMPLE_BENCHMARKS = Path("data/benchmarks/sample")  # written by `fetch`
