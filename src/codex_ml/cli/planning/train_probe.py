"""Measure a few real training steps in a scratch copy, which leaves nothing.

The copy has links to the code and the data of this checkout and its own params.yaml, so the real script of the stage
runs, with the real model, batch, precision and compilation, for STEPS steps. Validation has its real size and runs
once. The outputs, the logs and the checkpoints go into the copy.

Used by: `codex-ml plan --probe`.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from codex_ml.cli.param_rules import Params, load_params
from codex_ml.cli.planning.plan_schema import ProbeResult
from codex_ml.cli.scratch_folder import scratch_folder
from codex_ml.core.errors import CheckFailed, UserError, one_line
from codex_ml.core.io import write_json
from codex_ml.core.pipeline import PARAMS, StageSpec, load_pipeline
from codex_ml.core.strict_json import parse_json
from codex_ml.core.yaml import read_yaml

STEPS = 12
LINKED = ("src", "stages", "dvc.yaml", "pyproject.toml", ".dvcignore")
EVENTS = Path("logs/train/events.ndjson")
# Whether `train.compile: auto` compiles depends on train.max_steps, so the real number must decide.
COMPILES = """
import sys
sys.path.insert(0, sys.argv[1])
from codex_ml.cli.param_rules import load_params
from codex_ml.train.recipe import hardware_for
params = load_params()
print("on" if hardware_for(params.model, params.train, params.runtime).compile else "off")
"""


def probe_training() -> ProbeResult:
    """Run the steps and measure them.

    Raises:
        UserError: when an input of the stage is missing.
        CheckFailed: when the training fails.
    """
    spec, params = load_pipeline()["train"], load_params()
    if missing := [dep for dep in spec.deps if not Path(dep).exists()]:
        raise UserError(f"--probe trains on {missing[0]}, which is missing; run `dvc repro pack` first")
    with scratch_folder() as scratch:
        copy = scratch / "checkout"
        _lay_out(copy, spec, params)
        return _measured(copy, params.train.max_steps)


def _lay_out(copy: Path, spec: StageSpec, params: Params) -> None:
    """Link what the stage reads into a new folder, and write its params.yaml."""
    for name in {*LINKED, *spec.data}:
        if Path(name).exists():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).symlink_to(Path(name).resolve())
    changed: dict[str, Any] = read_yaml(Path(PARAMS))
    train, runtime = (changed.get(name) or {} for name in ("train", "runtime"))
    steps = min(STEPS, params.train.max_steps)
    once = {"max_steps": steps, "eval_every": steps, "checkpoint_every": steps, "log_every": 1, "warmup_steps": 0}
    alone = {"trackers": [], "on_event": [], "prometheus_port": 0, "progress": "off"}
    changed["train"] = {**train, **once, "resume_from": "", "compile": _said(COMPILES)}
    changed["runtime"] = {**runtime, **alone}
    write_json(copy / PARAMS, changed)


def _said(code: str) -> str:
    command = [sys.executable, "-P", "-c", code, str(Path("src").resolve())]
    done = subprocess.run(command, capture_output=True, text=True, env=_environment(), check=False)
    if done.returncode:
        raise CheckFailed(f"--probe: {_last_line(done.stderr)}")
    return done.stdout.split()[-1]


def _environment(**more: str) -> dict[str, str]:
    """The environment without what DVC sets."""
    return {**{name: value for name, value in os.environ.items() if not name.startswith("DVC_")}, **more}


def _measured(copy: Path, max_steps: int) -> ProbeResult:
    started = time.time()
    with (copy / "said").open("w+", encoding="utf-8", errors="replace") as said:
        process = subprocess.Popen(
            [sys.executable, "-P", "stages/train.py"],
            cwd=copy, env=_environment(CODEX_ML_SCRATCH=str(copy / ".cache")), stdout=said, stderr=said,
        )  # fmt: skip
        try:
            _, status, usage = os.wait4(process.pid, 0)  # the memory of this child alone, and of its own children
        except BaseException:
            process.terminate()
            process.wait()
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        if process.returncode:
            raise CheckFailed(f"--probe: the training failed: {_last_line(said.read())}")
    events = [parse_json(line) for line in (copy / EVENTS).read_bytes().splitlines()]
    times = {event["step"]: event["time"] for event in events if "tokens_per_second" in event}
    steps = sorted(times)
    gaps = [times[step] - times[step - 1] for step in steps[1:]]
    if not gaps:
        raise UserError(f"--probe needs at least 3 steps to time one, but train.max_steps is {max_steps}")
    pace, start = statistics.median(gaps), times[steps[0]] - started
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    return ProbeResult(
        steps=steps[-1],
        seconds_per_step=round(pace, 4),
        start_seconds=round(start, 1),
        peak_memory_bytes=usage.ru_maxrss * unit,
        estimated_seconds=round(start + pace * (max_steps - steps[0]), 1),
    )


def _last_line(text: str) -> str:
    return one_line((text.strip().splitlines() or ["no message"])[-1].removeprefix("error: "))
