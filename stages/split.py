"""Split: choose the documents that may be trained on, and keep a test set that has no near-duplicate in train.

Drops documents by licence, quality and policy. Redacts secrets and personal data. Keeps one document of each family of
duplicates. Deals these into train, val and test by a keyed hash. Evicts documents that the ledger lists in train but
that are near-duplicates of a held-out document. No document that data/split_ledger lists moves to another split.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))  # this checkout's library, whatever is installed

from codex_ml.core.config import Section
from codex_ml.core.stage import Stage, run_stage
from codex_ml.split.config import Split


class Params(Section):
    """The sections of params.yaml that this stage reads."""

    split: Split = Split()


def main(stage: Stage[Params]) -> None:
    from codex_ml.core.io import atomic_folder, write_json
    from codex_ml.core.parallel import shared_workers, workers_for
    from codex_ml.documents.licence_mistakes import refuse_wrong_licences
    from codex_ml.split.augment import augment_train
    from codex_ml.split.contradictions import write_contradictions
    from codex_ml.split.crew import Crew
    from codex_ml.split.deal import deal, new_lines
    from codex_ml.split.leakage import leakage
    from codex_ml.split.ledger.answers import Ledger
    from codex_ml.split.ledger.folder import read_ledger, write_new_lines
    from codex_ml.split.manifest import croissant, log_summary, split_manifest, split_metrics
    from codex_ml.split.redaction import screen_settings
    from codex_ml.split.refusals import refuse_unused_names, require_documents
    from codex_ml.split.split_writer import write_splits
    from codex_ml.split.splits import column_bytes, corpus_split, screen_corpus, shingle_sets, warn_of_policy

    options = stage.params.split
    stage.check_plugins(options.plugins)
    refuse_wrong_licences(options.licences, ())
    for benchmark in options.benchmarks:
        stage.require(benchmark.path)
    corpus, ledger_folder = stage.dep("data/corpus/documents.parquet"), stage.dep("data/split_ledger")
    policy, key = stage.dep("data/policy.yaml"), stage.dep("data/redaction_key")
    lock, benchmarks = stage.dep("data/detectors.lock"), stage.dep("data/benchmarks")
    ledger = read_ledger(ledger_folder, salt=options.salt) if options.ledger else Ledger.empty()
    settings = screen_settings(options, policy=policy, lock=lock, key=key, benchmarks=benchmarks)
    warn_of_policy(options, key, corpus)
    workers = workers_for(column_bytes(corpus), stage.runtime.workers)
    crew = Crew(workers, stage.progress)
    with shared_workers(workers), atomic_folder(stage.out("data/splits")) as folder:
        with shingle_sets(folder / "shingles", corpus) as sets:
            # 1. Screen each document by itself: licence, quality, policy, benchmarks.
            pool = screen_corpus(corpus, settings, sets, folder, crew)
            require_documents(pool)
            refuse_unused_names(pool, corpus, options)
            # 2. Drop copies and near-duplicates, and deal the rest into train, val and test.
            dealt = deal(pool.candidates, sets, ledger, options, crew)
        # 3. Write the splits, redacted, and the lines that `codex-ml ledger accept` adds to the ledger.
        result = corpus_split(pool, dealt)
        counts = write_splits(folder, corpus, result, pool, settings, crew)
        augment_train(folder, counts["train"], settings)
        lines = new_lines(pool.candidates, dealt, ledger, options)
        write_new_lines(folder / "new_ledger.txt", lines, salt=options.salt, mark=ledger.mark)
        # 4. Describe the splits, and count what crosses them.
        ledger_counts = write_contradictions(folder, corpus, pool, dealt, ledger, settings)
        manifest = split_manifest(folder, counts, pool, result, options, ledger_counts)
        write_json(folder / "croissant.json", croissant(manifest.splits))
    leaks = leakage(pool.candidates, dealt, test_share=options.test)
    manifest.write(stage.out("reports/split/manifest.json"))
    leaks.write(stage.out("reports/split/leakage.json"))
    split_metrics(manifest, leaks).write(stage.metrics)
    log_summary(manifest, leaks)


if __name__ == "__main__":
    run_stage("split", main, Params)
