"""Fetch the sample corpus: the wheels that data/sample.lock pins by name, version and SHA-256.

Only this stage uses the network. It does not download a wheel again that is already there with the right hash. A wrong
hash stops the run, and nothing is written. Set `fetch.sample: false` to work with your own data only.
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
    from codex_ml.fetch.wheels import fetch_wheels, read_pins

    out = stage.out("data/raw/sample")
    if not stage.params.fetch.sample:
        with atomic_folder(out):
            log.info("fetch: fetch.sample is false, the sample corpus is empty")
        return
    pins = read_pins(stage.dep("data/sample.lock"))
    downloaded = fetch_wheels(pins, into=out, store=scratch_folder() / "wheels")
    log.info("fetch: %d wheels, %d of them downloaded now", len(pins), downloaded)


if __name__ == "__main__":
    run_stage("fetch", main, Params, network=True)
