"""Ingest and split start cheaply: neither they nor their workers import pandas, which takes a quarter of a second."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

PARAMS = """\
ingest: {sources: [{kind: jsonl, path: data/raw/own.jsonl, licence: MIT}]}
split: {policy: "off", ledger: false}
"""
CODE = """\
import runpy, sys
try:
    runpy.run_path(sys.argv.pop(), run_name="__main__")
except SystemExit as ended:
    assert not ended.code, ended.code
assert "pandas" not in sys.modules
"""


def test_ingest_and_split_import_no_pandas(
    workspace: Path, repository: Path, run_python: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    (workspace / "src").unlink()  # the check of imports follows no link
    shutil.copytree(repository / "src", workspace / "src")
    (workspace / "params.yaml").write_text(PARAMS)
    texts = ("".join(f"word{n * k} of {k}\n" for k in range(30)) for n in range(200))
    lines = (json.dumps({"id": str(n), "text": text}) for n, text in enumerate(texts))
    (workspace / "data/raw/own.jsonl").write_text("\n".join(lines))
    for stage in ("ingest", "split"):
        # The workspace has a library of its own, so PYTHONPATH names no other one.
        done = run_python(
            "-c", CODE, f"stages/{stage}.py", cwd=workspace, env={"PYTHONPATH": str(repository / "tests/guard")}
        )
        assert done.returncode == 0, done.stderr
