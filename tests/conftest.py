"""What the tests share: the repository, a throw-away copy of it, and a Python that runs this checkout's library."""

from __future__ import annotations

import compileall
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import settings

REPOSITORY = Path(__file__).resolve().parents[1]
PROJECT = REPOSITORY / "tests/project"  # what belongs to a user, as an invented one has it

os.environ["CODEX_TEST_CHECKOUT"] = str(REPOSITORY)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two threads wait for each other at the sizes of tests
sys.path.insert(0, str(REPOSITORY / "tests/guard"))
sys.modules.pop("sitecustomize", None)  # the one of the system
import sitecustomize  # noqa: E402

# A shell ignores Ctrl-C for what it runs in the background, and every process that a test starts would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("codex-ml", deadline=None)  # how long an example takes says more of the machine than of us
settings.load_profile("codex-ml")


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def project() -> Path:
    """A folder with the files of an invented user: params.yaml, the policy, an empty ledger, presets."""
    return PROJECT


# Files whose tests together take five seconds of a core or more: `make test` runs them, the gate on push does not.
COSTLY = (
    "test_limits.py", "test_dvc_state.py", "test_signals.py", "test_disk_errors.py", "test_preflight.py", "test_tree.py",
    "test_packages.py", "test_shares.py", "test_resume.py", "test_chat_shapes.py", "test_ranks.py",
    "test_splits_end_to_end.py", "test_names_of_nothing.py", "test_merge.py", "test_lost_lines.py", "test_load.py",
    "test_near_exact.py", "test_prefix_join.py", "test_any_size.py", "test_split_writer.py", "test_ledger_commands.py",
    "test_merge_histories.py", "test_many_files.py", "test_batches.py", "test_recipe.py", "test_hostile.py",
    "test_evaluate.py", "test_audit.py", "test_generate.py", "test_unlocked_plugins.py",
    "test_fuzz.py",
)  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    """Compile the library once, as an installation does: hundreds of processes import it, and some may not write."""
    if not hasattr(config, "workerinput"):
        compileall.compile_dir(REPOSITORY / "src", quiet=2)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.name in COSTLY:
            item.add_marker("costly")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    if item.get_closest_marker("shipped"):
        sitecustomize.allowed.append(item.nodeid)
    try:
        return (yield)
    finally:
        sitecustomize.allowed.clear()


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder is a copy of the repository for the user of `project`, with an empty sample; `src` is a link."""
    folder = tmp_path / "workspace"
    (folder / "data/raw/sample").mkdir(parents=True)
    shutil.copytree(PROJECT, folder, dirs_exist_ok=True)
    for name in ("dvc.yaml", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, folder / name)
    shutil.copytree(REPOSITORY / "stages", folder / "stages", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "src").symlink_to(REPOSITORY / "src")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def run_python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run Python on this checkout's library: `run_python("-c", code, cwd=..., env={...})`."""

    def run(*arguments: str, env: dict[str, str] | None = None, **options: object) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(REPOSITORY / "src"), str(REPOSITORY / "tests/guard")]),
            "PYTHONDONTWRITEBYTECODE": "1",
            **(env or {}),
        }
        options.setdefault("capture_output", True)
        return subprocess.run(
            [sys.executable, *arguments], env=environment, encoding="utf-8", check=False, timeout=60, **options
        )

    return run


@pytest.fixture(scope="session")
def tree() -> Callable[[Path], dict[str, str]]:
    """Name -> SHA-256 of every file under a folder, links and folders by what they are."""

    def digest(path: Path) -> str:
        if path.is_symlink():
            return f"link to {path.readlink()}"
        return "folder" if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()

    return lambda folder: {p.relative_to(folder).as_posix(): digest(p) for p in sorted(folder.rglob("*"))}


@pytest.fixture(scope="module")
def torch_on_one_thread() -> Iterator[None]:
    """Two threads wait for each other at the sizes of tests."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Chain:
    """A pipeline of three stages whose results, dvc.lock and records agree, made without running anything."""

    STAGES: ClassVar = {
        "fetch": (["data/sample.lock", "stages/fetch.py"], ["fetch"], ["data/raw/sample"]),
        "split": (["data/raw", "stages/split.py", "src/codex_ml/core/io.py"], ["seed", "split"], ["data/splits"]),
        "train": (["data/splits/train.bin", "stages/train.py"], ["seed", "train"], ["models/model"]),
    }
    FILES: ClassVar = {
        "data/raw/sample/a-1.0-py3-none-any.whl": b"wheel a",
        "data/raw/sample/b_c-2.0-py3-none-any.whl": b"wheel b",
        "data/raw/mine/own.txt": b"own text",
        "stages/fetch.py": b"# fetch\n",
        "stages/split.py": b"# split\n",
        "stages/train.py": b"# train\n",
        "src/codex_ml/core/io.py": b"# io\n",
        "data/splits/train.bin": b"train tokens",
        "data/splits/sub/test.bin": b"test tokens",
        "models/model/weights": b"weights " * 100,
        "models/model/config.json": b"{}",
        "pyproject.toml": b'[project]\ndependencies = ["dvc>=3"]\n[project.optional-dependencies]\n'
        b"fast = []\ngguf = []\nquantization = []\n",
        "params.yaml": b"seed: 7\nsplit:\n  val: 0.1\ntrain:\n  lr: 3e-4\n",
    }

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name, data in self.FILES.items():
            self.write(name, data)
        pins = [("a", "1.0", b"wheel a"), ("b-c", "2.0", b"wheel b")]
        lines = [f"{name}=={version} --hash=sha256:{hashlib.sha256(data).hexdigest()}" for name, version, data in pins]
        self.write("data/sample.lock", "\n".join(lines).encode())
        stages = {}
        for name, (deps, params, outs) in self.STAGES.items():
            outs = [*outs, f"reports/{name}/lineage.json"]
            stages[name] = {
                "cmd": f"python -P stages/{name}.py",
                "desc": f"The {name}",
                "deps": deps,
                "params": params,
                "outs": outs,
            }
        self.write("dvc.yaml", json.dumps({"stages": stages}).encode())  # JSON is YAML
        self.lock()

    def write(self, name: str, data: bytes) -> None:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)

    def lock(self, *, record: bool = True) -> None:
        """Write what `dvc repro` leaves behind: the record of each start and dvc.lock."""
        from codex_ml.cli.param_rules import load_params
        from codex_ml.core.hashing import hash_path
        from codex_ml.core.io import write_json
        from codex_ml.core.pipeline import load_pipeline
        from codex_ml.core.record import record_path, start_record
        from codex_ml.core.yaml import read_yaml

        locked = {}
        for name, spec in load_pipeline().items():
            if record:
                started = start_record(spec, load_params())
                started["environment"].pop("start_code", None)  # of the tests
                write_json(record_path(name), started)
            raw = read_yaml(Path("params.yaml"))
            hashed = {
                kind: [{"path": p, "md5": hash_path(Path(p)).md5} for p in getattr(spec, kind)]
                for kind in ("deps", "outs")
            }
            values = {key: raw[key] for key in spec.params if key in raw}
            locked[name] = {"cmd": spec.cmd, **hashed, "params": {"params.yaml": values}}
        self.write("dvc.lock", json.dumps({"schema": "2.0", "stages": locked}).encode())

    def edit_lock(self, change: Callable[[dict], None]) -> None:
        document = json.loads((self.folder / "dvc.lock").read_bytes())
        change(document["stages"])
        self.write("dvc.lock", json.dumps(document).encode())


@pytest.fixture
def chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Chain:
    """The current folder holds a small pipeline that has run."""
    folder = tmp_path / "chain"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return Chain(folder)


class WrittenResult:
    """A result folder as `evaluate` leaves it, with one task `documents`; change the attributes, then `write`.

    Attributes:
        numbers: column -> one number per item, at least nll, bytes, tokens and top1.
        texts: column -> one text per item.
        metrics: names of the metrics in details.json; their values are computed from `numbers`.
        listed: replaces keys of details.json's task, such as settings.
    """

    def __init__(self, nll: list[float], **numbers: list[float]) -> None:
        count = len(nll)
        self.numbers = {
            "nll": nll,
            "bytes": [100.0] * count,
            "tokens": [10.0] * count,
            "top1": [5.0] * count,
            **numbers,
        }
        names = [f"doc{number}" for number in range(count)]
        self.texts = {
            "item": list(names),
            "unit": [f"unit of {name}" for name in names],
            "source": ["flask==3.1.2"] * count,
            "path": [f"{name}.py" for name in names],
            "content": [f"content of {name}" for name in names],
        }
        self.metrics: list[str] = ["bits_per_byte", "perplexity", "token_accuracy"]
        self.task, self.listed, self.signatures = "documents", {}, {}

    def details(self) -> dict:
        import numpy as np

        from codex_ml.evaluate.metrics.registry import load_metrics

        values = {}
        for name in self.metrics:
            metric = load_metrics((name,)).chosen[0]
            sums = np.array([np.sum(self.numbers[column]) for column in metric.columns], dtype=np.float64)
            value = {
                "value": float(metric.aggregate(sums)),
                "units": len(set(self.texts["unit"])),
                "why": "not computed",
            }
            about = {"signature": metric.signature, "higher_is_better": metric.higher_is_better}
            values[name] = {**value, **about, **self.signatures.get(name, {})}
        task = {
            "task": self.task,
            "items": len(self.texts["item"]),
            "units": len(set(self.texts["unit"])),
            "settings": {"length": 256},
            "metrics": values,
            **self.listed,
        }
        model = hashlib.sha256(repr(self.numbers["nll"]).encode()).hexdigest()
        about = {"model": model, "data": "b" * 64, "seed": 1, "bootstrap": 1000, "confidence": 0.95}
        return {**about, "tasks": {self.task: task}}

    def write(self, folder: Path) -> Path:
        import pandas as pd

        (folder / "results").mkdir(parents=True)
        frame = pd.DataFrame({**self.texts, **{name: map(float, column) for name, column in self.numbers.items()}})
        table = folder / "results" / self.task.split("/")[0]
        frame.to_parquet(table.with_suffix(".parquet"))
        frame.to_json(table.with_suffix(".ndjson"), orient="records", lines=True)
        (folder / "details.json").write_text(json.dumps(self.details()), encoding="utf-8")
        return folder


@pytest.fixture
def written_result() -> type[WrittenResult]:
    return WrittenResult
