"""The settings of benchmarks/smollm2.py are those of its page, and params.yaml around them changes nothing."""

from __future__ import annotations

import gzip
import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest

from codex_ml.cli.param_rules import validate_params
from codex_ml.core.yaml import read_yaml
from codex_ml.documents.document import Document, read_documents, write_documents
from codex_ml.inference.audit_files import Audit, AuditNumber, AuditPart, Gate
from codex_ml.inference.evaluate_files import Evaluation, MetricValue, TaskResult

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def smollm2(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """benchmarks/smollm2.py, which is not a package."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("smollm2")


def test_the_page_shows_the_settings_that_were_measured(smollm2: ModuleType) -> None:
    page = (ROOT / "docs/smollm2.md").read_text(encoding="utf-8")
    assert re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) == [
        importlib.import_module("smollm2_page").yaml_of(smollm2.SETTINGS)
    ]


@pytest.mark.shipped
def test_the_other_keys_of_params_yaml_leave_the_training_as_it_was_measured(
    smollm2: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page says: change these keys, leave the others. The benchmark itself has the defaults of the others."""
    monkeypatch.chdir(ROOT)
    params = read_yaml(ROOT / "params.yaml")
    together = {**params, **{name: {**params[name], **values} for name, values in smollm2.SETTINGS.items()}}
    followed, measured = validate_params(together).train, validate_params(smollm2.SETTINGS).train
    assert followed.model_dump(exclude={"log_every"}) == measured.model_dump(exclude={"log_every"})


def test_the_table_of_results_has_each_compared_metric_once_with_its_interval(smollm2: ModuleType) -> None:
    def value(number: float | None, **interval: float) -> MetricValue:
        why = None if interval else "no interval"
        return MetricValue(value=number, **interval, units=20, signature="", higher_is_better=False, why=why)

    def result(bits: float, passed: float) -> Evaluation:
        documents = {"bits_per_byte": value(bits, low=0.5, high=1.0), "not_compared": value(3.0)}
        code = {"pass_at_1": value(passed, low=0.0, high=0.25), "solution_bits_per_byte": value(None)}
        tasks = {
            name: TaskResult(task=name, items=20, units=20, settings={}, metrics=metrics)
            for name, metrics in (("code/HumanEval", code), ("documents", documents))
        }
        return Evaluation(model="m", data="d", seed=0, bootstrap=100, confidence=0.95, tasks=tasks)

    assert list(importlib.import_module("smollm2_page").results(result(0.9, 0.0), result(0.8, 0.1)))[2:] == [
        "| documents (20) | bits_per_byte | 0.9 (0.5 to 1) | 0.8 (0.5 to 1) |",
        "| code/HumanEval (20) | pass_at_1 | 0 (0 to 0.25) | 0.1 (0 to 0.25) |",
        "|  | solution_bits_per_byte | - | - |",
    ]


def test_fewer_documents_and_tasks_are_the_spaced_and_the_first_ones(smollm2: ModuleType, tmp_path: Path) -> None:
    fields = {"source": "s", "path": "", "group": "", "licence": "MIT", "language": "text"}
    (tmp_path / "data/splits").mkdir(parents=True)
    write_documents(
        tmp_path / "data/splits/test.parquet", [Document(**fields, id=str(n), text=f"{n}") for n in range(10)]
    )
    file = tmp_path / smollm2.HUMANEVAL
    file.parent.mkdir(parents=True)
    file.write_bytes(gzip.compress(b'{"task_id": "a"}\n{"task_id": "b"}\n{"task_id": "c"}\n'))
    smollm2.cut_down(tmp_path, documents=3, tasks=2)
    assert [d.id for d in read_documents(tmp_path / "data/splits/test.parquet")] == ["0", "3", "6"]
    assert gzip.decompress(file.read_bytes()).splitlines() == [b'{"task_id": "a"}', b'{"task_id": "b"}']


def test_the_page_of_the_audit_shows_verdicts_numbers_and_gates_side_by_side(smollm2: ModuleType) -> None:
    def audit(verdict: str, extracted: float, canaries: AuditPart) -> Audit:
        share = AuditNumber(value=extracted, low=0.0, high=0.5, trials=8, unit="share")
        parts = {"memorisation": AuditPart(title="Memorisation", numbers={"extracted": share}), "canaries": canaries}
        gate = {"number": "memorisation.extracted", "title": "Nothing leaks", "status": verdict, "compared": extracted}
        return Audit(
            verdict=verdict, sentence=f"{verdict.upper()}: so it is.", model="m", size="small", confidence=0.95, seed=0,
            gates=[Gate(**gate, rule="", trials=8, needed=0, control="")], accepted=0, parts=parts,
            meanings={"memorisation.extracted": "share of windows"},
        )  # fmt: skip

    skipped = AuditPart(status="skipped", title="Planted secrets", why="no canaries were planted")
    bits = AuditNumber(value=1.5, trials=4, unit="bits")
    measured = AuditPart(title="Planted secrets", numbers={"exposure_once": bits})
    page = importlib.import_module("smollm2_page")
    lines = [line for line in page.audit_lines(audit("pass", 0.0, skipped), audit("fail", 0.25, measured)) if line]
    assert lines == [
        "**Before**: PASS: so it is.",
        "**After**: FAIL: so it is.",
        "| gate | before | after |",
        "|---|---|---|",
        "| Nothing leaks | pass | fail |",
        "| number | before | after | what it is |",
        "|---|---|---|---|",
        "| memorisation.extracted | 0 (0 to 0.5), of 8 | 0.25 (0 to 0.5), of 8 | share of windows |",
        "| canaries.exposure_once | - | 1.5, of 4 |  |",
        "Before: Planted secrets was not measured: no canaries were planted.",
    ]
