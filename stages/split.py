"""Split: what may be trained on, and a test set that is clean of it.

Drops documents by licence, exact duplicates and near-duplicates, deals the rest into train, val and test by a keyed
hash of their content, and evicts from train what an independent search still finds close to a held-out document.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))  # this checkout's library, whatever is installed

from collections import Counter

from codex_ml.stage import Stage, log, run_stage


def main(stage: Stage) -> None:
    from codex_ml.data.documents import count_documents, read_documents, write_documents
    from codex_ml.data.split import PARTS, entry, split
    from codex_ml.io import atomic_folder, write_json, write_ndjson
    from codex_ml.progress import track

    corpus = stage.dep("data/corpus/documents.parquet")
    total = count_documents(corpus)
    documents = track(read_documents(corpus), "split", total, "documents", style=stage.runtime.progress)
    entries = [entry(document) for document in documents]
    verdicts, leakage = split(entries, stage.params.split)

    metrics: dict[str, object] = {}
    with atomic_folder(stage.out("data/splits")) as folder:
        for part in PARTS:
            chosen = (d for d in read_documents(corpus) if verdicts[d.id].part == part)
            count, size = write_documents(folder / f"{part}.parquet", chosen)
            metrics[part] = {"documents": count, "megabytes": round(size / 1e6, 3)}
        dropped = [(e, verdicts[e.id]) for e in entries if verdicts[e.id].part is None]
        rows = ({"source": e.source, "path": e.path, "reason": v.reason, "kept": v.kept} for e, v in dropped)
        write_ndjson(folder / "dropped.ndjson", rows)
    reasons = Counter(verdict.reason.replace(" ", "_") for _, verdict in dropped)
    metrics |= {"dropped": dict(sorted(reasons.items())), "leakage": vars(leakage)}
    write_json(stage.metrics, metrics)
    log.info("split: %s", ", ".join(f"{part} {metrics[part]}" for part in PARTS))
    log.info("split: dropped %s", dict(reasons))
    log.info("split: a random split would have leaked %.1f %% of its test documents", 100 * leakage.random_split_leak)


if __name__ == "__main__":
    run_stage("split", main, help=__doc__)
