"""benchmarks/load.py: its corpora are what it says they are, each case runs, and a cost is that of all processes."""

from __future__ import annotations

import importlib
import json
import re
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from types import ModuleType

import numpy as np
import psutil
import pytest
from typer.testing import CliRunner

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
HEAD = "| case | size | MB | stage | before: CPU s | parent | MiB | after: CPU s | parent | MiB | notes |"
MODULES = ("load", "corpus", "load_inputs", "measuring")
SIZES = {
    "ordinary": 1, "headers": 150, "few-words": 20, "boiler-plate": 20, "json-rows": 20, "equal": 50, "families": 110, "family": 20, "metadata": 250,
    "files": 20, "lines": 1, "ledger": 300, "short": 300, "steps": 110,
}  # fmt: skip


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, workspace: Path) -> Iterator[ModuleType]:
    """benchmarks/load.py, which is not a package, with long lines and metadata made shorter, for an invented user."""
    path = list(sys.path)
    monkeypatch.syspath_prepend(BENCHMARKS)
    module = importlib.import_module("load")
    monkeypatch.setattr(module, "ROOT", workspace)
    monkeypatch.setattr(module.inputs, "LINE_BYTES", 9_000_000)
    monkeypatch.setattr(module.inputs, "META_BYTES", 2_000)
    monkeypatch.setattr(module.inputs, "LEDGER_DOCUMENTS", 250)
    monkeypatch.setattr(module.inputs, "LINES_IN_ONE_FILE", 200)
    yield module
    sys.path[:] = path
    for name in MODULES:
        del sys.modules[name]


def random() -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(7))


def similarities(texts: list[str]) -> list[float]:
    """Jaccard similarity of the five-word shingles of all pairs, without the code of the library."""
    words = [re.findall(r"\w+", text) for text in texts]
    shingles = [{tuple(text[i : i + 5]) for i in range(len(text) - 4)} for text in words]
    return [len(a & b) / len(a | b) for a, b in combinations(shingles, 2)]


def test_every_case_is_tried(load: ModuleType) -> None:
    assert load.CASES.keys() == SIZES.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
def test_case_runs_and_gives_a_line_per_stage(
    load: ModuleType, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = replace(load.CASES[name], twin=name == "headers")  # one twin is enough
    monkeypatch.setitem(load.CASES, name, case)
    record = tmp_path / "record.ndjson"
    done = CliRunner().invoke(load.app, ["run", f"{name}={SIZES[name]}", "--record", str(record)])
    assert done.exit_code == 0, done.output
    cases = [name, f"{name}, unrelated"] if case.twin else [name]
    lines = [line for line in done.output.splitlines() if line.startswith("|")]
    assert lines[0] == HEAD
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    assert [(row[0], row[3]) for row in cells] == [(one, stage) for one in cases for stage in case.stages]
    for row in cells:
        assert row[1] == str(SIZES[name]) and row[4:7] == ["", "", ""]
        cpu, parent, peak = map(float, row[7:10])
        assert 0 < parent <= cpu and peak > 0
    assert bool(cells[0][10]) == (name in ("ledger", "steps"))
    kept = [json.loads(line) for line in record.read_text().splitlines()]
    assert [(row["case"], row["stage"], row["code"]) for row in kept] == [(r[0], r[3], "after") for r in cells]
    again = CliRunner().invoke(load.app, ["table", str(record)])
    assert [line for line in again.output.splitlines() if line.startswith("|")] == lines


def test_stage_over_the_limit_is_named_and_ends_its_case(load: ModuleType) -> None:
    done = CliRunner().invoke(load.app, ["run", "equal=50", "--limit", "0.1"])
    assert done.exit_code == 1
    (line,) = [line for line in done.output.splitlines() if line.startswith("| equal")]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert (cells[0], cells[1], cells[3], cells[7]) == ("equal", "50", "ingest", "not done in 0.1 CPU s")


@pytest.mark.parametrize("argument", ["header", "headers=many", "headers=-1"])
def test_wrong_case_is_refused(load: ModuleType, argument: str) -> None:
    done = CliRunner().invoke(load.app, ["run", argument])
    assert done.exit_code == 2


def test_ratio_is_that_of_split_to_its_twin(load: ModuleType) -> None:
    def row(case: str, code: str, cpu: float, error: str = "") -> object:
        return load.Row(case, 9, 1.0, "split", code, load.Run(1.0, cpu, cpu, 5.0, 0.0, error))

    rows = [row("headers", "before", 26.0), row("headers, unrelated", "before", 1.3)]
    rows += [row("headers", "after", 2.0), row("headers, unrelated", "after", 1.6)]
    assert load.as_table(rows).splitlines()[-2:] == [
        "before: split of headers (9) takes 20.00 times the CPU of unrelated text",
        "after: split of headers (9) takes 1.25 times the CPU of unrelated text",
    ]
    after = "| 2.0 | 2.0 | 5 |  |"
    rows[0] = row("headers", "before", 0.0, "not done in 100 CPU s")
    assert "before: split" not in load.as_table(rows)
    assert f"| headers | 9 | 1.0 | split | not done in 100 CPU s |  | 5 {after}" in load.as_table(rows)
    rows[0] = row("headers", "before", 7.0, "exit status 1: error: no room")
    assert f"| headers | 9 | 1.0 | split | 7.0, then exit status 1: error: no room | 7.0 | 5 {after}" in load.as_table(
        rows
    )


def test_texts_have_the_similarity_that_their_case_is_about(load: ModuleType) -> None:
    texts = {name: similarities(list(getattr(load.inputs, name)(30, random()))) for name in ("few_words", "headers")}
    assert min(texts["few_words"]) > 0.6 and max(texts["few_words"]) < 0.7
    assert min(texts["headers"]) > 0.3 and max(texts["headers"]) < 0.7
    assert min(similarities(list(load.inputs.families(30, random())))) > 0.7
    assert min(likeness := similarities(list(load.inputs.boiler_plate(30, random())))) > 0.1 and max(likeness) < 0.7
    assert min(likeness := similarities(list(load.inputs.json_rows(30, random())))) > 0.03 and max(likeness) < 0.7
    two = list(load.inputs.families(4, random(), members=2))
    assert [value > 0.7 for value in similarities(two)] == [True, False, False, False, False, True]


def test_twin_has_as_many_texts_of_the_same_sizes_that_share_nothing(load: ModuleType, tmp_path: Path) -> None:
    load.inputs.write_texts(tmp_path / "own", load.inputs.headers(20, random()))
    load.inputs.write_twin(tmp_path / "own", tmp_path / "twin", random())
    own, twin = (
        [json.loads(line)["text"] for line in (tmp_path / name / "input.jsonl").open()] for name in ("own", "twin")
    )
    assert [len(text) for text in own] == [len(text) for text in twin]
    assert max(similarities(twin)) == 0


@pytest.mark.parametrize(("size", "files"), [(150, 1), (1_000, 256)])
def test_ledger_has_the_published_form(load: ModuleType, tmp_path: Path, size: int, files: int) -> None:
    folder = tmp_path / "split_ledger"
    folder.mkdir()
    (folder / "all.txt").write_bytes(b"")
    load.inputs.write_ledger(tmp_path, size, random(), salt_mark="0123456789abcdef")
    found, count = sorted(folder.iterdir()), 0
    assert len(found) == files
    for file in found:
        head, *lines = file.read_bytes().splitlines(keepends=True)
        assert head == b"# codex-ml/ledger/2 salt 0123456789abcdef\n"
        assert lines == sorted(lines)
        for line in lines:
            assert re.fullmatch(rb"[\w-]{16} [\w-]{11} [\w-]{6} [RVT]\n", line) and len(line) == 38
        count += len(lines)
    assert count == size


CHILD = "import time\nwhile time.process_time() < 0.4: pass"


def test_cost_is_that_of_all_processes_and_of_the_first(load: ModuleType, tmp_path: Path) -> None:
    code = f"import subprocess, sys, time; subprocess.run([sys.executable, '-c', {CHILD!r}]); time.sleep(0.5)"
    run = load.attempt([sys.executable, "-c", code], tmp_path)
    assert run.error == ""
    assert run.cpu - run.parent > 0.37  # each of user and system time is rounded down to 10 ms
    assert run.peak > 1


def test_error_is_the_last_line_of_stderr(load: ModuleType, tmp_path: Path) -> None:
    code = "import sys; print('first', file=sys.stderr); sys.exit('error: no data')"
    assert load.attempt([sys.executable, "-c", code], tmp_path).error == "exit status 1: error: no data"


def test_limit_kills_the_children_too(load: ModuleType, tmp_path: Path) -> None:
    child = "import os\nopen('pid', 'w').write(str(os.getpid()))\nwhile True: pass"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    run = load.attempt([sys.executable, "-c", code], tmp_path, limit=0.5)
    assert run.error == "not done in 0.5 CPU s"
    with suppress(psutil.NoSuchProcess):
        child_process = psutil.Process(int((tmp_path / "pid").read_text()))
        while child_process.status() != psutil.STATUS_ZOMBIE:  # never ends if nothing killed it
            time.sleep(0.01)
