"""`codex-ml check`: find mistakes before any work is done."""

from __future__ import annotations

from pathlib import Path

from codex_ml.cli.options import Debug, warn_of_lines_not_compared
from codex_ml.cli.output import say
from codex_ml.core.errors import one_line_errors
from codex_ml.core.private_data import open_cache
from codex_ml.core.repository_root import go_to_top

UNLISTED = "runs at the start of Python, and no installed package lists it; its hash goes into the record of each stage"


def check(debug: Debug = False) -> None:
    """Validate params.yaml, dvc.yaml and the workspace, before any work and without torch.

    It finds unknown keys (and suggests the closest one), wrong types, impossible combinations, params that no stage
    reads, params, files and imports that a stage uses but does not declare, outputs that Git tracks, conflict markers,
    files that Python could import in place of a module, missing or damaged inputs and base models, package versions
    that differ from requirements.lock, locks that a killed DVC left, hooks whose program is not there or whose plug-in
    cannot be imported, models that cannot fit into the memory of this machine, and accepted findings of the audit whose
    last day has passed. It warns where a stage may need more memory than there is, where the installed metrics of other
    packages are not those of the last evaluation, and of files that run at the start of Python and that no installed
    package lists.

    Example: codex-ml check && dvc repro
    """
    from codex_ml.cli.checks.installed_metrics import metrics_warning
    from codex_ml.cli.checks.memory_fit import memory_warnings
    from codex_ml.cli.checks.workspace import check_workspace
    from codex_ml.core.loaded_code import installed_start_code
    from codex_ml.policy.key import KEY, SAMPLE, warning

    with one_line_errors(debug=debug):
        go_to_top()
        params = check_workspace()
        if note := warning(KEY, (source.path for source in params.ingest.sources)):
            say(f"warning: {note}", err=True)
        own = any(not Path(source.path).is_relative_to(SAMPLE) for source in params.ingest.sources)
        if own and (note := open_cache()):
            say(f"warning: {note}", err=True)
        if note := metrics_warning(params.evaluate.metrics):
            say(f"warning: {note}", err=True)
        for note in memory_warnings(params):
            say(f"warning: {note}", err=True)
        for file in installed_start_code():
            say(f"warning: {file} {UNLISTED}", err=True)
        warn_of_lines_not_compared()
        say("check: params.yaml, dvc.yaml and the workspace are in order")
