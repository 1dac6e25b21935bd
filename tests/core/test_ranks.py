"""The variables of a launcher: only train accepts them, and only if they are complete."""

from __future__ import annotations

import os

import pytest

from codex_ml.core.errors import UserError
from codex_ml.core.ranks import RANKS, SIZES, TORCHRUN, local_rank, rank, settle_launcher, world_size

STAGES = ("fetch", "ingest", "split", "tokenizer", "pack", "evaluate", "safety_audit", "report")
TORCHRUN_SETS = {
    "RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29500", "TORCHELASTIC_RUN_ID": "none",
}  # fmt: skip


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for key in (*RANKS, *SIZES, "MASTER_ADDR", "MASTER_PORT", TORCHRUN, "DVC_STAGE"):
        monkeypatch.setenv(key, "0")  # so that what a test drops comes back
        monkeypatch.delenv(key)
    return lambda variables: [monkeypatch.setenv(key, value) for key, value in variables.items()]


SEVERAL = [
    TORCHRUN_SETS,
    {**TORCHRUN_SETS, "RANK": "0", "LOCAL_RANK": "0"},
    {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"},
    {"PMI_SIZE": "2", "PMI_RANK": "1"},
]
SHELL = [
    {key: value for key, value in TORCHRUN_SETS.items() if key != TORCHRUN},
    {"RANK": "1"},
    {"WORLD_SIZE": "2"},
    {"LOCAL_RANK": "3"},
    {"RANK": "one"},
    {"PMI_RANK": "1"},
    {"OMPI_COMM_WORLD_SIZE": "2", "DVC_STAGE": "pack"},
]


@pytest.mark.parametrize("variables", SEVERAL, ids=str)
def test_a_stage_that_is_not_parallel_is_refused_among_several(environment, variables):
    environment(variables)
    with pytest.raises(UserError, match=r"^pack runs in one process, but a launcher started several \(.*=") as told:
        settle_launcher("pack", parallel=False)
    assert "`dvc repro pack`" in str(told.value)


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize(
    "variables",
    [{}, {"RANK": "0"}, {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}, {"RANK": ""}, {"PMI_SIZE": "1"}],
)
def test_one_process_is_not_a_launch(environment, variables, parallel):
    """A pod or a job of one: torch must not look for others, and runtime.processes counts."""
    environment(variables)
    settle_launcher("train", parallel=parallel)
    assert not {key for key in (*RANKS, *SIZES) if os.environ.get(key)}
    assert rank() == 0


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("variables", SHELL, ids=str)
def test_what_a_shell_has_steers_nothing(environment, variables, parallel):
    """Without a launcher these variables are not read, and torch must not read them either."""
    environment(variables)
    assert (rank(), world_size(), local_rank()) == (0, 1, None)
    settle_launcher("pack", parallel=parallel)
    assert not {key for key in (*RANKS, *SIZES) if key in os.environ}


@pytest.mark.parametrize(("number", "size"), [("0", "2"), ("1", "2"), ("9", "16")])
def test_train_takes_its_place(environment, number, size):
    environment({**TORCHRUN_SETS, "RANK": number, "WORLD_SIZE": size})
    settle_launcher("train", parallel=True)
    assert rank() == int(number)


@pytest.mark.parametrize(
    ("variables", "lacks"),
    [
        *(({key: value for key, value in TORCHRUN_SETS.items() if key != name}, f"{name} not set") for name in
          ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")),
        ({"RANK": "1", TORCHRUN: "none"}, "LOCAL_RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT not set"),
        ({"PMI_SIZE": "4"}, "RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT not set"),
        ({**TORCHRUN_SETS, "RANK": "2"}, "RANK must be below 2"),
        ({**TORCHRUN_SETS, "WORLD_SIZE": "0"}, "RANK must be below 0"),
    ],
)  # fmt: skip
def test_train_refuses_half_a_place(environment, variables, lacks):
    environment(variables)
    with pytest.raises(UserError) as told:
        settle_launcher("train", parallel=True)
    assert lacks in str(told.value)
    assert "Start it with torchrun" in str(told.value)


@pytest.mark.parametrize("value", ["-1", "one", "1.0", "²", " 1"])
@pytest.mark.parametrize("key", ["RANK", "WORLD_SIZE", "LOCAL_RANK"])
def test_a_place_that_is_not_a_number_is_named(environment, key, value):
    environment({key: value, TORCHRUN: "none"})
    with pytest.raises(UserError, match=f"environment variable {key} must be a number"):
        settle_launcher("train", parallel=True)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("variables", SEVERAL[:1], ids=["torchrun"])
def test_each_stage_is_refused_before_it_reads_or_writes(workspace, run_python, stage, variables):
    before = {path for path in workspace.rglob("*") if "src" not in path.parts}
    log = workspace / "logs/errors.ndjson"  # every error is listed there
    done = run_python(f"stages/{stage}.py", cwd=workspace, env=variables)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {stage} runs in one process")
    assert done.stderr.count("\n") == 1
    after = {path for path in workspace.rglob("*") if "src" not in path.parts}
    assert after - {log, log.parent} == before
