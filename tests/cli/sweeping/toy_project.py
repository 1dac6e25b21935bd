"""A tiny DVC project whose stage `train` is a script of a few lines, for sweeps with the real DVC."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[3]
MAIN = f"import sys; sys.path.insert(0, {str(REPOSITORY / 'src')!r}); from codex_ml.cli.main import main; main()"
DVC_YAML = """\
stages:
  train:
    desc: A toy
    cmd: python -P stages/train.py
    deps:
      - stages/train.py
    params:
      - seed
      - train
      - model
    outs:
      - models/model
    metrics:
      - reports/train/metrics.json:
          cache: false
    plots:
      - reports/train/plots:
          cache: false
"""
# The loss falls towards (lr - 0.01)^2 x 1e4 + layers. A trial whose lr is above 0.05 fails, and says TOY_SAYS. It waits for `release` where
# the test asks for it, so that the test decides when the trial goes on. SIGINT ends it.
STAGE = """\
import json, os, pathlib, sys, time, yaml
params = yaml.safe_load(open("params.yaml"))
lr, layers = float(params["train"]["lr"]), params["model"]["layers"] or 4
end = (lr - 0.01) ** 2 * 1e4 + layers
curve = pathlib.Path("reports/train/plots/metrics/val/loss.tsv")
curve.parent.mkdir(parents=True, exist_ok=True)
with open(os.environ["TOY_LOG"], "a") as log:
    log.write(f"{os.environ['DVC_EXP_NAME']}\\n")
if lr > 0.05:
    sys.exit(f"error: the loss is not finite{os.environ.get('TOY_SAYS', '')}")
with open(curve, "w") as file:
    file.write("step\\tloss\\n")
    for step in (10, 20, 30):
        file.write(f"{step}\\t{end + 3 / step}\\n")
        file.flush()
        if step == 20 and lr > float(os.environ.get("TOY_SLOW", "inf")):
            try:
                time.sleep(60)
            except KeyboardInterrupt:
                pathlib.Path(os.environ["TOY_LOG"] + ".stopped").touch()
                sys.exit("error: SIGINT: saved a checkpoint")
pathlib.Path("models/model").mkdir(parents=True)
pathlib.Path("models/model/weights").write_text(repr(end))
pathlib.Path("reports/train/metrics.json").write_text(json.dumps({"best_val_loss": end + 0.1, "val": {"loss": end}}))
"""


@dataclass
class ToyProject:
    """The project, and how commands run in it."""

    root: Path

    @property
    def environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "GIT_", "COV"))}
        return {
            **kept,
            "DVC_SITE_CACHE_DIR": str(self.root / ".dvc/tmp/site"),
            "DVC_NO_ANALYTICS": "1",
            "TOY_LOG": str(self.log),
            "GIT_CONFIG_GLOBAL": os.devnull,
        }

    @property
    def log(self) -> Path:
        return self.root.parent / "toy.log"

    @property
    def ran(self) -> list[str]:
        """Names of the experiments in the order in which their stage started."""
        return self.log.read_text().split() if self.log.exists() else []

    def run(self, *command: str) -> str:
        return subprocess.run(
            command, cwd=self.root, env=self.environment, check=True, capture_output=True, encoding="utf-8"
        ).stdout

    def start(self, *arguments: str, command: str = "sweep", **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", MAIN, command, *arguments],
            cwd=self.root,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            start_new_session=True,
        )

    def sweep(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments, **environment)
        out, err = process.communicate(timeout=300)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def make_toy(folder: Path) -> ToyProject:
    """The project, committed; nothing has run yet."""
    root = folder / "toy"
    shutil.copytree(REPOSITORY / "tests/project", root)
    for name, text in {
        "dvc.yaml": DVC_YAML,
        "stages/train.py": STAGE,
        "src/codex_ml/__init__.py": "",
        ".dvc/config": "[core]\n    analytics = false\n",
        ".dvc/.gitignore": "/config.local\n/tmp\n/cache\n",
        ".gitignore": "/models/model\n/logs/\n/.cache/\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    project = ToyProject(root)
    project.run("git", "init", "-q", "-b", "main")
    for key, value in (("user.name", "Test"), ("user.email", "test@example.org")):
        project.run("git", "config", key, value)
    project.run("git", "add", "-A")
    project.run("git", "commit", "-q", "-m", "start")
    return project
