"""Environment variables: docs/environment.md lists each one that the code reads, and the record has those that decide bytes."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

from codex_ml.core.child import KEPT
from codex_ml.core.ranks import NEEDED, RANKS, SIZES, TORCHRUN
from codex_ml.core.variables import FIXED, NOT_RECORDED, RECORDED, preloaded, recorded_variables
from codex_ml.modeling.process import ALLOCATOR

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/environment.md"
GROUPS = {*KEPT, *NEEDED, *RANKS, *SIZES, TORCHRUN, *FIXED, *ALLOCATOR, "CODEX_ML_TOKEN"}
INSIDE = ("sandbox", "policy", "safety_audit")  # folders with programs of a sandbox, and with texts that are examples


def names_read() -> set[str]:
    """Every text beside `os.environ` in src and stages that could be the name of a variable."""
    found = set()
    for file in [*(ROOT / "src").rglob("*.py"), *(ROOT / "stages").glob("*.py")]:
        if not set(file.parts) & set(INSIDE):
            for line in file.read_text(encoding="utf-8").splitlines():
                if "environ" in line:
                    found |= set(re.findall(r'"([A-Z][A-Z0-9_]{3,})"', line))
    return {
        f"{name}*" if name.endswith("_") and name not in ALLOCATOR else name for name in found
    }  # a beginning of names


def listed() -> set[str]:
    return set(re.findall(r"`([A-Z][A-Z0-9_]{3,}\*?)`", PAGE.read_text(encoding="utf-8")))


def test_the_page_lists_every_variable_that_the_code_reads():
    read = names_read()
    assert {"CODEX_ML_SCRATCH", "DVC_EXP_NAME", "OMP_NUM_THREADS"} <= read
    assert {name for name in read | GROUPS if name not in listed()} == set()


def test_the_page_lists_what_the_record_holds():
    text = PAGE.read_text(encoding="utf-8").partition("\n\n`ATEN_*`")[2].partition(".\n")[0]
    assert tuple(name.rstrip("*") for name in ("ATEN_*", *re.findall(r"`([A-Z0-9_*]+)`", text))) == RECORDED


def test_no_folder_and_no_state_of_ours_travels_in_a_variable():
    """What was CODEX_ML_PRIVATE, CODEX_ML_PREPARED, CODEX_ML_LAUNCHED and CODEX_ML_RUN is no variable."""
    texts = {
        node.value
        for file in (ROOT / "src").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_bytes()))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.fullmatch("CODEX_ML_[A-Z_]+", node.value)
    }
    assert texts == {"CODEX_ML_SCRATCH", "CODEX_ML_TOKEN"}


def test_the_record_has_what_may_decide_bytes_and_no_path():
    shell = {
        "MKL_CBWR": "AVX2", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1", "LD_LIBRARY_PATH": "/home/me/lib", "HOME": "/home/me",
        "OMP_THREAD_LIMIT": "1", "LD_AUDIT": "libx.so", "TORCHINDUCTOR_CACHE_DIR": "/tmp/x", "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1", "OMP_NUM_THREADS": "4", "RANK": "1",
    }  # fmt: skip
    assert recorded_variables(shell) == {
        "LD_AUDIT": "libx.so",
        # printf %s /home/me/lib | sha256sum
        "LD_LIBRARY_PATH": "sha256:0cd3b4689f40d8791008ca750cd44f195383a6a6dabb3715f128b39c9147877c",
        "MKL_CBWR": "AVX2",
        "OMP_THREAD_LIMIT": "1",
        "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1",
    }
    assert all(name.startswith(RECORDED) for name in NOT_RECORDED)
    # what a stage sets itself makes no difference
    assert recorded_variables({"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}) == {}
    assert recorded_variables({"CUBLAS_WORKSPACE_CONFIG": ":16:8"}) == {"CUBLAS_WORKSPACE_CONFIG": ":16:8"}


def test_a_library_that_the_linker_loads_first_is_found_by_its_path(tmp_path):
    (tmp_path / "libfast.so").touch()
    found = preloaded({"LD_PRELOAD": f"{tmp_path}/libfast.so:libabsent.so {tmp_path}/gone.so"})
    assert found == [tmp_path / "libfast.so"]


def test_a_prompt_after_a_failure_hides_no_failure():
    """At a terminal, Python with PYTHONINSPECT exits with 0 once the prompt after the failure is closed."""
    ours, theirs = os.openpty()
    code = "import codex_ml.core.variables as v; v.refuse_prompt(); raise SystemExit(1)"
    environment = {**os.environ, "PYTHONINSPECT": "1"}
    os.write(ours, b"\x04")
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, env=environment
    )
    os.close(ours)
    os.close(theirs)
    why = b"error: PYTHONINSPECT is set, so Python would hide that a stage failed; unset it\n"
    assert (done.returncode, done.stderr) == (2, why)
