"""A reader: text files in which a line `---` separates documents."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def read_blocks(path: Path) -> Iterator[dict[str, str]]:
    """Yield one record per block of a file. A record has the fields of a line of JSON Lines (docs/data.md)."""
    block: list[str] = []
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if line.rstrip() == "---":
                yield {"text": "".join(block)}
                block = []
            else:
                block.append(line)
    yield {"text": "".join(block)}
