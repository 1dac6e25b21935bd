"""Check files that `params.yaml` and `dvc.yaml` name, so that a mistake is found before a late stage fails at it.

Each function yields problems, one line each, as `codex-ml check` prints them. It checks a file with the function of the
stage that reads it, if that needs no torch; the stage checks the file again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from glob import escape
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from codex_ml.cli.param_rules import Params
from codex_ml.core.config import BASE_FOLDER
from codex_ml.core.errors import UserError
from codex_ml.core.globs import expand_glob
from codex_ml.core.hashing import hash_path
from codex_ml.core.io import read_json
from codex_ml.core.machine_memory import GPU_DEVICES
from codex_ml.core.packages import install_extra
from codex_ml.core.paths import FORMER_LEDGER, SAMPLE_BENCHMARKS, SPLIT_LEDGER
from codex_ml.core.pipeline import PARAMS, Locked, StageSpec
from codex_ml.inference.evaluate_files import DETAILS

# Architectures that read sliding_window: always, and with use_sliding_window: true only.
WINDOWED, WINDOWED_ON_REQUEST = ("mistral", "phi3", "starcoder2"), ("qwen2", "qwen3", "smollm3")


def missing_sections(stages: dict[str, StageSpec], written: dict[str, Any]) -> Iterator[str]:
    """Sections that params.yaml lacks: DVC requires them when the stage ends, even if all their keys have defaults.

    Args:
        written: params.yaml as it is, without defaults.
    """
    for spec in stages.values():
        for name in spec.params:
            if name in Params.model_fields and name not in written:
                default = "1" if name == "seed" else "{}"
                yield (
                    f"{PARAMS} has no {name}, so DVC would fail after stage {spec.name} has run; add the line "
                    f"`{name}: {default}`, which keeps the defaults"
                )


def missing_inputs(stages: dict[str, StageSpec]) -> Iterator[str]:
    """Deps that do not exist and that no stage writes."""
    outs = [Path(out) for spec in stages.values() for out in spec.outs]
    for spec in stages.values():
        for dep in map(Path, spec.data):
            made = any(dep.is_relative_to(out) or out.is_relative_to(dep) for out in outs)
            if not made and not dep.exists():
                yield f"{dep} is missing, which stage {spec.name} reads; {how_to_get(dep)}"


def how_to_get(path: Path) -> str:
    """How to get back a file of the user: from DVC, if `dvc add` tracks it or a folder that holds it; else from Git."""
    for place in (path, *path.parents):
        pointer = place.parent / f"{place.name}.dvc"
        if place.name and pointer.is_file():
            return f"`dvc pull {pointer}` fetches it"
    return f"put it there, or bring it back with `git checkout {path}` if it was committed"


def former_ledger(params: Params) -> Iterator[str]:
    """A split ledger in the old format, which no stage reads."""
    if params.split.ledger and FORMER_LEDGER.exists():
        yield f"{FORMER_LEDGER} is a ledger in the old format; run `codex-ml ledger convert`"


def base_files(params: Params) -> Iterator[str]:
    """What model.path, tokenizer.path and train.resume_from name, and what it needs."""
    named: list[tuple[str, str, Callable[[Path, Params], Iterator[str]]]] = [
        ("tokenizer.path", params.tokenizer.path, _tokenizer),
        ("model.path", params.model.path, _model),
        ("train.resume_from", params.train.resume_from, _checkpoint),
    ]
    for key, value, problems in named:
        path = Path(value)
        if value and not path.exists():
            there = ", ".join(sorted(f.name for f in BASE_FOLDER.glob("*") if f.name != "README.md")) or "nothing"
            yield f"{PARAMS}: {key} {path} does not exist; {BASE_FOLDER} holds {there}; {how_to_get(path)}"
        elif value:
            yield from _told(f"{PARAMS}: {key}: ", problems, path, params)


def _told(where: str, problems: Callable[[Path, Params], Iterator[str]], path: Path, params: Params) -> Iterator[str]:
    try:
        yield from (f"{where}{problem}" for problem in problems(path, params))
    except UserError as error:
        yield f"{where}{error}"


def _tokenizer(path: Path, params: Params) -> Iterator[str]:
    from codex_ml.tokenizer.foreign_files import check_source

    check_source(path)
    if params.tokenizer.add_pieces and path.suffix != ".gguf":
        from codex_ml.tokenizer.added_pieces import check_expandable

        check_expandable(path)
    yield from _gguf(path)


def _model(path: Path, params: Params) -> Iterator[str]:
    from codex_ml.train.model.foreign import check_folder, checked_config, weight_files

    yield from _gguf(path)
    if not path.is_dir():
        return
    check_folder(path)
    weight_files(path)
    config = checked_config(path)
    audit = params.safety_audit
    positions = [config.get(name) for name in ("max_position_embeddings", "n_positions")]
    longest = min((number for number in positions if isinstance(number, int)), default=None)
    for key, tokens in (
        ("pack.seq_len", params.pack.seq_len),
        ("safety_audit.prefix_tokens + suffix_tokens", audit.prefix_tokens + audit.suffix_tokens),
        ("safety_audit.sample_tokens", audit.sample_tokens),
    ):
        if longest is not None and tokens > longest:
            yield f"{path / 'config.json'} has {longest} positions, but {key} is {tokens}; lower it"
    kind, window = config["model_type"], config.get("sliding_window")
    used = kind in WINDOWED or (kind in WINDOWED_ON_REQUEST and config.get("use_sliding_window"))
    if isinstance(window, int) and used and 0 < window < params.pack.seq_len:
        yield f"{path / 'config.json'} has a sliding_window of {window}, but pack.seq_len is longer; lower it"


def _checkpoint(path: Path, params: Params) -> Iterator[str]:
    state = path / "last" / "state.json"
    if not state.is_file():
        yield f"{path} is not a copy of models/checkpoints: {state} is missing"
        return
    found = read_json(state)
    done = found.get("step") if isinstance(found, dict) else None
    if not isinstance(done, int):
        yield f"{state} has no number of its step; copy models/checkpoints again"
    elif done >= params.train.max_steps:
        yield f"{path} has done {done} steps, but train.max_steps is {params.train.max_steps}; raise it"


def _gguf(path: Path) -> Iterator[str]:
    if not path.is_file() or path.suffix == ".model":
        return
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            yield f"{path} is neither a folder nor a GGUF file"
        elif find_spec("gguf") is None:
            yield f"{path} needs the package gguf; {install_extra('gguf')}"


def baseline(params: Params) -> Iterator[str]:
    """A result that evaluate.compare_to names and that is not one."""
    path = Path(params.evaluate.compare_to)
    if params.evaluate.compare_to and not (path / DETAILS).is_file():
        where = f"{PARAMS}: evaluate.compare_to {path} has no {DETAILS}, so it is not a result"
        yield f"{where}; copy reports/evaluate of the other model there, or set it to ''"


def benchmarks(params: Params) -> Iterator[str]:
    """Entries of split.benchmarks that match no file, and of evaluate.benchmarks, which are plain paths."""
    for number, entry in enumerate(params.split.benchmarks):
        yield from _benchmark(f"{PARAMS}: split.benchmarks.{number}.path {entry.path}", entry.path, entry.path)
    for number, path in enumerate(params.evaluate.benchmarks):
        yield from _benchmark(f"{PARAMS}: evaluate.benchmarks.{number} {path}", path, escape(path))


def _benchmark(key: str, path: str, pattern: str) -> Iterator[str]:
    try:
        files = [file for file in expand_glob(pattern) if file.is_file()]
    except ValueError as error:  # ** inside a name
        yield f"{key}: {error}"
        return
    if Path(path).is_relative_to(SAMPLE_BENCHMARKS):
        yield from _fetched(key, pattern)
    elif not files:
        yield f"{key} matches no file; {how_to_get(Path(path))}"


def _fetched(key: str, pattern: str) -> Iterator[str]:
    """A benchmark that `fetch` brings need not be there yet, but data/sample.lock must pin it."""
    try:
        names = [pin.filename for pin in _benchmark_pins(Path("data/sample.lock"))]
    except UserError:  # `edited_files` and `missing_inputs` report it
        return
    if not any(fnmatchcase((SAMPLE_BENCHMARKS / name).as_posix(), pattern) for name in names):
        yield f"{key} matches none of the files that data/sample.lock pins: {', '.join(sorted(names))}"


def metrics(params: Params) -> Iterator[str]:
    """What is wrong with the names in evaluate.metrics: unknown, or of a package whose metric does not work."""
    if params.evaluate.metrics:
        from codex_ml.evaluate.metrics.registry import load_metrics

        try:
            load_metrics(params.evaluate.metrics)
        except UserError as error:
            yield f"{PARAMS}: {error}"


def quantization(params: Params) -> Iterator[str]:
    """The package that params.yaml needs for weights of 8 or 4 bits."""
    kind = params.model.quantization
    if kind != "none" and find_spec("bitsandbytes") is None:
        yield f"{PARAMS}: model.quantization {kind} needs bitsandbytes; {install_extra('quantization')}"


def home() -> Iterator[str]:
    """DVC needs the user's home folder, and ends with a traceback where there is none; the stages need none."""
    try:
        Path.home()
    except RuntimeError:
        yield (
            f"user {os.getuid()} has no entry in the user database and HOME is not set, so DVC cannot start; set HOME "
            "to a folder that this user may write, such as HOME=/tmp"
        )


def hardware(params: Params) -> Iterator[str]:
    """Hardware that params.yaml asks for and this machine lacks, as far as this can be seen without torch."""
    has_gpu = any(Path(device).exists() for device in GPU_DEVICES)
    device, train = params.runtime.device, params.train
    if device == "cuda" and not has_gpu:
        yield f"{PARAMS}: runtime.device is cuda, but this machine has no GPU; use auto or cpu"
    if device == "cpu" or (device == "auto" and not has_gpu):
        if train.precision == "fp16":
            yield f"{PARAMS}: train.precision fp16 is for GPUs, and this run is on the CPU; use fp32, bf16 or auto"
        if train.compile == "on" and not (shutil.which("g++") or shutil.which("clang++")):
            yield f"{PARAMS}: train.compile on needs a C++ compiler; install g++, or use auto or off"


def edited_files(params: Params, lock: dict[str, Locked]) -> Iterator[str]:
    """Problems of the files that some stages parse, if they changed since these stages last read them."""
    readers: list[tuple[str, str, Callable[[Path], Any]]] = [("safety_audit", "data/policy.yaml", _policy)]
    if params.split.ledger:
        readers.append(("split", str(SPLIT_LEDGER), lambda path: _ledger(path, params.split.salt)))
    if params.fetch.sample:
        readers.append(("fetch", "data/sample.lock", _pins))
    if params.fetch.benchmarks:
        readers.append(("fetch", "data/sample.lock", _benchmark_pins))
    for stage, name, read in readers:
        path = Path(name)
        try:
            if path.exists() and not (stage in lock and lock[stage].deps.get(name) == hash_path(path).md5):
                read(path)
        except UserError as error:
            yield str(error)


def _policy(path: Path) -> Any:
    from codex_ml.safety_audit.audit_numbers import load_audit_policy

    return load_audit_policy(path)


def _ledger(path: Path, salt: str) -> Any:
    if path.is_dir() and not any(file.stat().st_size for file in path.iterdir()):
        return None
    from codex_ml.split.ledger.folder import read_ledger  # with numpy

    return read_ledger(path, salt=salt)


def _pins(path: Path) -> Any:
    from codex_ml.fetch.pins import read_pins

    return read_pins(path)


def _benchmark_pins(path: Path) -> Any:
    from codex_ml.fetch.pins import read_benchmark_pins

    return read_benchmark_pins(path)
