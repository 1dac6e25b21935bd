"""The sentences about generated text, executed code and the comparison, the same on the page and in the model card."""

from __future__ import annotations

from codex_ml.core.errors import safe_line
from codex_ml.inference.code_files import JudgedSample
from codex_ml.inference.evaluate_files import CODE, COMPLETIONS, DOCUMENTS, TaskResult, table_stem
from codex_ml.report.evaluation_facts import CompletedDocument
from codex_ml.report.facts import Facts

UNITS = (
    "Intervals are over independent units: documents of one group or of equal content are one unit, and so is a "
    "programming task, however many programs it has."
)


def other_tasks(facts: Facts) -> list[str]:
    """Names of the tasks beside the likelihood of the documents: completions first, then code."""
    return sorted(facts.evaluation.tasks.keys() - {DOCUMENTS}, key=lambda name: (table_stem(name) == CODE, name))


def task_title(task: str) -> str:
    """Return the heading of a task."""
    if table_stem(task) == CODE:
        return f"Executed code: {task.partition('/')[2]}"
    return "Generated text" if task == COMPLETIONS else task


def task_note(facts: Facts, task: str) -> str:
    """Say what was done in a task, with what was left out."""
    found = facts.evaluation.tasks[task]
    said = _generated(facts) if task == COMPLETIONS else _executed(facts, task) if table_stem(task) == CODE else []
    return " ".join([*said, *(_sentence(note) for note in found.notes)])


CUT = {
    "cut_prompts": "prompts were longer than the model can see and lost their begin",
    "cut_references": "references were longer than the text that is generated",
}


def _generated(facts: Facts) -> list[str]:
    found = facts.evaluation.tasks[COMPLETIONS]
    return [
        f"The model continued {found.items:,} held-out documents, by at most {found.settings.get('max_tokens')} tokens "
        f"{_sampling(found.settings)}. The metrics compare the text with the document's own; signatures and settings "
        "say how.",
        *_cut(found),
    ]


def _executed(facts: Facts, task: str) -> list[str]:
    found = facts.evaluation.tasks[task]
    settings, judged = found.settings, found.items - found.counts.get("in_child", 0)
    wrote = "they come from a file"
    if "samples" in settings:
        wrote = f"the model wrote {settings['samples']} per task {_sampling(settings)}"
    return [
        f"{found.counts.get('programs', 0):,} programs for {found.items:,} tasks ran in the sandbox "
        f"{settings.get('sandbox')}; {wrote}.",
        f"{judged:,} of the tasks are judged by another process than the program's.",
        *_cut(found),
    ]


def _cut(found: TaskResult) -> list[str]:
    """What the model could not see, or was not compared with."""
    cut = [f"{found.counts[name]:,} {words}" for name, words in CUT.items() if found.counts.get(name)]
    return [f"{'; '.join(cut)}."] if cut else []


def _sampling(settings: dict[str, object]) -> str:
    heat = settings.get("temperature")
    return "greedily" if heat == 0 else f"at temperature {heat}"


def _sentence(note: str) -> str:
    return f"{note[:1].upper()}{note[1:]}{'' if note.endswith('.') else '.'}"


def completed_note(text: CompletedDocument) -> str:
    """Say which document was continued, where, and how near the text came to the document's own."""
    near = "" if text.edit_similarity is None else f"; edit similarity to its own text {text.edit_similarity:.3f}"
    return safe_line(f"{text.source} {text.path}, split at {text.split_at}, ended by {text.finished}{near}")


def program_note(program: JudgedSample) -> str:
    """Say what became of a program."""
    why = f" ({program.detail})" if program.detail else ""
    return safe_line(f"{program.benchmark} {program.task}, sample {program.sample}: {program.verdict}{why}")


def verdict_note(facts: Facts) -> str:
    """Say what is compared with what, and when a difference counts."""
    found = facts.results.compared
    assert found is not None
    first = found.comparisons[0]
    return (
        f"A is {first.a.name}, B is the model of this page; both on the same items. Differences are paired, intervals "
        f"and p-values are over units, and p (Holm) is corrected for the {found.family} tests. B is better or worse "
        f"where p (Holm) is below {1 - found.confidence:.2g}."
    )
