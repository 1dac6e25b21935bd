"""Real stages: planted code is refused or in the record, `verify` names it, and the shell's variables steer nothing."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from workspace import Workspace

pytestmark = pytest.mark.pipeline
CODE = "raise SystemExit('planted code ran')\n"


def test_a_planted_file_stops_the_stage_check_and_verify(pipeline: Workspace) -> None:
    for path in ("stages/random.py", "stages/torch.py", "src/xxhash.py", "random.py"):
        file = pipeline.root / path
        file.write_text("PLANTED = 1\n" if path == "src/xxhash.py" else CODE)
        found = [pipeline.run("python", "-P", "stages/pack.py", check=False)]
        if path == "random.py":
            found += [pipeline.cli("check", check=False), pipeline.cli("verify", check=False)]
            assert [done.returncode for done in found[1:]] == [2, 1]
        assert found[0].returncode == 2
        for done in found:
            why = f"error: {path}: Python could import it "
            assert done.stderr.splitlines()[-1].startswith(why), done.stderr
            assert f" {file.stem}" in done.stderr
        file.unlink()


def test_a_module_by_pythonpath_stops_the_stage(pipeline: Workspace, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site/rarely_used.py").write_text("PLANTED = 1\n")
    pipeline.extra["PYTHONPATH"] = str(tmp_path / "site")
    pipeline.edit(
        "stages/pack.py", "    from codex_ml.core.io import", "    import rarely_used\n    from codex_ml.core.io import"
    )
    failed = pipeline.run("python", "-P", "stages/pack.py", check=False)
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1] == (
        f"error: pack imported rarely_used from {tmp_path}/site/rarely_used.py: it is in no record; remove the file, or "
        "unset PYTHONPATH"
    )


def test_code_at_the_start_of_python_is_in_the_record_and_verify_names_it(pipeline: Workspace, tmp_path: Path) -> None:
    (tmp_path / "usercustomize").mkdir()
    (tmp_path / "usercustomize/sitecustomize.py").write_text("STARTED = 1\n")
    pipeline.extra["PYTHONPATH"] = str(tmp_path / "usercustomize")
    pipeline.dvc("repro", "--force", "--single-item", "fetch")
    record = json.loads((pipeline.root / "reports/fetch/lineage.json").read_bytes())
    digest = hashlib.sha256(b"STARTED = 1\n").hexdigest()
    assert record["environment"]["start_code"] == {"sitecustomize.py": digest}
    done = pipeline.cli("verify", "data/raw/sample")
    assert "warning: sitecustomize.py ran at the start of Python in fetch; no installed package has it" in done.stderr
    assert digest in done.stderr


def test_the_variables_of_a_shell_steer_nothing(pipeline: Workspace, tmp_path: Path) -> None:
    """Names that a launcher, DVC or an older version of this library uses, with values of the user's own."""
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "file").write_text("theirs")
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    pipeline.extra.update(
        CODEX_ML_PRIVATE=str(theirs), CODEX_ML_PREPARED="1", CODEX_ML_LAUNCHED="1", CODEX_ML_RUN="x",
        CODEX_ML_SCRATCH=str(shared), DVC_ROOT=str(tmp_path / "elsewhere"), RANK="1", WORLD_SIZE="2", LOCAL_RANK="1",
        MASTER_ADDR="127.0.0.1", MASTER_PORT="1", ACCELERATE_USE_FSDP="true",
    )  # fmt: skip
    before = (pipeline.root / "dvc.lock").read_bytes()
    for stage in ("evaluate", "pack"):
        pipeline.dvc("repro", "--force", "--single-item", stage)
    assert (pipeline.root / "dvc.lock").read_bytes() == before
    assert (theirs / "file").read_text() == "theirs"
    assert shared.stat().st_mode & 0o777 == 0o777
    assert not (tmp_path / "elsewhere").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["another place", "shared", "theirs"]
