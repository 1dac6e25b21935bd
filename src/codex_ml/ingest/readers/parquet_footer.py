"""Read the footer of a Parquet file in a limited child first, because some damaged footers end the process.

Arrow checks the statistics of a column chunk when its metadata are asked for. There it throws a C++ exception that
Python cannot catch, which calls `abort`. Used by: ingest.
"""

from __future__ import annotations

import atexit
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

from codex_ml.core.child import Answer, LimitedChild
from codex_ml.core.errors import Reason, UserError

SECONDS = 20  # of CPU time; a footer of 1,000 row groups with 100 columns takes 0.1 s


def footer_kills(path: Path) -> Reason | None:
    """Why a file must not be opened in this process; None if it may be.

    An error that Python can catch is no reason: the reader meets it too, and words it for its file.
    """
    try:
        _child().ask({"file": str(path.resolve())})
    except UserError:
        return Reason("damaged: the child process that read its footer ended")
    return None


def footer_in_child() -> Answer:
    """What the child runs: ask for the metadata of every column chunk."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pa.set_memory_pool(pa.system_memory_pool())  # the default pool reserves a gigabyte of addresses
    first = BytesIO()
    pq.write_table(pa.table({"text": [""]}), first)
    _ask_all(first)  # Arrow starts its threads before the limits apply

    def read(request: dict[str, Any]) -> None:
        try:
            _ask_all(request["file"])
        except MemoryError:
            raise
        except Exception:  # the reader reports it
            return

    return read


def _ask_all(source: Any) -> None:
    import pyarrow.parquet as pq

    with pq.ParquetFile(source) as file:
        metadata = file.metadata
        for group in range(metadata.num_row_groups):
            chunks = metadata.row_group(group)
            for number in range(chunks.num_columns):
                chunks.column(number)


@lru_cache(maxsize=1)
def _child() -> LimitedChild:
    child = LimitedChild(footer_in_child, seconds=SECONDS)
    atexit.register(child.close)
    return child
