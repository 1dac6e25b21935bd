"""Split: what may be trained on, and a test set that is clean of it.

Drops documents by licence, quality and policy, redacts secrets and personal data, keeps one of each family of
duplicates, deals the rest into train, val and test by a keyed hash, and evicts what the ledger lists in train but
resembles a held-out document. What data/split_ledger lists never moves.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))  # this checkout's library, whatever is installed

from functools import partial

from codex_ml.core.config import Section
from codex_ml.core.stage import Stage, log, run_stage
from codex_ml.split.config import Split


class Params(Section):
    """What this stage reads of params.yaml."""

    split: Split = Split()


def main(stage: Stage[Params]) -> None:
    from codex_ml.core.io import atomic_folder, write_json
    from codex_ml.core.parallel import shared_workers, workers_for
    from codex_ml.core.progress import progress
    from codex_ml.documents.licence_mistakes import wrong_licences
    from codex_ml.documents.split_files import LedgerCounts
    from codex_ml.policy.key import warning
    from codex_ml.split import contradictions, manifest
    from codex_ml.split.benchmarks import read_benchmarks
    from codex_ml.split.crew import Crew
    from codex_ml.split.deal import deal, new_lines
    from codex_ml.split.duplicates.shingle_sets import ShingleSets, slot_bits
    from codex_ml.split.leakage import leakage
    from codex_ml.split.ledger.answers import Ledger
    from codex_ml.split.ledger.folder import read_ledger, write_new_lines
    from codex_ml.split.refusals import refuse_unused_names, require_documents
    from codex_ml.split.screen import screen_settings
    from codex_ml.split.split_writer import write_splits
    from codex_ml.split.splits import column_bytes, corpus_bytes, corpus_split, places, screen_corpus

    options = stage.params.split
    for benchmark in options.benchmarks:
        stage.require(benchmark.path)
    corpus, ledger_folder = stage.dep("data/corpus/documents.parquet"), stage.dep("data/split_ledger")
    ledger = read_ledger(ledger_folder, salt=options.salt) if options.ledger else Ledger.empty()
    for mistake in wrong_licences(options.licences, ()):
        raise mistake
    settings = screen_settings(
        options,
        policy=stage.dep("data/policy.yaml"),
        lock=stage.dep("data/detectors.lock"),
        key=stage.dep("data/redaction_key"),
        benchmarks=stage.dep("data/benchmarks"),
    )
    if options.policy == "off":
        log.warning("split: WARNING: split.policy is off: secrets and personal data stay in the training text")
    elif note := warning(stage.dep("data/redaction_key"), places(corpus)):
        log.warning("split: WARNING: %s", note)

    workers = workers_for(column_bytes(corpus), stage.runtime.workers)
    crew = Crew(workers, partial(progress, style=stage.runtime.progress))
    with shared_workers(workers), atomic_folder(stage.out("data/splits")) as folder:
        with ShingleSets(folder / "shingles", bits=slot_bits(corpus_bytes(corpus))) as sets:
            pool = screen_corpus(corpus, settings, sets, folder, crew)
            require_documents(pool)
            refuse_unused_names(pool, corpus, options)
            dealt = deal(pool.candidates, sets, ledger, options, crew)
        sets.delete()
        result = corpus_split(pool, dealt)
        counts = write_splits(folder, corpus, result, pool, settings, crew)
        write_new_lines(
            folder / "new_ledger.txt",
            new_lines(pool.candidates, dealt, ledger, options),
            salt=options.salt,
            mark=ledger.mark,
        )
        found = contradictions.contradictions(pool.candidates, dealt, ledger)
        first = contradictions.write(folder / "contradictions.ndjson", found, pool.passed, corpus, settings)
        unchecked = read_benchmarks(options.benchmarks).unchecked if options.benchmarks else ()
        parts = manifest.split_parts(folder, counts)
        lines = LedgerCounts(lines=ledger.size, contradictions=len(found), first=first)
        about = manifest.manifest(parts, pool, result, options, ledger=lines, unchecked=unchecked)
        write_json(folder / "croissant.json", manifest.croissant(parts))
    leaks = leakage(pool.candidates, dealt, test_share=options.test)
    about.write(stage.out("reports/split/manifest.json"))
    leaks.write(stage.out("reports/split/leakage.json"))
    manifest.metrics(about, leaks).write(stage.metrics)
    log.info("split: %s", ", ".join(f"{part} {counts[part].documents}" for part in counts))
    if found:
        log.warning(
            "split: WARNING: documents for which the ledger gives two answers: %d. The cleaner one counts; "
            "data/splits/contradictions.ndjson names them",
            len(found),
        )
    log.info("split: dropped %s", result.dropped())
    log.info("split: findings %s", about.policy.findings)
    log.info("split: a random split would have leaked %.1f %% of its test documents", 100 * leaks.random_split_leak)


if __name__ == "__main__":
    run_stage("split", main, Params)
