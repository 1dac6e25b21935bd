"""Near-duplicate removal by other tools, on JSON Lines; run by data.py in an environment that has them."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path


def datatrove(source: str, out: str) -> None:
    """MinHash in four steps with the local executor, as in the example of its documentation."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter
    from datatrove.utils.hashing import HashConfig

    config = MinhashConfig(hash_config=HashConfig(precision=64), num_buckets=14, hashes_per_bucket=8, n_grams=5)
    tasks = max(2, len(list(Path(source).glob("*.jsonl"))))

    def reader() -> JsonlReader:
        return JsonlReader(source, glob_pattern="*.jsonl", compression=None)

    def run(pipeline: list, tasks: int, name: str) -> None:
        LocalPipelineExecutor(
            pipeline=pipeline, tasks=tasks, workers=2, logging_dir=f"{out}/logs/{name}", start_method="spawn"
        ).run()

    run([reader(), MinhashDedupSignature(f"{out}/signatures", config=config)], tasks, "signatures")
    run([MinhashDedupBuckets(f"{out}/signatures", f"{out}/buckets", config=config)], config.num_buckets, "buckets")
    run([MinhashDedupCluster(f"{out}/buckets", f"{out}/remove", config=config)], 1, "cluster")
    run([reader(), MinhashDedupFilter(f"{out}/remove"), JsonlWriter(f"{out}/kept", compression=None)], tasks, "filter")


def datasketch(source: str, out: str) -> None:
    """MinHash, bands in dictionaries, union-find."""
    from datasketch import MinHash

    bands, rows = 42, 6
    words = re.compile(r"\w+")
    buckets: list[dict[bytes, int]] = [{} for _ in range(bands)]
    parent: list[int] = []
    places: list[tuple[str, int]] = []

    def root(item: int) -> int:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    for file in sorted(Path(source).glob("*.jsonl")):
        with file.open("rb") as lines:
            for line in lines:
                tokens = words.findall(json.loads(line)["text"].lower())
                grams = {" ".join(tokens[i : i + 5]).encode() for i in range(len(tokens) - 4)}
                signature = MinHash(num_perm=bands * rows)
                signature.update_batch(grams)
                number = len(parent)
                parent.append(number)
                places.append((file.name, len(line)))
                for band, bucket in enumerate(buckets):
                    key = signature.hashvalues[band * rows : (band + 1) * rows].tobytes()
                    first = bucket.setdefault(key, number)
                    low, high = sorted((root(first), root(number)))
                    parent[high] = low
    folder = Path(out)
    folder.mkdir(parents=True)
    number = 0
    for file in sorted(Path(source).glob("*.jsonl")):
        with file.open("rb") as lines, (folder / file.name).open("wb") as kept:
            for line in lines:
                if root(number) == number:
                    kept.write(line)
                number += 1


if __name__ == "__main__":
    {"datatrove": datatrove, "datasketch": datasketch}[sys.argv[1]](*sys.argv[2:])
