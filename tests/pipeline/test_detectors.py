"""A detector of another package through the real stages: its code is part of what they depend on."""

from __future__ import annotations

import json
import os
from pathlib import Path

from workspace import Workspace

CODE = "import re\n\n\ndef find(text):\n    return [('no-{word}', m.start(), m.end()) for m in re.finditer('{word}', text)]\n"


def install(site: Path, word: str, version: str) -> None:
    """A distribution as pip leaves it."""
    for old in site.glob("*.dist-info"):
        old.rename(site.parent / f"removed-{old.name}")
    info = site / f"word_finder-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: word-finder\nVersion: {version}\n")
    (info / "entry_points.txt").write_text("[codex_ml.detectors]\nword = word_finder:find\n")
    (info / "RECORD").write_text(f"word_finder.py,,\n{info.name}/METADATA,,\n")
    (site / "word_finder.py").write_text(CODE.format(word=word))


def findings(workspace: Workspace) -> set[str]:
    lines = (workspace.root / "data/splits/findings.ndjson").read_text(encoding="utf-8").splitlines()
    return {json.loads(line)["rule"] for line in lines}


def test_another_detector_makes_split_stale_and_is_named_until_then(pipeline: Workspace, tmp_path: Path) -> None:
    site = tmp_path / "site"
    install(site, "isinstance", "1.0")
    pipeline.extra["PYTHONPATH"] = os.fspath(site)
    pipeline.edit("data/policy.yaml", "detectors: []", "detectors: [word]")
    missing = pipeline.dvc("repro", "split", check=False)
    assert missing.returncode != 0
    assert "data/detectors.lock does not have the detector 'word', which data/policy.yaml names" in missing.stderr

    pipeline.cli("plugins", "lock")
    pipeline.dvc("repro", "split")
    assert findings(pipeline) == {"no-isinstance"}
    assert pipeline.dvc("status", "split").stdout.endswith("up to date.\n")

    install(site, "raise", "1.1")
    told = "detector 'word': data/detectors.lock has version 1.0, installed is 1.1 (word-finder 1.1)"
    assert told in pipeline.cli("check", check=False).stderr
    verified = pipeline.cli("verify", "data/splits", check=False)
    assert (verified.returncode, f"error: split: {told}" in verified.stderr) == (1, True)
    by_hand = pipeline.run("python", "stages/split.py", check=False)
    assert (by_hand.returncode, told in by_hand.stderr) == (2, True)
    assert findings(pipeline) == {"no-isinstance"}

    pipeline.cli("plugins", "lock")
    assert "data/detectors.lock" in pipeline.dvc("status", "split").stdout
    pipeline.dvc("repro", "split")
    assert findings(pipeline) == {"no-raise"}
    pipeline.cli("verify", "data/splits")
