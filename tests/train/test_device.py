"""Every `auto` is resolved, and a setting that the machine cannot meet is refused."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from codex_ml.core.config import Runtime
from codex_ml.core.errors import UserError
from codex_ml.modeling.hardware import (
    COMPILE_FROM_TOKENS,
    Hardware,
    choose_hardware,
    scoring_hardware,
    settle_compiler,
)
from codex_ml.modeling.process import prepare_compiler, remove_private
from codex_ml.train import random_state
from codex_ml.train.config import Train
from codex_ml.train.schedule import learning_rate
from codex_ml.train.scratch import fingerprint


@pytest.fixture
def machine(monkeypatch):
    """`machine(bf16=..., gpu=..., compiler=...)` pretends to be such a machine."""

    def pretend(*, bf16=False, gpu=False, compiler=True):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": bf16})
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: bf16)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A GPU")
        monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}" if compiler else None)

    return pretend


def chosen(train, runtime, **options):
    """The call of `stages/train.py`."""
    return choose_hardware(
        runtime, precision=train.precision, compile=train.compile, max_steps=train.max_steps, **options
    )


@pytest.mark.parametrize(
    ("have", "train", "device", "expected"),
    [
        ({}, {}, "auto", ("cpu", "fp32", False)),
        ({}, {"max_steps": 2000}, "auto", ("cpu", "fp32", True)),
        ({}, {"max_steps": 10, "compile": "on"}, "auto", ("cpu", "fp32", True)),
        ({"bf16": True}, {}, "auto", ("cpu", "bf16", True)),
        ({"bf16": True}, {"max_steps": 199}, "auto", ("cpu", "bf16", False)),
        ({"bf16": True}, {"precision": "fp32"}, "auto", ("cpu", "fp32", False)),
        ({"bf16": True, "compiler": False}, {}, "auto", ("cpu", "bf16", False)),
        ({"bf16": True}, {"compile": "off"}, "auto", ("cpu", "bf16", False)),
        ({"gpu": True, "bf16": True, "compiler": False}, {}, "auto", ("cuda", "bf16", True)),
        ({"gpu": True}, {}, "cpu", ("cpu", "fp32", False)),
        ({"gpu": True}, {}, "cuda", ("cuda", "fp32", True)),
    ],
)
def test_auto_means_what_the_machine_has(machine, have, train, device, expected):
    machine(**have)
    found = chosen(Train(**{"warmup_steps": 1, **train}), Runtime(device=device), threads=3)
    assert (found.device, found.precision, found.compile) == expected
    assert found.threads == 3
    assert found.capability


def test_batches_of_many_shapes_are_not_compiled(machine):
    machine()
    long = Train(max_steps=9000)
    assert chosen(long, Runtime(), threads=1).compile
    assert not chosen(long, Runtime(), threads=1, compiles=False).compile


@pytest.mark.parametrize(
    ("have", "train", "device", "message"),
    [
        ({}, {}, "cuda", "torch finds no GPU"),
        ({}, {"precision": "bf16"}, "auto", "this cpu has no bf16 in hardware"),
        ({"compiler": False}, {"compile": "on"}, "auto", "needs a C\\+\\+ compiler"),
    ],
)
def test_what_the_machine_does_not_have_is_refused(machine, have, train, device, message):
    machine(**have)
    with pytest.raises(UserError, match=message):
        chosen(Train(**train), Runtime(device=device), threads=1)


@pytest.mark.parametrize(
    ("have", "precision", "tokens", "expected"),
    [
        ({"bf16": True}, "fp32", 10**9, ("fp32", False)),
        ({"bf16": True}, "auto", COMPILE_FROM_TOKENS - 1, ("bf16", False)),
        ({"bf16": True}, "bf16", COMPILE_FROM_TOKENS, ("bf16", True)),
        ({"bf16": True}, "auto", COMPILE_FROM_TOKENS, ("bf16", True)),
        ({"bf16": True, "compiler": False}, "auto", COMPILE_FROM_TOKENS, ("bf16", False)),
        ({}, "auto", COMPILE_FROM_TOKENS, ("fp32", False)),
    ],
)
def test_evaluation_compiles_bf16_if_its_tokens_pay_for_it_and_fp32_never(machine, have, precision, tokens, expected):
    machine(**have)
    threads = torch.get_num_threads()
    found = scoring_hardware(Runtime(device="cpu"), threads=threads, precision=precision, tokens=tokens, seq_len=16)
    assert (found.precision, found.compile) == expected
    assert torch.are_deterministic_algorithms_enabled()


def test_evaluation_in_bf16_needs_bf16(machine):
    machine()
    with pytest.raises(UserError, match=r"^evaluate\.precision: this cpu has no bf16 in hardware; use fp32 or auto$"):
        scoring_hardware(Runtime(device="cpu"), threads=1, precision="bf16", tokens=1, seq_len=16)


def test_each_process_takes_its_own_gpu_before_anything_is_put_there(machine, monkeypatch):
    machine(gpu=True)
    taken: list[int] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setenv("LOCAL_RANK", "1")
    chosen(Train(), Runtime(), threads=1)
    assert taken == []  # what a shell has places nothing
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    chosen(Train(), Runtime(), threads=1)
    chosen(Train(), Runtime(device="cpu"), threads=1)
    assert taken == [1]
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(UserError, match="process 2 of this machine has no GPU: torch finds 2"):
        chosen(Train(), Runtime(), threads=1)


def test_learning_rate_warms_up_and_ends_where_it_should():
    train = Train(lr=1.0, min_lr_ratio=0.1, warmup_steps=4, max_steps=104)
    assert [learning_rate(step, train.lr, train) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert learning_rate(4, 1.0, train) == pytest.approx(1.0)
    assert learning_rate(54, 1.0, train) == pytest.approx(0.55)  # half way: (1 + 0.1) / 2
    assert learning_rate(104, 1.0, train) == pytest.approx(0.1)
    assert learning_rate(0, 1.0, Train(lr=1.0, warmup_steps=0, max_steps=1)) == 1.0


def test_every_generator_goes_on_where_it_was():
    random.seed(1), np.random.seed(2), torch.manual_seed(3)  # noqa: NPY002
    random.random(), np.random.rand(), torch.rand(1)  # noqa: NPY002
    state = random_state.capture()
    first = (random.random(), np.random.rand(), torch.rand(2).tolist())  # noqa: NPY002
    random_state.restore(state)
    assert (random.random(), np.random.rand(), torch.rand(2).tolist()) == first  # noqa: NPY002


HARDWARE = Hardware("cpu", "fp32", False, 2, "AVX2")


def test_fingerprint_names_the_recipe():
    record = {"params": {"lr": 1.0}, "deps": {"a": {"md5": "1"}}}
    same = fingerprint({"deps": {"a": {"md5": "1"}}, "params": {"lr": 1.0}}, HARDWARE)
    assert fingerprint(record, HARDWARE) == same
    others = [
        fingerprint({**record, "params": {"lr": 2.0}}, HARDWARE),
        fingerprint({**record, "deps": {"a": {"md5": "2"}}}, HARDWARE),
        fingerprint(record, Hardware("cpu", "fp32", False, 1, "AVX2")),
        fingerprint(record, Hardware("cpu", "bf16", False, 2, "AVX2")),
    ]
    assert len({same, *others}) == 5


def test_comment_in_the_code_leaves_the_fingerprint():
    """An interrupted training continues after such an edit."""

    def named(md5: str, syntax: str) -> str:
        files = {"step.py": md5, "table.yaml": "3"}
        code = {"md5": f"{md5}.dir", "sha256": md5, "files": files, "syntax": {"step.py": syntax}}
        script = {"md5": md5, "sha256": md5, "syntax": {"train.py": syntax}}
        return fingerprint({"params": {}, "deps": {"src/train": code, "stages/train.py": script}}, HARDWARE)

    assert named("1", "a") == named("2", "a") != named("1", "b")


def test_compiler_gets_a_plain_path_to_torch(monkeypatch, tmp_path):
    packages = tmp_path / "my venv's ünï" / "site-packages"
    (packages / "torch").mkdir(parents=True)
    (packages / "torch/__init__.py").touch()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/theirs")
    monkeypatch.setattr(
        "codex_ml.modeling.process.find_spec",
        lambda name: type("S", (), {"origin": str(packages / "torch/__init__.py")}),
    )
    private = prepare_compiler()
    (site,) = map(Path, sys.path)
    assert site.resolve() == packages
    assert " " not in str(site)
    assert private.stat().st_mode & 0o077 == 0
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == f"{private}/inductor"
    monkeypatch.setattr(
        "codex_ml.modeling.process.find_spec", lambda name: type("S", (), {"origin": "/usr/lib/p/torch/__init__.py"})
    )
    prepare_compiler()
    assert sys.path == [str(site)]
    remove_private()
    assert [path.name for path in tmp_path.iterdir()] == ["my venv's ünï"]


def test_process_is_replaced_once_and_keeps_its_arguments_and_options(tmp_path):
    """What a shell has in CODEX_ML_PRIVATE and CODEX_ML_PREPARED, the names of an older version, steers nothing."""
    script, theirs = tmp_path / "script.py", tmp_path / "theirs"
    script.write_text(
        "import os, sys; sys.path.insert(0, sys.argv[1])\n"
        "from codex_ml.modeling.process import prepare_process\n"
        "print('life', flush=True); prepare_process(compiles=True)\n"
        "print(sys.argv[2:], os.environ.get('MALLOC_TOP_PAD_'), sys.flags.safe_path, sys._xoptions)\n"
        "print(os.path.isdir(os.path.dirname(os.environ['TORCHINDUCTOR_CACHE_DIR'])))\n"
    )
    theirs.mkdir()
    command = [sys.executable, "-P", "-X", "own=1", str(script), str(Path(__file__).parents[2] / "src"), "a b", "--c"]
    shell = {"TMPDIR": str(tmp_path), "PATH": "", "CODEX_ML_PRIVATE": str(theirs), "CODEX_ML_PREPARED": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=shell)
    pad = "268435456" if sys.platform == "linux" else None
    assert done.stdout.splitlines() == ["life", "life", f"['a b', '--c'] {pad} True {{'own': '1'}}", "True"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["script.py", "theirs"]  # ours went with the process


@pytest.mark.parametrize(
    ("device", "compiled", "seq_len", "vectors"),
    [("cpu", True, 256, True), ("cpu", True, 8, False), ("cpu", False, 8, True), ("cuda", True, 8, True)],
)
def test_only_compiled_rows_that_do_not_fill_vectors_of_a_cpu_get_other_kernels(device, compiled, seq_len, vectors):
    from torch._inductor import config

    with config.patch({"cpp.enable_loop_tail_vec": True}):
        settle_compiler(Hardware(device, "fp32", compiled, threads=1, capability="test"), seq_len=seq_len)
        assert config.cpp.enable_loop_tail_vec is vectors
