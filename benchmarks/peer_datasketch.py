"""Remove near-duplicates from JSON Lines with datasketch. Used by: data.py and load.py, in its own environment."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from datasketch import MinHash

WORDS = re.compile(r"\w+")


def main(source: str, out: str) -> None:
    """Keep one document per cluster: MinHash, bands in dictionaries, union-find."""
    bands, rows = 42, 6
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
                tokens = WORDS.findall(json.loads(line)["text"].lower())
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
    main(*sys.argv[1:])
