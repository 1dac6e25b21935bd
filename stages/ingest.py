"""Ingest: read every source of params.yaml into one corpus of documents with source, path, licence and signals.

The order of the corpus depends on the contents only. data/corpus/refused.ndjson lists what is not a document (not
UTF-8, empty, too long, a link), with file, line and reason.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))  # this checkout's library, whatever is installed

from codex_ml.core.config import Section
from codex_ml.core.stage import Stage, log, run_stage
from codex_ml.ingest.config import Ingest


class Params(Section):
    """What this stage reads of params.yaml."""

    ingest: Ingest = Ingest()


def main(stage: Stage[Params]) -> None:
    from codex_ml.core.io import atomic_folder, write_ndjson
    from codex_ml.core.parallel import shared_workers, workers_for
    from codex_ml.documents.licence_mistakes import refuse_wrong_licences
    from codex_ml.ingest.corpus import spilling
    from codex_ml.ingest.corpus_writer import write_corpus
    from codex_ml.ingest.readers import source_bytes
    from codex_ml.ingest.readers.git_repository import refuse_moving_revision
    from codex_ml.ingest.sources import Tally, read_sources

    settings = stage.params.ingest
    stage.check_plugins(settings.plugins)
    refuse_wrong_licences((), (source.licence for source in settings.sources))
    for source in settings.sources:
        stage.require(source.path)
        refuse_moving_revision(source)
    size = sum(source_bytes(source) for source in settings.sources)
    tally = Tally()
    workers = workers_for(size, stage.runtime.workers)
    with (
        shared_workers(workers),
        atomic_folder(stage.out("data/corpus"), private=True) as folder,
        spilling(folder / "spills") as spills,
    ):
        with stage.progress("ingest: read", size, "bytes") as advance:
            refused = read_sources(settings, spills, tally, workers=workers, advance=advance)
            write_ndjson(folder / "refused.ndjson", refused)
        tally.require_documents(settings)
        with stage.progress("ingest: write", tally.bytes, "bytes") as advance:
            write_corpus(folder / "documents.parquet", spills, workers=workers, advance=advance)
        (folder / "spills").rmdir()
    stage.write_numbers(tally.details().as_json(), compared=("refused",))
    log.info(
        "ingest: %d documents, %.1f MB, %d refused, %d licences",
        tally.documents, tally.bytes / 1e6, tally.refused, len(tally.licences),
    )  # fmt: skip
    for reason, count in tally.reasons.most_common(10):
        log.info("ingest: %6d x %s", count, reason)


if __name__ == "__main__":
    run_stage("ingest", main, Params)
