"""Ingest: read every source of params.yaml into one corpus of documents with source, path, licence and SHA-256.

What cannot be a document (not UTF-8, empty, too long, a link) is listed with its reason in data/corpus/refused.ndjson.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))  # this checkout's library, whatever is installed

from collections import Counter
from collections.abc import Iterator

from codex_ml.stage import Stage, log, run_stage


def main(stage: Stage) -> None:
    from codex_ml.data.documents import Document, write_documents
    from codex_ml.data.readers import Refused, read_source
    from codex_ml.errors import UserError
    from codex_ml.io import atomic_folder, write_json, write_ndjson

    settings = stage.params.ingest
    refused: list[Refused] = []
    licences: Counter[str] = Counter()
    seen: set[str] = set()

    def documents() -> Iterator[Document]:
        for source in settings.sources:
            assert stage.dep(source.path)
            for item in read_source(source, max_bytes=settings.max_document_bytes):
                if isinstance(item, Refused):
                    refused.append(item)
                elif item.id in seen:  # two sources overlap
                    refused.append(Refused.of(item.source, item.path, "listed twice"))
                else:
                    seen.add(item.id)
                    licences[item.licence] += 1
                    yield item

    with atomic_folder(stage.out("data/corpus")) as folder:
        count, size = write_documents(folder / "documents.parquet", documents())
        if not count:
            paths = ", ".join(source.path for source in settings.sources)
            raise UserError(
                f"no document in {paths} ({len(refused)} refused); check ingest.sources: kind, path and glob"
            )
        write_ndjson(folder / "refused.ndjson", map(vars, refused))
    numbers = {"documents": count, "megabytes": round(size / 1e6, 3), "refused": len(refused)}
    write_json(stage.metrics, numbers)
    log.info("ingest: %d documents, %.1f MB, %d refused, %d licences", count, size / 1e6, len(refused), len(licences))


if __name__ == "__main__":
    run_stage("ingest", main, help=__doc__)
