"""A server that reads a source of ingest in a process of its own and says what that cost. The server imports pyarrow once."""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import traceback
from pathlib import Path

import pyarrow.parquet  # noqa: F401 - imported here once, not in each child

from codex_ml.core.errors import UserError
from codex_ml.ingest.config import Ingest, Source
from codex_ml.ingest.corpus import spilling
from codex_ml.ingest.sources import Tally, read_sources


def read(kind: str, path: str, glob: str) -> tuple[int, int, list[str], int]:
    """(documents, refused, the first three reasons and the error if there is one, MiB by which memory has grown)."""
    source = Source(kind=kind, path=path, glob=glob, bad_records="skip")
    settings, tally, reasons = Ingest(sources=(source,)), Tally(), []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        with tempfile.TemporaryDirectory() as folder, spilling(Path(folder) / "spills") as spills:
            for row in read_sources(settings, spills, tally, workers=0, advance=lambda _: None):
                reasons = [*reasons, row["reason"]][:3]
    except UserError as error:
        reasons = [*reasons, str(error)]
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return tally.documents, tally.refused, reasons, grown >> 10


def serve() -> None:
    """A line of JSON in, {"folder", "source"}; a line out: the JSON of `read`, or the status of a child that failed."""
    for line in sys.stdin:
        order = json.loads(line)
        if (child := os.fork()) == 0:
            status = 1
            try:
                resource.setrlimit(resource.RLIMIT_CPU, (100, 100))  # seconds
                os.chdir(order["folder"])
                print(json.dumps(read(*order["source"])), flush=True)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        if status := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
            print(status, flush=True)


if __name__ == "__main__":
    serve()
