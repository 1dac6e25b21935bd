"""`codex-ml verify` on a real run: whatever is touched afterwards is named."""

from __future__ import annotations

import random
import re

import pytest
from workspace import MAIN, Finished, Workspace, commit

from codex_ml.core.pipeline import load_pipeline


def test_the_chain_of_a_run_holds_back_to_the_pins(finished: Finished) -> None:
    printed = finished.workspace.cli("verify", "models/model").stdout
    for expected in ("models/model", "data/packed", "data/splits", "data/raw/sample", "data/sample.lock", "alpha==1.0"):
        assert expected in printed
    assert "reports/evaluate" not in printed  # not what the model rests on
    assert "reports/evaluate/metrics.json" in finished.workspace.cli("verify").stdout


def _files(workspace: Workspace) -> list[str]:
    found = set()
    for spec in load_pipeline(workspace.root / "dvc.yaml").values():
        for path in (*spec.outs, *spec.deps):
            place = workspace.root / path
            found |= {place} if place.is_file() else {file for file in place.rglob("*") if file.is_file()}
    found = {file for file in found if file.suffix != ".pyc"}  # no record has byte code; tests/core/test_byte_code.py
    return sorted(file.relative_to(workspace.root).as_posix() for file in found)


def test_any_flipped_byte_is_found_and_its_file_named(pipeline: Workspace) -> None:
    """One random byte of 12 files is XORed, one after the other: three fixed files, the others drawn.

    Code of core is not drawn: `verify` runs it, and a changed byte can be in the code that finds it.
    """
    dice = random.Random(11)
    named = ["data/packed/train.bin", "models/model/model.safetensors", "src/codex_ml/modeling/rows.py"]
    files = [name for name in _files(pipeline) if not name.startswith("src/codex_ml/core/")]
    sizes = {name: (pipeline.root / name).stat().st_size for name in files}
    for name in [*named, *dice.sample([name for name, size in sizes.items() if size], 9)]:
        file = pipeline.root / name
        good = file.read_bytes()
        place = dice.randrange(len(good))
        file.write_bytes(good[:place] + bytes([good[place] ^ (1 << dice.randrange(8))]) + good[place + 1 :])
        verified = pipeline.cli("verify", check=False)
        file.write_bytes(good)
        assert verified.returncode in (1, 2), (name, verified.stdout[-300:])
        assert name in verified.stderr, (name, verified.stderr)
        assert "Traceback" not in verified.stderr
    assert pipeline.cli("verify").returncode == 0


@pytest.mark.parametrize("damage", ["truncate", "append", "swap", "delete"])
def test_damaged_stream_is_named_by_verify_and_refused_by_training(pipeline: Workspace, damage: str) -> None:
    """Training refuses it before it imports torch."""
    file, other = pipeline.root / "data/packed/train.bin", pipeline.root / "data/packed/val.bin"
    good = file.read_bytes()
    if damage == "delete":
        file.unlink()
    else:
        file.write_bytes({"truncate": good[:-1], "append": good + b"\0\0", "swap": other.read_bytes()}[damage])
    assert "data/packed/train.bin" in pipeline.cli("verify", check=False).stderr
    refused = pipeline.run("python", "-P", "-X", "importtime", "stages/train.py", check=False)
    assert refused.returncode == 2
    *imports, last = refused.stderr.splitlines()
    assert "data/packed/train.bin" in last
    names = {line.rpartition("|")[2].strip() for line in imports}
    assert "numpy" in names and "torch" not in names


def test_library_edited_while_a_stage_ran_is_found(pipeline: Workspace) -> None:
    """DVC hashes a dep at the end of the command; the record of the start tells."""
    late = "    file = Path('src/codex_ml/split/duplicates/dedup.py')\n    file.write_text(file.read_text() + 'late = 1\\n')\n"
    pipeline.edit("stages/split.py", MAIN, MAIN + late)
    pipeline.dvc("repro", "--single-item", "split")
    broken = pipeline.cli("verify", "data/splits", check=False)
    assert broken.returncode == 1
    assert re.search(
        r"split: src/codex_ml/split/duplicates/dedup\.py(:\d+)? was changed in more than comments, docstrings or layout: "
        "it was edited while the stage ran, or later",
        broken.stderr,
    )


def test_lineage_of_an_artifact_at_an_older_revision(pipeline: Workspace) -> None:
    pipeline.edit("params.yaml", "vocab_size: 400", "vocab_size: 420")
    pipeline.dvc("repro", "pack")
    commit(pipeline, "another vocabulary")
    now = pipeline.cli("lineage", "data/packed", "--all").stdout
    before = pipeline.cli("lineage", "data/packed", "--all", "--rev", "HEAD~1").stdout
    assert '"vocab_size": 420' in now
    assert '"vocab_size": 400' in before
    unknown = pipeline.cli("lineage", "data/packed", "--rev", "nowhere", check=False)
    assert unknown.returncode == 2
    assert "nowhere" in unknown.stderr
    mixed = pipeline.cli("lineage", "models/model", check=False)  # its rows are those of the vocabulary before
    assert mixed.returncode == 1
    assert "dvc.lock holds stages of several runs: train read data/packed " in mixed.stderr
    whole = pipeline.cli("lineage", "models/model", "--rev", "HEAD~1").stdout
    assert len(whole.splitlines()) <= 24
    assert pipeline.run("git", "rev-parse", "HEAD~1").stdout.strip() in whole


def test_check_before_a_run_finds_what_the_last_stage_would(pipeline: Workspace) -> None:
    pipeline.edit("params.yaml", "report: {}\n", "")
    missing = pipeline.cli("check", check=False)
    assert missing.returncode == 2
    assert missing.stderr.startswith("error: params.yaml has no report, so DVC would fail after stage report has run; ")
    pipeline.edit("params.yaml", "runtime:", "report: {}\nruntime:")
    assert pipeline.cli("check").returncode == 0
    pipeline.edit("dvc.lock", "  fetch:\n", "<<<<<<< HEAD\n  fetch:\n=======\n>>>>>>> other\n")
    conflict = pipeline.cli("check", check=False)
    assert conflict.returncode == 2
    assert (
        "dvc.lock:3: conflict markers of a merge; `codex-ml merge` resolves results and the split ledger"
        in conflict.stderr
    )
