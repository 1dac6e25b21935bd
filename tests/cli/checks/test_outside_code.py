"""`codex-ml verify` names code that no chain of hashes can hold: planted after the run, or run before the stage."""

from __future__ import annotations

import hashlib
import json

import pytest

from codex_ml.cli.checks import outside_code
from codex_ml.cli.checks.hash_chain import verified_links
from codex_ml.cli.checks.outside_code import start_code_notes
from codex_ml.core.errors import CheckFailed
from codex_ml.core.io import write_json
from codex_ml.core.record import record_path

DIGEST = hashlib.sha256(b"import os\n").hexdigest()


@pytest.mark.parametrize("name", ["stages/random.py", "src/xxhash.py", "random.py", "sitecustomize.py"])
def test_a_planted_file_is_a_finding(chain, name):
    assert list(verified_links())
    chain.write(name, b"")
    with pytest.raises(CheckFailed, match=f"^{name}: Python could import it "):
        list(verified_links())


def test_code_that_came_into_the_packages_after_the_run_is_a_finding(chain, tmp_path, monkeypatch):
    file = tmp_path / "planted.pth"
    file.write_text("import os\n")
    monkeypatch.setattr(outside_code, "installed_start_code", lambda: [file])
    with pytest.raises(CheckFailed) as told:
        list(verified_links())
    assert str(told.value) == (
        f"train: {file} runs at the start of Python, and reports/train/lineage.json does not have it (SHA-256 {DIGEST}); "
        "remove the file, or run `dvc repro --force`"
    )
    outside_code.refuse_other_start_code("train", {"environment": {"start_code": {"planted.pth": DIGEST}}})
    with pytest.raises(CheckFailed):
        outside_code.refuse_other_start_code("train", {"environment": {"start_code": {"planted.pth": "0" * 64}}})


def test_code_that_ran_before_the_stages_is_named_once(chain):
    assert list(start_code_notes(["fetch", "split", "unknown"])) == []
    for stage in ("fetch", "split"):
        record = json.loads(record_path(stage).read_bytes())
        record["environment"]["start_code"] = {"sitecustomize.py": DIGEST}
        write_json(record_path(stage), record)
    assert list(start_code_notes(["fetch", "split", "train"])) == [
        "sitecustomize.py ran at the start of Python in fetch, split; no installed package has it, and the records have its "
        f"SHA-256: {DIGEST}"
    ]
