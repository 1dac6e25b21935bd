"""Remove near-duplicates from JSON Lines with datatrove. Used by: data.py and load.py, in its own environment."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.hashing import HashConfig
from datatrove.utils.word_tokenizers import WordTokenizer


class Words(WordTokenizer):
    """Our definition of a word. datatrove's own English tokenizer would take most of its time."""

    def word_tokenize(self, text: str) -> list[str]:
        return re.findall(r"\w+", text)

    def sent_tokenize(self, text: str) -> list[str]:
        raise AssertionError("MinHash asks for words only")

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        raise AssertionError("MinHash asks for words only")


def main(source: str, out: str) -> None:
    """Run the four MinHash steps with the local executor, as in the example of datatrove's documentation."""
    config = MinhashConfig(hash_config=HashConfig(precision=64), num_buckets=14, hashes_per_bucket=8, n_grams=5)
    tasks = max(2, len(list(Path(source).glob("*.jsonl"))))

    def reader() -> JsonlReader:
        return JsonlReader(source, glob_pattern="*.jsonl", compression=None)

    def run(pipeline: list, tasks: int, name: str) -> None:
        LocalPipelineExecutor(
            pipeline=pipeline, tasks=tasks, workers=2, logging_dir=f"{out}/logs/{name}", start_method="spawn"
        ).run()

    run([reader(), MinhashDedupSignature(f"{out}/signatures", config=config, language=Words())], tasks, "signatures")
    run([MinhashDedupBuckets(f"{out}/signatures", f"{out}/buckets", config=config)], config.num_buckets, "buckets")
    run([MinhashDedupCluster(f"{out}/buckets", f"{out}/remove", config=config)], 1, "cluster")
    run([reader(), MinhashDedupFilter(f"{out}/remove"), JsonlWriter(f"{out}/kept", compression=None)], tasks, "filter")


if __name__ == "__main__":
    main(*sys.argv[1:])
