"""CPU time and memory of the stages on unusual corpora, for this checkout and for another one.

    python benchmarks/load.py run headers=4000 equal=300000 --before ../other-checkout --limit 600 --record load.ndjson
    python benchmarks/load.py table load.ndjson

A case is CASE=SIZE, or CASE for its usual sizes; `cases` lists them. The checkouts run in turns, on the same input. The
machine may do other work, because the table has CPU seconds and not wall time. The other tools need an environment of
their own, see data.py.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from numpy.random import PCG64, Generator

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import corpus  # noqa: E402
import load_inputs as inputs  # noqa: E402
from measuring import ROOT, Run, attempt, workspace  # noqa: E402

app = typer.Typer(help=__doc__, no_args_is_help=True)

# Quality limits are off, so that every document reaches the comparison.
PARAMS = """\
ingest: {{sources: [{source}], max_document_bytes: {document_bytes}}}
split:
  licences: [MIT]
  policy: "{policy}"
  quality: {{max_line_length: null, max_mean_line_length: null, min_alphanumeric_share: null,
    min_compression_ratio: null, max_blob_share: null, drop_generated: false}}
tokenizer: {{vocab_size: {vocabulary}}}
pack: {{seq_len: {seq_len}}}
model: {{hidden_size: 16, intermediate_size: 32, layers: 1, heads: 2, max_positions: 256}}
train: {{max_steps: {steps}, warmup_steps: 4, micro_batch_size: 4, eval_every: {steps}, eval_rows: 4, log_every: 5,
  checkpoint_every: 100, compile: "off", precision: fp32, threads: 1}}
runtime: {{device: cpu, workers: {workers}, progress: "off"}}
"""
LINES = '{kind: jsonl, path: "data/raw/bench/*.jsonl"}'
FILES = "{kind: files, path: data/raw/bench, licence: MIT}"
OTHERS = 200  # unrelated documents of 200 letters
CHECKPOINTS_TIMED = 10  # the last ones of a run
PEERS = ("datatrove", "datasketch")
PEER_SETTINGS = {
    "datatrove": "5-grams, 14 buckets of 8 hashes, 64 bits, 2 workers, all four steps, nothing verified",
    "datasketch": "5-grams, 252 permutations, 42 bands of 6, union-find, one process, nothing verified",
}
HEAD = ("case", "size", "MB", "stage", "before: CPU s", "parent", "MiB", "after: CPU s", "parent", "MiB", "notes")


@dataclass(frozen=True)
class Case:
    """A corpus and the stages that are measured on it.

    Attributes:
        what: description of the corpus, with the unit of its size.
        sizes: the usual ones.
        write: writes the corpus to a folder.
        stages: the stages that are measured.
        before: stages that only prepare the input.
        source: the entry of ingest.sources.
        document_bytes: ingest.max_document_bytes.
        twin: whether unrelated texts of the same sizes are measured too.
    """

    what: str
    sizes: tuple[int, ...]
    write: Callable[[Path, int, Generator], None]
    stages: tuple[str, ...] = ("ingest", "split")
    before: tuple[str, ...] = ()
    source: str = LINES
    document_bytes: int = 1_000_000
    twin: bool = False


def texts(function: Callable[[int, Generator], Iterable[str]]) -> Callable[[Path, int, Generator], None]:
    """Return a writer of the texts of a function in load_inputs and of other texts, so that no split is empty."""
    return lambda folder, size, random: inputs.write_texts(
        folder, function(size, random), inputs.short(OTHERS, Generator(PCG64(3)))
    )


def some_texts(folder: Path, size: int, random: Generator) -> None:
    """Write a small corpus; `size` is ignored."""
    inputs.write_texts(folder, inputs.short(inputs.LEDGER_DOCUMENTS, random))


def ordinary(folder: Path, size: int, random: Generator) -> None:
    """Write the corpus of data.py."""
    corpus.write(folder, size)


CASES = {
    "ordinary": Case("MB of the text of data.py", (100,), ordinary),
    "headers": Case("documents under one licence header", (4_000, 100_000), texts(inputs.headers), twin=True),
    "few-words": Case("documents of a header and few words", (20_000,), texts(inputs.few_words), twin=True),
    "boiler-plate": Case("generated files", (20_000,), texts(inputs.boiler_plate), twin=True),
    "json-rows": Case("tables of JSON rows as text", (4_000,), texts(inputs.json_rows), twin=True),
    "equal": Case("equal texts", (300_000,), texts(inputs.equal)),
    "families": Case("near-copies in families of 100", (100_000,), texts(inputs.families)),
    "family": Case("near-copies of one text", (20_000,), texts(inputs.family)),
    "metadata": Case("records with 20 kB of metadata", (20_000,), inputs.write_metadata),
    "files": Case("files in a folder", (200_000,), inputs.write_files, ("ingest",), source=FILES),
    "lines": Case("lines of 50 MB", (40,), inputs.write_lines, ("ingest",), document_bytes=60_000_000),
    "ledger": Case(
        "lines of the ledger, beside 2,000 documents", (0, 1_000_000, 10_000_000), some_texts, ("split",), ("ingest",)
    ),
    "short": Case(
        "short documents, to packed rows", (1_000_000,), texts(inputs.short), ("ingest", "split", "tokenizer", "pack")
    ),
    "steps": Case(
        "training steps of a tiny model", (1_000, 20_000), some_texts, ("train",),
        ("ingest", "split", "tokenizer", "pack"),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One measured stage of a case: one line of the record.

    Attributes:
        code: `before`, `after`, or the name of another tool.
        megabytes: size of the input.
        note: more results of the case, such as bytes per checkpoint.
    """

    case: str
    size: int
    megabytes: float
    stage: str
    code: str
    run: Run
    note: str = ""


@dataclass(frozen=True)
class Plan:
    """What to measure, on which input, and how."""

    case: str
    size: int
    checkouts: dict[str, Path]
    limit: float | None
    rounds: int
    policy: str
    workers: int
    peer_python: Path | None = None


@app.command()
def cases() -> None:
    """List the cases and their usual sizes."""
    for name, case in CASES.items():
        print(f"{name:13s} {', '.join(f'{size:,}' for size in case.sizes)} {case.what}")


@app.command()
def run(
    wanted: Annotated[list[str], typer.Argument(metavar="CASE[=SIZE]...", help="See `cases`.")],
    before: Annotated[Path | None, typer.Option(help="Another checkout, which takes turns with this one.")] = None,
    after: Annotated[bool, typer.Option(help="Measure this checkout.")] = True,
    limit: Annotated[float | None, typer.Option(help="CPU seconds after which a run is killed.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; the table has the median of the CPU seconds.")] = 1,
    policy: Annotated[str, typer.Option(help="split.policy: off or enforce.")] = "off",
    workers: Annotated[int, typer.Option(min=0, help="runtime.workers; 0: one per core.")] = 0,
    peer_python: Annotated[Path | None, typer.Option(help="Python with the other tools, for headers.")] = None,
    record: Annotated[Path | None, typer.Option(help="File that gets one line of JSON per run.")] = None,
) -> None:
    """Measure cases and print the table. Exit code 1 if a stage of this checkout gave no result."""
    checkouts = {"before": before.resolve()} if before else {}
    checkouts |= {"after": ROOT} if after else {}
    rows = []
    for name, size in chosen(wanted):
        plan = Plan(name, size, checkouts, limit, rounds, policy, workers, peer_python)
        with TemporaryDirectory(dir=os.environ.get("TMPDIR")) as temporary:
            for row in measured(plan, Path(temporary)):
                rows.append(row)
                print(f"{row.case}={row.size} {row.stage} {row.code}: {told(row)}", file=sys.stderr, flush=True)
                if record:
                    with record.open("a", encoding="utf-8") as lines:
                        lines.write(json.dumps(asdict(row)) + "\n")
    print(as_table(rows))
    if any(row.run.error for row in rows if row.code == "after"):
        raise typer.Exit(1)


@app.command()
def table(records: Annotated[list[Path], typer.Argument(help="Files that `run --record` wrote.")]) -> None:
    """Print one table of several runs; of runs with equal case, size, stage and code, the last one."""
    rows = []
    for file in records:
        for line in file.read_text(encoding="utf-8").splitlines():
            fields = json.loads(line)
            rows.append(Row(**{**fields, "run": Run(**fields["run"])}))
    print(as_table(rows))


def chosen(wanted: list[str]) -> Iterator[tuple[str, int]]:
    """Yield the cases and sizes of the arguments CASE or CASE=SIZE."""
    for argument in wanted:
        name, _, size = argument.partition("=")
        if name not in CASES:
            raise typer.BadParameter(f"{name} is not a case; the cases are {', '.join(CASES)}")
        if size and not size.replace("_", "").isdecimal():
            raise typer.BadParameter(f"{argument}: the size must be a whole number, as in {name}=1000")
        yield from ((name, number) for number in ([int(size)] if size else CASES[name].sizes))


def measured(plan: Plan, temporary: Path) -> Iterator[Row]:
    """Write the input and measure all stages; then do the same for its twin, and run the other tools."""
    case, data = CASES[plan.case], temporary / "input"
    case.write(data, plan.size, Generator(PCG64(1)))
    yield from stages(plan, data, temporary / plan.case)
    if case.twin:
        inputs.write_twin(data, temporary / "twin", Generator(PCG64(2)))
        yield from stages(replace(plan, case=f"{plan.case}, unrelated"), temporary / "twin", temporary / "twins")
    if plan.peer_python and plan.case == "headers":
        for name in PEERS:
            command = [str(plan.peer_python), str(HERE / f"peer_{name}.py"), str(data), str(temporary / name)]
            one = attempt(command, temporary, limit=plan.limit)
            yield Row(plan.case, plan.size, megabytes(data), "all", name, one, PEER_SETTINGS[name])


def stages(plan: Plan, data: Path, folder: Path) -> Iterator[Row]:
    """Measure the stages of a case on the input in `data`: each stage in all checkouts before the next stage."""
    case = CASES[plan.case.partition(",")[0]]
    places = {code: prepared(plan, case, data, folder / code) for code in plan.checkouts}
    failed: set[str] = set()
    for stage in (*case.before, *case.stages):
        for code in [code for code in places if code not in failed]:
            runs = []
            for _ in range(1 if stage in case.before else plan.rounds):
                runs.append(attempt([sys.executable, f"stages/{stage}.py"], places[code], limit=plan.limit))
            one = middle(runs)
            if one.error:
                failed.add(code)
            if one.error or stage in case.stages:
                yield Row(plan.case, plan.size, megabytes(data), stage, code, one, noted(plan, places[code], one))
    shutil.rmtree(folder)


def prepared(plan: Plan, case: Case, data: Path, root: Path) -> Path:
    """Make a workspace of a checkout with the files of `data` in data/raw/bench."""
    short = plan.case == "short"
    params = PARAMS.format(
        source=case.source,
        document_bytes=case.document_bytes,
        policy=plan.policy,
        workers=plan.workers,
        vocabulary=4096 if short else 300,
        seq_len=256 if short else 32,
        steps=plan.size if plan.case == "steps" else 1_000,
    )
    workspace(root, params, checkout=plan.checkouts[root.name])
    shutil.copytree(data, root / "data/raw/bench", copy_function=os.link)
    if plan.case == "ledger" and plan.size:
        inputs.write_ledger(root / "data", plan.size, Generator(PCG64(1)), salt_mark=salt_mark())
    return root


def salt_mark() -> str:
    """Return the mark of the usual salt in the header of a ledger."""
    sys.path.insert(0, str(ROOT / "src"))
    from codex_ml.split.ledger.line_format import salt_mark as mark

    return mark("codex-ml")


def middle(runs: list[Run]) -> Run:
    """Return the median of the CPU seconds and the largest memory, or the first run with an error."""
    for one in runs:
        if one.error:
            return one
    return Run(
        seconds=median(one.seconds for one in runs),
        cpu=median(one.cpu for one in runs),
        parent=median(one.parent for one in runs),
        peak=max(one.peak for one in runs),
        written=max(one.written for one in runs),
    )


def noted(plan: Plan, root: Path, one: Run) -> str:
    """Return results other than seconds and memory, or an empty text."""
    if one.error:
        return ""
    if plan.case == "steps":
        return checkpoint_costs(root, one)
    if plan.case == "ledger" and plan.size:
        files = [file for file in (root / "data").glob("split_ledger*/**/*") if file.is_file()]
        size = sum(file.stat().st_size for file in files or [root / "data/split_ledger.ndjson"])
        return f"ledger: {size / plan.size:.0f} bytes per line"
    return ""


def checkpoint_costs(root: Path, one: Run) -> str:
    """Return the wall time of the last checkpoints, and the bytes written per checkpoint.

    The log of timings has the line of a step before the checkpoint of that step. So the rate in the next line includes
    the checkpoint, and the cost of a checkpoint is the difference to a line without one.
    """
    events = [json.loads(line) for line in (root / "logs/train/events.ndjson").read_text().splitlines()]
    rated = [event for event in events if event.get("tokens_per_second")]  # of trained tokens, not of all places
    seconds = {e["step"]: 5 * 4 * 32 * (1 - e["untrained"]) / e["tokens_per_second"] for e in rated}
    after = [step for step in seconds if step > 100 and step % 100 == 5][-CHECKPOINTS_TIMED:]
    if not after:
        return ""
    plain = median(value for step, value in seconds.items() if step >= after[0] and step % 100 != 5)
    checkpoint = median(seconds[step] for step in after) - plain
    steps = max(seconds)
    return (
        f"{1000 * plain / 5:.1f} ms per step, {1000 * checkpoint:.0f} ms per checkpoint at the end, "
        f"{1000 * one.written / (steps / 100):.0f} kB written per checkpoint"
    )


def megabytes(folder: Path) -> float:
    """Return the size of the input, MB."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def told(row: Row) -> str:
    """Describe a run in one line."""
    one = row.run
    cost = f"{one.cpu:.1f} CPU s, {one.parent:.1f} in the parent, {one.peak:.0f} MiB"
    return f"{one.error or cost} {row.note}".strip()


def as_table(rows: list[Row]) -> str:
    """Return a Markdown table, one line per case and stage, and the CPU time of each case relative to its twin."""
    last = {(row.case, row.size, row.stage, row.code): row for row in rows}
    keys = list(dict.fromkeys((row.case, row.size, row.stage) for row in rows if row.code not in PEERS))
    lines = [" | ".join(HEAD), " | ".join("---" for _ in HEAD)]
    for key in keys:
        both = [last.get((*key, code)) for code in ("before", "after")]
        known = [row for row in both if row]
        notes = "; ".join(f"{row.code}: {row.note}" for row in known if row.note)
        cells = [key[0], f"{key[1]:,}", f"{known[0].megabytes:.1f}", key[2]]
        lines.append(" | ".join([*cells, *(cell for row in both for cell in _cells(row)), notes]))
    for row in [row for row in last.values() if row.code in PEERS]:
        cells = [row.case, f"{row.size:,}", f"{row.megabytes:.1f}", row.code, "", "", "", *_cells(row), row.note]
        lines.append(" | ".join(cells))
    ratios = [_ratio(last, row) for row in last.values() if row.stage == "split" and "," not in row.case]
    return "\n".join([*(f"| {line} |" for line in lines), "", *(ratio for ratio in ratios if ratio)])


def _cells(row: Row | None) -> list[str]:
    if row is None:
        return ["", "", ""]
    one = row.run
    cpu, parent, peak = f"{one.cpu:.1f}", f"{one.parent:.1f}", f"{one.peak:.0f}"
    if not one.error:
        return [cpu, parent, peak]
    return [f"{cpu}, then {one.error}", parent, peak] if one.cpu else [one.error, "", peak]


def _ratio(last: dict[tuple[str, int, str, str], Row], row: Row) -> str:
    twin = last.get((f"{row.case}, unrelated", row.size, "split", row.code))
    if twin is None or twin.run.error or row.run.error:
        return ""
    times = row.run.cpu / twin.run.cpu
    return f"{row.code}: split of {row.case} ({row.size:,}) takes {times:.2f} times the CPU of unrelated text"


if __name__ == "__main__":
    app()
