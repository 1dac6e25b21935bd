"""Write docs/recipe.md from the records of recipe.py. A part of the page without records is left out.

Used by: recipe.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from recipe_race import RACERS
from recipe_settings import MAIN, RATES, REST, SCHEDULE, SIZES, Setting

Run = dict[str, Any]
SAMPLE, BEFORE, OURS = "tiny", "one-rate", "default"
WANTED = 0.35  # seconds of ours to the final loss of another recipe, as a share of its own
KEYS = ("optimizer", "lr", "embedding_lr", "momentum", "schedule", "warmup_steps", "min_lr_ratio", "weight_decay",
        "beta1", "beta2", "micro_batch_size")  # fmt: skip

HEAD = """# The recipe

How the defaults of `train` were chosen, and what they were compared with. `python benchmarks/recipe.py write` wrote
this page from the records of its runs, which lie beside it. [training.md](training.md) says what each key does, and how
to choose rates for a new size.

The recipe, with the rates of hidden size 768:

```yaml
train:
{keys}
```

A model from scratch multiplies `train.lr` and `train.embedding_lr` by (hidden size / 768)^-0.5.
"""
RESULT = """## Result

The sample corpus, {parameters}, {budget} steps of 8 rows. The last column counts the steps after which
a recipe has the final loss of AdamW with one rate; in brackets their share of the run.

{table}"""
SHORT = """The default with another number of steps, in which its schedule ends:

{table}"""
CHANGES = """## {section}: one change of the default

A difference below 0 is better than the default. It compares runs with equal seeds.{noise}

{table}"""
NOISE = " Runs of the default that differ in the seed alone have a standard deviation of {deviation:.3f} nats."
BY_SIZE = """## Sizes and the width rule

The rates of each row follow the width by the rule above. The rule holds as far as this table goes if, at every width,
halved and doubled rates are both worse than those of the default.

{table}"""
RACE = """## Against other recipes

The loops took turns, with equal rows, model shape ({parameters}) and validation, for {steps} steps of
8 rows. The clock counts training alone: it excludes validation and the first step, which compiles. The last three
columns say when the default reaches the final loss of the other recipe. The aim was at most {wanted} of its seconds.
Where a project has two rows, the one with the lower loss counts.

Validation has the document mask. Our loop trains with this mask, with eager attention and its allocator settings. The
other loops train without the mask, with SDPA and the system's allocator, as their projects do.

{table}
Raced on {machine}.
"""
STEP = """
A step of the default takes {ratio:.2f} times as long as a step of AdamW in the same loop, by the clock of this race.
"""
MEASURED = """## How it was measured

- {machine}. {runs} runs, each in a process of its own, on the packed sample corpus.
- Validation loss is the mean over the targets of 128 fixed rows, in nats per token. No document sees another one.
- A setting with another number of rows per step sees as many tokens in more or fewer steps.
- "a ± b" is the mean over seeds and its 95 % t-interval. A number without "±" is one run.
- Steps to a loss are interpolated linearly between two validations, which overestimates them a little.
- To measure again: `python benchmarks/recipe.py list` shows the settings, `run --only NAME --seed N` trains one.
"""


@dataclass(frozen=True)
class Runs:
    """The runs of the settings that the table has today.

    Attributes:
        settings: the table.
        runs: the records.
    """

    settings: dict[str, Setting]
    runs: Sequence[Run]

    def of(self, name: str, size: str, budget: int) -> dict[int, Run]:
        """Return the runs of a setting by seed; a later record replaces an earlier one."""
        content = self.settings[name].content.items() if name in self.settings else ()
        return {
            run["seed"]: run
            for run in self.runs
            if content and run["size"] == size and run["budget"] == budget and all(run[k] == v for k, v in content)
        }

    def budgets(self, name: str, size: str) -> list[int]:
        """Return the budgets with runs of a setting: the usual one of the size, then the others, longest first."""
        found = {run["budget"] for run in self.runs if self.of(name, size, run["budget"])}
        return sorted(found, key=lambda budget: (budget != SIZES[size].steps, -budget))

    def used(self) -> list[Run]:
        """Return the runs that the page may show."""
        known = [setting.content for setting in self.settings.values()]
        return [run for run in self.runs if {k: run[k] for k in ("recipe", "model", "groups")} in known]


def page(runs: Runs, race: Sequence[Run]) -> str:
    """Return the text of docs/recipe.md.

    Raises:
        ValueError: when no run of the default recipe is recorded.
    """
    if not (budgets := runs.budgets(OURS, SAMPLE)):
        raise ValueError(f"no run of the setting {OURS} at size {SAMPLE}; run: recipe.py run --only {OURS}")
    recipe = runs.settings[OURS].recipe
    keys = "\n".join(f"  {key}: {recipe[key]}" for key in KEYS)
    parts = [
        HEAD.format(keys=keys),
        _main(runs, budgets[0]),
        _short(runs, budgets),
        *(_changes(runs, section, budgets[0]) for section in (RATES, SCHEDULE, REST)),
        _sizes(runs),
        _race(race),
        _measured(runs.used()),
    ]
    return "\n".join(part for part in parts if part)


def interval(values: Sequence[float], digits: int = 3) -> str:
    """Return "mean ± half width" of the 95 % t-interval; the value alone if there is one."""
    if len(values) < 2:
        return f"{values[0]:.{digits}f}" if values else "–"
    from scipy.stats import t

    half = float(t.ppf(0.975, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
    return f"{fmean(values):.{digits}f} ± {half:.{digits}f}"


def final(run: Run) -> float:
    """Return the last validation loss of a run."""
    return float(list(run["val"].values())[-1])


def reached(at: Sequence[float], losses: Sequence[float], loss: float) -> float | None:
    """Return where a curve first falls to a loss, interpolated linearly; None if it does not."""
    for i, value in enumerate(losses):
        if value <= loss:
            if i == 0:
                return float(at[0])
            share = (losses[i - 1] - loss) / (losses[i - 1] - value)
            return at[i - 1] + share * (at[i] - at[i - 1])
    return None


def steps_to(run: Run, loss: float) -> float | None:
    """Return the steps of 8 rows after which a run has a validation loss."""
    scale = run["budget"] / run["steps"]
    return reached([scale * int(step) for step in run["val"]], list(run["val"].values()), loss)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines).replace("| --- |", "|---|").replace(" --- |", "---|") + "\n"


def _main(runs: Runs, budget: int) -> str:
    before = [final(run) for run in runs.of(BEFORE, SAMPLE, budget).values()]
    rows = []
    for name in [name for name, setting in runs.settings.items() if setting.section == MAIN]:
        if found := list(runs.of(name, SAMPLE, budget).values()):
            bits = [run["test_bits_per_byte"] for run in found if run["test_bits_per_byte"] is not None]
            steps = _steps(found, fmean(before), budget) if before and name != BEFORE else "–"
            losses = interval([final(run) for run in found])
            rows.append([runs.settings[name].title, str(len(found)), losses, interval(bits), steps])
    head = ["recipe", "seeds", "validation loss", "test bits per byte", "steps"]
    return RESULT.format(parameters=_shape(SAMPLE), budget=budget, table=table(head, rows))


def _steps(runs: Sequence[Run], loss: float, budget: int) -> str:
    steps = [step for run in runs if (step := steps_to(run, loss)) is not None]
    if len(steps) < len(runs):
        return f"not reached by {len(runs) - len(steps)}"
    return f"{interval(steps, 0)} ({fmean(steps) / budget:.2f})"


def _shape(size: str) -> str:
    return f"hidden size {SIZES[size].model['hidden_size']}, layers {SIZES[size].model['layers']}"


def _short(runs: Runs, budgets: Sequence[int]) -> str:
    """Runs of the default with another number of steps."""
    rows = []
    for budget in budgets[1:]:
        found = list(runs.of(OURS, SAMPLE, budget).values())
        rows.append([str(budget), str(len(found)), interval([final(run) for run in found])])
    return SHORT.format(table=table(["steps", "seeds", "validation loss"], rows)) if rows else ""


def _changes(runs: Runs, section: str, budget: int) -> str:
    """Changes of one thing, from the best to the worst."""
    default = runs.of(OURS, SAMPLE, budget)
    rows: list[tuple[float, list[str]]] = []
    for name, setting in runs.settings.items():
        found = runs.of(name, SAMPLE, budget) if setting.section == section else {}
        if seeds := sorted(set(found) & set(default)):
            changes = [final(found[seed]) - final(default[seed]) for seed in seeds]
            losses = interval([final(found[seed]) for seed in seeds])
            rows.append((fmean(changes), [setting.title, str(len(seeds)), losses, interval(changes)]))
    if not rows:
        return ""
    finals = [final(run) for run in default.values()]
    noise = NOISE.format(deviation=stdev(finals)) if len(finals) > 1 else ""
    head = ["change", "seeds", "validation loss", "difference"]
    ordered = [row for _, row in sorted(rows, key=lambda row: row[0])]
    return CHANGES.format(section=section, noise=noise, table=table(head, ordered))


def _sizes(runs: Runs) -> str:
    """Optimizers and factors of both rates, by size."""
    names = [name for name, setting in runs.settings.items() if setting.section == MAIN] + ["both-half", "both-double"]
    rows, shown = [], set[str]()
    for size, shape in SIZES.items():
        for budget in runs.budgets(OURS, size)[:1]:
            for name in names:
                if found := list(runs.of(name, size, budget).values()):
                    shown.add(size)
                    about = [f"{found[0]['parameters'] / 1e6:.1f} M", str(shape.model["hidden_size"]), str(budget)]
                    losses = interval([final(run) for run in found])
                    rows.append([*about, runs.settings[name].title, str(len(found)), losses])
    head = ["parameters", "hidden size", "steps", "recipe", "seeds", "validation loss"]
    return BY_SIZE.format(table=table(head, rows)) if len(shown) > 1 else ""


def _race(race: Sequence[Run]) -> str:
    by_name = {run["racer"]: run for run in race}
    if not (ours := by_name.get("ours")):
        return ""
    rows = []
    for name, run in by_name.items():
        loss, seconds = run["loss"][-1], run["clock"][-1]
        step, clock = (reached(ours[key], ours["loss"], loss) for key in ("steps", "clock"))
        then = ["–" if name == "ours" else "not reached"] * 3
        if name != "ours" and step is not None and clock is not None:
            then = [f"{step:.0f}", f"{clock:.1f}", f"{clock / seconds:.2f}"]
        rows.append([RACERS[name].title, f"{loss:.3f}", f"{seconds:.1f}", f"{run['start']:.0f}", *then])
    head = ["recipe", "final loss", "s", "s to start", "steps of the default", "s", "share"]
    machine = f"{_machine(ours)}, {ours['threads']} thread(s)"
    steps = round(ours["steps"][-1])
    text = RACE.format(
        parameters=_shape(ours["size"]), steps=steps, wanted=WANTED, table=table(head, rows), machine=machine
    )
    adamw = by_name.get("ours-one-rate")
    return text + (STEP.format(ratio=_per_step(ours) / _per_step(adamw)) if adamw else "")


def _per_step(run: Run) -> float:
    return float(run["clock"][-1] / run["steps"][-1])


def _machine(run: Run) -> str:
    kind = f"{run['precision']}, {'compiled' if run['compile'] else 'not compiled'}"
    return f"{run['machine']}, torch {run['torch']}, {kind}, {run['date']}"


def _measured(runs: Sequence[Run]) -> str:
    """The last part; several machines, versions or days are all named."""
    by_thread: Callable[[Run], str] = lambda run: f"{_machine(run)}, {run['threads']} thread(s) per run"  # noqa: E731
    return MEASURED.format(machine="; ".join(sorted(set(map(by_thread, runs)))), runs=len(runs))
