"""Give the metrics of a stage to the trackers of `runtime.trackers`; training closed its run there before.

`codex-ml track` does it, in a process of its own: the libraries of the trackers, and the plug-ins, do not get into the
process of the stage. What goes wrong is logged and changes nothing.

Used by: core.stage.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from codex_ml.core.events import RUN, run_id
from codex_ml.core.short_child import run_briefly

log = logging.getLogger("codex_ml")
SECONDS = 300.0  # W&B alone may take 30 s on a busy machine
PLACES = ("DVC_EXP_NAME", "CODEX_ML_SCRATCH")  # say where the logs are
_TRACK = """import sys
sys.path.insert(0, sys.argv.pop(1))
from codex_ml.cli.main import main
main()"""


def send_results(stage: str, trackers: Sequence[str]) -> None:
    """Let `codex-ml track` send the metrics of a stage that has just written them.

    Args:
        trackers: `runtime.trackers`; without one, nothing happens.
    """
    if not trackers:
        return
    import codex_ml

    library = str(Path(codex_ml.__file__).resolve().parents[1])
    command = [sys.executable, "-P", "-s", "-X", f"{RUN}={run_id()}", "-c", _TRACK, library, "track", "--stage", stage]
    variables = {name: os.environ[name] for name in PLACES if name in os.environ}
    if why := run_briefly(command, b"", seconds=SECONDS, variables=variables):
        log.warning("%s: the trackers did not get all metrics (%s); `codex-ml track` sends them again", stage, why)
    else:
        log.info("%s: its metrics are in the trackers too (%s)", stage, ", ".join(trackers))
