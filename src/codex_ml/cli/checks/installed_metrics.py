"""Compare the installed metrics of other packages with those of the last evaluation.

DVC sees files, not packages: a metric that was installed, updated or removed leaves `evaluate` up to date. Used by:
`codex-ml check`, which runs before each `make repro`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from codex_ml.core.errors import UserError
from codex_ml.core.hashing import hash_file
from codex_ml.core.pipeline import LOCK, load_lock
from codex_ml.core.plugin_lock import code_digest
from codex_ml.inference.evaluate_files import DETAILS, Evaluation, PlugIn

RESULT = Path("reports/evaluate") / DETAILS


def metrics_warning(names: Sequence[str]) -> str:
    """Which metrics differ from those of the last evaluation and what to do, on one line; "" if none differs.

    Metrics are compared by name, package, version and code; none is imported.

    Args:
        names: `evaluate.metrics`.
    """
    found = _last_evaluation()
    if found is None:
        return ""
    from codex_ml.evaluate.metrics.registry import listed_name, plugins_to_use  # with numpy

    wanted, installed = ({listed_name(plugin) for plugin in plugins_to_use(chosen)} for chosen in (names, ()))
    used = {listed_name(plugin) for plugin in found.plug_ins}
    failed = {note.partition(": ")[0] for note in found.notes}
    said = [
        *(f"{metric} is installed and was not used" for metric in sorted(wanted - used - failed)),
        *(f"{metric} was used and is not installed" for metric in sorted(used - installed)),
        *(f"the code of {listed_name(one)} is another one" for one in found.plug_ins if _changed(one, wanted)),
    ]
    if not said:
        return ""
    command = "dvc repro --force --single-item evaluate"
    return f"{RESULT}: {', '.join(said)}; DVC does not see packages, so run `{command}`"


def _changed(used: PlugIn, wanted: set[str]) -> bool:
    """Whether a metric that is still used has other code than in the last evaluation."""
    from codex_ml.evaluate.metrics.registry import listed_name

    return listed_name(used) in wanted and used.sha256 not in ("", code_digest("metrics", used.name))


def _last_evaluation() -> Evaluation | None:
    """What the last run of the stage wrote; None where it has not run, or its result is not here."""
    try:
        locked = load_lock().get("evaluate") if LOCK.exists() else None
        if locked is None or not RESULT.is_file() or locked.outs.get(str(RESULT)) != hash_file(RESULT).md5:
            return None
        return Evaluation.read(RESULT)
    except UserError:  # other checks report the lock; DVC runs the stage again
        return None
