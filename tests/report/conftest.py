"""All inputs of the report in a temporary folder, with the same text everywhere that data can contain text."""

from __future__ import annotations

import csv
import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codex_ml.report import audit_plots, evaluation_plots, plots
from codex_ml.report.facts import STAGES, Facts, load_facts

HOSTILE = {
    "script": "</script></style></title></pre><script>document.title='owned'</script>",
    "image": "<!-- <script> --> ]]> <img src=x onerror=\"document.title='owned'\"><svg onload=alert(1)>",
    "attribute": '" onmouseover="alert(1)" x=\'\' onfocus=alert(2) autofocus ',
    "template": "{{ 7*7 }} {% raw %} ${7*7} <%= 7*7 %> {# x #}",
    "front matter": "mit\n---\nlicense: evil\n---\n# heading injected",
    "table": "| a | b |\n|---|---|\nrow | with \\| pipes",
    "markdown link": "[link](javascript:alert(1)) ![i](x) <https://evil.example> http://evil.example www.evil.example",
    "markdown block": "\n\n# heading\n- list\n> quote\n```\nfence\n    code\n<b>html</b>\n",
    "bidi": "\u202egnp.exe\u202c and \u2066x\u2069 \u061c\u200f",
    "control": "\x1b[31mred\x1b[0m \x1b]52;c;aGk=\x07 nul \x00 cr \r bs \x08 \x85 \u2028",
    "entities": "&lt;b&gt; already escaped &amp; kept &#x3c;script&#x3e;",
    "maths": "$\\frac{1}{0}$ `` ` ``` ~~~ *bold* __u__ ~~s~~",
    "url": "javascript:alert(1)//https://evil.example/x.js",
    "long": "x" * 5000,
}
BITS = ("bits_per_byte", "low", "high", "zlib_bits_per_byte", "ngram_bits_per_byte", "documents")
PICTURES = {"loss_curve", "schedule", "by_source", "by_length", "by_size", "calibration", "pass_rates", "differences"}
PICTURES |= {"curves", "roc", "bars"}
PROGRAM = {"benchmark": "own", "task": "own/0", "verdict": "wrong", "parsed": True, "finished": "stop"}
PROGRAM |= {"cut_prompt": False, "program": "x = 1\n", "begin": 1}
ONE_RATE = {"name": "adamw", "lr": 0.003, "embedding_lr": None}
RAW = "what the model wrote, which is not redacted"
FORMAT = (0x7F, 0x85, 0x61C, 0x200F, 0x2028, 0x202C, 0x202E, 0x2066, 0x2069)
CONTROLS = [chr(code) for code in (*range(9), *range(11, 32), *FORMAT)]


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`inputs(text)` writes everything under a folder and returns it."""

    def make(
        text: str = "plain",
        *,
        verdict: str = "pass",
        findings: int = 2,
        points: int = 30,
        policy_state: str = "enforce",
        lossy: bool = False,
        two_rates: bool = True,
        tasks: bool = True,
        compared: bool = True,
    ) -> Path:
        root = tmp_path_factory.mktemp("run")

        def write(path: str, value: Any) -> None:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")

        def rows(values: list[dict[str, Any]]) -> str:
            return "".join(json.dumps(value) + "\n" for value in values)

        for stage in STAGES:
            write(f"reports/{stage}/lineage.json", record(stage, text))
        ingested = {"documents": 100, "megabytes": 1.5, "refused": 3}
        write("reports/ingest/details.json", {**ingested, "refused_by_reason": {text: 3}})
        parts = {name: {"documents": 30, "megabytes": 0.5} for name in ("train", "val", "test")}
        leakage = {"evicted": 4, "quarantined": 2, "near_cross": 0, "random_split_leak": 0.25}
        write(
            "reports/split/metrics.json",
            {**parts, "leakage": leakage, "dropped": 7, "policy": policy_state, "redacted": 2},
        )
        measures = {"bytes_per_token": 3.5, "lossless": 1.0, "tokens_per_word": 2.5, "unk_share": 0.0}
        lost = {**dict.fromkeys(parts, 0), "characters": 0.0}
        more = {"vocab_size": 4096, "unused_share": 0.125, "lost": lost, "languages": {text: measures}}
        write("reports/tokenizer/details.json", {**measures, **more})
        stream = {"documents": 30, "tokens": 9000, "targets": 8999, "rows": 600, "cut_documents": 0, "fill": 0.9375}
        stream["records"] = {"too_long": 0}
        write("reports/pack/details.json", dict.fromkeys(parts, stream))
        write("reports/train/metrics.json", {"step": points, "best_step": points, "best_val_loss": 2.5})
        for name in ("train/loss", "val/loss", "train/lr", "train/grad_norm", *["train/embedding_lr"] * two_rates):
            lines = [f"step\t{name.split('/')[1]}", *(f"{i}\t{2.5 + 1 / i}" for i in range(1, points + 1))]
            write(f"reports/train/plots/metrics/{name}.tsv", "\n".join(lines) + "\n")
        write("reports/evaluate/details.json", evaluation(text, lossy=lossy, tasks=tasks))
        for folder in ("plots", "results"):
            (root / "reports/evaluate" / folder).mkdir()
        sizes = {"bytes": [100.0 * i for i in range(1, 21)], "nll": [150.0 * i for i in range(1, 21)]}
        columns = {"item": [text] * 20, **sizes, "zlib_bits": [300.0 * i for i in range(1, 21)]}
        pq.write_table(pa.table(columns), root / "reports/evaluate/results/documents.parquet")

        def by(name: str, rows: list[tuple[Any, ...]]) -> None:
            with (root / f"reports/evaluate/plots/by_{name}.csv").open("w", encoding="utf-8", newline="") as file:
                lines = csv.writer(file)
                lines.writerow((name, *BITS))
                lines.writerows((part, *([""] * 3 if lossy else own), *rest) for part, own, *rest in rows)

        by(
            "source",
            [
                (text, (2.0, 1.8, 2.2), 2.5, 2.25, 3),
                ("other", (2.2, "", ""), 2.1, "", 1),
                ("third", (1.9, "", ""), 2.4, 2.75, 2),
            ],
        )
        ranges = ("0 to 255", "256 to 1023", "1024 to 4095")
        by("length", [(name, (2.0, 1.75, 2.25), 2.5, "", 5) for name in ranges])
        bins = "".join(f"0.{n}5,0.{n}25,{n}000\n" for n in range(1, 10))
        write("reports/evaluate/plots/calibration.csv", f"confidence,accuracy,tokens\n{bins}")
        if tasks:
            outputs = {name: [text] * 5 for name in ("source", "path", "split_at", "finished", "output")}
            written = pa.table({"item": list("abcde"), **outputs, "edit_similarity": [0.1, 0.2, 0.3, 0.4, 0.5]})
            pq.write_table(written, root / "reports/evaluate/results/completions.parquet")
            programs = [{**PROGRAM, "sample": n, **dict.fromkeys(("detail", "completion"), text)} for n in range(6)]
            write("reports/evaluate/results/code_samples.ndjson", rows(programs))
        if compared:
            write("reports/evaluate/results/comparison.json", comparison(text))
        write("reports/safety_audit/audit.json", audit(text, verdict))
        for name, content in audit_plot_files(text).items():
            write(f"reports/safety_audit/plots/{name}.csv", content)
        texts = dict.fromkeys(("id", "number", "kind", "severity", "source", "path", "licence", "evidence"), text)
        found = [{**texts, "line": 3, "column": 1, "trace": text, "accepted": text} for _ in range(findings)]
        write("reports/safety_audit/findings.ndjson", rows(found))
        write(
            "reports/safety_audit/samples.ndjson",
            rows([{"sample": n, "prompt": text * n, "text": t, "raw": RAW} for n, t in enumerate((text, "\n" + text))]),
        )
        steps = {"global_step": points, "rows_a_step": 8, "seq_len": 16, "seed": 1, "micro_batch_size": 8}
        steps |= {"stopped_early": False, "skipped_steps": 0, "processes": [1], "continued": []}
        write("models/model/training.json", {**steps, **trained(two_rates=two_rates)})
        (root / "models/model/model.safetensors").write_bytes(weights({"a": [3, 4], "b": [5]}))
        contents = {"documents": 30, "bytes": 500_000, "groups": 0, "sources": {text: 30}}
        contents |= {"licences": {"MIT": 2, text: 1}, "languages": {text: 29, "python": 1}}
        contents |= {"file": "train.parquet", "sha256": "3" * 64, "file_bytes": 1000}
        policy = {
            "state": policy_state,
            "findings": {f"{text}: redact": 3, "e-mail: allow": 1},
            "documents_redacted": 2,
        }
        benchmarks = {"files": [text], "items_found": 1, "documents": 2, "too_short_to_check": [text]}
        manifest = {"splits": dict.fromkeys(parts, contents), "policy": policy, "benchmarks": benchmarks}
        manifest |= {"dropped": {text: 7}, "schema": "codex-ml/manifest/1", "documents": 97, "bytes": 1_500_000}
        named = {**dict.fromkeys(("source", "path", "id"), text), "contradiction": "content"}
        first = [{**named, "answers": ["test", "train"], "result": "test"}]
        manifest["ledger"] = {"lines": 3, "contradictions": 1, "first": first}
        write("reports/split/manifest.json", manifest)
        hit = {"source": text, "path": text, "id": text, "rule": text, "action": "redact", "line": 3, "column": 1}
        write("data/splits/findings.ndjson", rows([{**hit, "placeholder": text, "severity": "high"}] * 2))
        return root

    return make


@pytest.fixture(scope="session")
def facts(inputs: Callable[..., Path]) -> Callable[..., Facts]:
    """`facts(text)` are the facts of a report in which the title and every text of the inputs is `text`."""

    def make(text: str = "plain", **changes: Any) -> Facts:
        root = inputs(text, **changes)
        return load_facts(lambda path: root / path, title=text)

    return make


@pytest.fixture(scope="session")
def drawn() -> Iterator[dict[tuple[str, str], str]]:
    """Cache pictures by their function and data, because drawing takes most of the time of a page."""
    known: dict[tuple[str, str], str] = {}

    def once(draw: Callable[..., str]) -> Callable[..., str]:
        def picture(*values: Any, **named: Any) -> str:
            key = (draw.__name__, repr((values, named)))
            if key not in known:
                known[key] = draw(*values, **named)
            return known[key]

        return picture

    with pytest.MonkeyPatch.context() as patch:
        for module in (plots, evaluation_plots, audit_plots):
            for name in PICTURES & vars(module).keys():
                patch.setattr(module, name, once(getattr(module, name)))
        yield known


@pytest.fixture(params=list(HOSTILE))
def hostile(request: pytest.FixtureRequest) -> str:
    return HOSTILE[request.param]


@pytest.fixture
def controls() -> list[str]:
    """Characters that must never reach a reader unescaped; LF and TAB are allowed."""
    return CONTROLS


def trained(*, two_rates: bool = True) -> dict[str, Any]:
    sizes = {"layers": 2, "hidden_size": 8, "heads": 2, "positions": 16}
    origin = {"base": None, "lora": None, "quantization": "none"}
    return {
        "model": {"architecture": "llama", "encoder_decoder": False, **sizes, **origin},
        "tokenizer": "byte-level BPE",
        "optimizer": {"name": "muon", "lr": 0.0073, "embedding_lr": 0.0588} if two_rates else ONE_RATE,
        "hardware": {"device": "cpu", "precision": "bf16", "compile": True, "threads": 0},
    }


def around(value: float, *, higher: bool = False, signature: str = "s", units: int = 20) -> dict[str, Any]:
    limits = {"low": value - 0.1, "high": value + 0.1}
    return {"value": value, **limits, "units": units, "signature": signature, "higher_is_better": higher}


def evaluation(text: str, *, lossy: bool = False, tasks: bool = False) -> dict[str, Any]:
    metrics = {
        "bits_per_byte": around(2.125, signature=text),
        "perplexity": around(31.5),
        "token_accuracy": around(0.3125, higher=True),
        "zlib_bits_per_byte": around(2.5),
        "bits_per_byte_minus_zlib": around(-0.375),
        "calibration_error": around(0.25),
    }
    counts = {"bytes": 21000, "tokens": 6000, "chats": 0}
    settings = {"length": 16, "stride": 16, "precision": "fp32", "baseline": text}
    task: dict[str, Any] = {"task": "documents", "items": 20, "units": 20, "settings": settings, "counts": counts}
    if lossy:
        reason = "no bits per byte: the tokenizer does not give 7 of 20 back"
        task["lossy"] = {"documents": 7, "reason": reason}
        for name in ("bits_per_byte", "bits_per_byte_minus_zlib"):
            absent = {"value": None, "why": reason, "units": 20, "signature": "s", "higher_is_better": False}
            metrics[name] = absent
    head = {"model": "5" * 64, "data": "6" * 64, "seed": 1, "bootstrap": 1000, "confidence": 0.9}
    found = {"documents": {**task, "metrics": metrics}}
    return {**head, "tasks": {**found, **(other_tasks(text) if tasks else {})}}


def other_tasks(text: str) -> dict[str, Any]:
    absent = {"value": None, "why": text, "units": 5, "signature": text, "higher_is_better": True}
    chosen = {"max_tokens": 16, "temperature": 0.0, "stop": [text], "top_k": 0}
    outputs = {"edit_similarity": around(0.375, higher=True, units=5), "complexity": absent}
    outputs |= {"exact_match": around(0.125, higher=True, units=5)}
    completions = {"task": "completions", "items": 5, "units": 5, "settings": chosen, "metrics": outputs}
    completions |= {"notes": [text], "counts": {"tokens": 80, "cut_prompts": 2}}
    rates = {f"pass_at_{k}": around(0.2 + k / 100, higher=True, units=6) for k in (1, 2, 10)}
    rates |= {"solution_bits_per_byte": around(1.625, units=6)}
    run = {"samples": 10, "temperature": 0.8, "sandbox": "namespaces"}
    verdicts = {"passed": 12, "wrong": 30, "crashed": 15, "time": 2, "memory": 1, "output": 0}
    code = {"task": "code/own", "items": 6, "units": 6, "settings": run, "metrics": rates}
    code |= {"counts": {"programs": 60, "in_child": 2, "cut_prompts": 3, **verdicts}, "notes": [text]}
    return {"completions": completions, "code/own": code}


def comparison(text: str) -> dict[str, Any]:
    side = {"name": text, "kind": "folder"}
    same = {"task": "documents", "units": 20, "test": "randomisation"}
    metrics = [
        {**same, "metric": "bits_per_byte", "higher_is_better": False, "verdict": "better", "a": 2.5, "b": 2.125,
         "difference": -0.375, "low": -0.5, "high": -0.25, "p": 0.001, "p_holm": 0.003},
        {**same, "metric": "token_accuracy", "higher_is_better": True, "verdict": "worse", "a": 0.5, "b": 0.3125,
         "difference": -0.1875, "low": -0.25, "high": -0.125, "p": 0.001, "p_holm": 0.003},
        {**same, "metric": "exact_match", "higher_is_better": True, "verdict": "no evidence", "a": 0.0, "b": 0.125,
         "difference": 0.125, "p": 0.25, "p_holm": 0.5, "why": text},
        {**same, "metric": "perplexity", "higher_is_better": False, "verdict": "not compared", "why": text},
    ]  # fmt: skip
    task = {"task": "documents", "items": 20, "units": 20}
    found = {"a": side, "b": side, "tasks": [task], "metrics": metrics, "changes": [], "inputs": []}
    return {"confidence": 0.9, "resamples": 1000, "seed": 1, "family": 3, "comparisons": [found]}


def record(stage: str, text: str) -> dict[str, Any]:
    model = {"architecture": "llama", "path": "", "layers": 2, "hidden_size": 8, "heads": 2, "max_positions": 16}
    environment = {"python": "3.11.9", "machine": "x86_64", "threads": 2, "packages": {"torch": text, "xxhash": None}}
    return {
        "schema": "codex-ml/lineage/1",
        "stage": stage,
        "command": f"python -P stages/{stage}.py",
        "params": {"split": {"salt": text}, "model": model, "evaluate": {"confidence": 0.9}},
        "deps": {
            "models/model": {"md5": "m", "sha256": "5" * 64, "size": 1000},
            text: {"md5": "m", "sha256": "7" * 64, "size": 10},
            "src/codex_ml/core/io.py": {"md5": "m", "sha256": "8" * 64, "size": 20},
        },
        "environment": environment,
    }


def weights(shapes: dict[str, list[int]]) -> bytes:
    """A safetensors file of float32 zeros, made by hand from the format's description."""
    header, offset = {}, 0
    for name, shape in shapes.items():
        size = 4 * (shape[0] if len(shape) == 1 else shape[0] * shape[1])
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    return struct.pack("<Q", len(text)) + text + bytes(offset)


def audit(text: str, verdict: str) -> dict[str, Any]:
    """An audit.json whose free texts are `text`: names, titles, reasons, controls, settings, and the tables of parts."""
    number = {"value": 0.05, "low": 0.001, "high": 0.25, "trials": 20, "needed": 368, "unit": "share", "control": text}
    gate: dict[str, Any] = {
        "number": "memorisation.excess", "title": text, "status": verdict, "compared": 0.001, "rule": text,
        "trials": 20, "needed": 368, "control": text, "why": text,
    }  # fmt: skip
    undecided = {**gate, "number": text, "status": "skipped", "compared": None, "trials": 0, "needed": 0}
    control = {"name": text, "passed": True, "found": text, "expected": text, "voids": [text]}
    absent = {"value": None, "trials": 0, "unit": "share", "why": text}
    part = {
        "title": text,
        "numbers": {"excess": number, text: absent},
        "controls": [control, {**control, "passed": False}],
        "settings": {text: text, "size": 50, "kinds": [text]},
        "tables": {text: [{"set": text, text: 0.125, "n": 4}, {"set": text, "n": None}], "long": [{text: text}] * 20},
        "notes": [text],
    }
    skipped = {"status": "skipped", "title": text, "why": text}
    measured = {"title": text, "numbers": {"excess": number}}
    return {
        "verdict": verdict,
        "sentence": f"the sentence of a {verdict}: {text}",
        "model": text,
        "size": text,
        "confidence": 0.95,
        "seed": 1,
        "gates": [gate, {**gate, "status": "pass"}, undecided],
        "accepted": 1,
        "parts": {
            "memorisation": part,
            f"part {text}": skipped,
            **dict.fromkeys(("canaries", "membership", "generated"), measured),
        },
        "meanings": {"memorisation.excess": text, text: text},
        "notes": [text],
    }


CURVE = "{},{},0.5,0.25,0.75\n"
AUDIT_PLOTS = {
    "extraction_by_prefix": ("set,prefix,share,low,high", [CURVE.format("{}", k) for k in (10, 25, 50)] * 2),
    "extraction_tries": ("set,tries,share,low,high", [CURVE.format("{}", k) for k in (1, 10, 100)]),
    "exposure": ("repetitions,exposure,low,high,null", [f"{k},3.5,2.5,4.5,1.44\n" for k in (1, 4, 16)]),
    "roc": ("score,fpr,tpr", [f"{{}},{x},{x}\n" for x in (0, 0.01, 0.1, 1)]),
    "copied_runs": ("length,samples,held_out", ["{},0.5,0.25\n", "50 to 99,0.25,\n", "100 and more,0.25,0.75\n"]),
}


def audit_plot_files(text: str) -> dict[str, str]:
    """The small tables of the audit, in which every series and range that can be a text is `text`."""
    cell = '"' + text.replace('"', '""') + '"'
    return {
        name: head + "\n" + "".join(row.replace("{}", cell, 1) for row in rows)
        for name, (head, rows) in AUDIT_PLOTS.items()
    }
