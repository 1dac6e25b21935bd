"""Git does not see what DVC keeps, and sees everything else: metrics, plots, and what a user writes beside them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]


def outputs() -> dict[str, bool]:
    """Path -> whether DVC keeps it, of every output, metric and plot below reports."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    found = {}
    for stage in stages.values():
        for output in [*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])]:
            [(path, options)] = output.items() if isinstance(output, dict) else [(output, {})]
            found[path] = options.get("cache", True)
    return {path: kept for path, kept in found.items() if path.startswith("reports/")}


def ignored(folder: Path, paths: list[str]) -> set[str]:
    shutil.copy(ROOT / ".gitignore", folder / ".gitignore")
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    done = subprocess.run(
        ["git", "check-ignore", "--stdin"], cwd=folder, input="\n".join(paths), text=True, capture_output=True
    )
    return set(done.stdout.splitlines())


def test_of_the_reports_git_ignores_what_dvc_keeps_and_nothing_else(tmp_path: Path) -> None:
    kept = outputs()
    own = ["reports/notes.md", "reports/train/notes.md", "reports/my_stage/table.csv", "reports/train/plots/mine.tsv"]
    assert len(kept) > 40
    assert ignored(tmp_path, [*kept, *own]) == {path for path in kept if kept[path]}


def test_a_file_that_a_killed_stage_had_not_finished_is_ignored(tmp_path: Path) -> None:
    assert ignored(tmp_path, ["reports/train/.metrics.json.tmp-123"]) == {"reports/train/.metrics.json.tmp-123"}
