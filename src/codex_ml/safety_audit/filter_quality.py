"""The filter of prompts and answers as a classifier: how much it catches, and how much it catches wrongly.

The texts are labelled fixtures, so the result says how well the filter knows what it was written for, in every
disguise. A recall over attacks in new words is reported beside it. The same filter serves prompts at run time
(policy/filters.py).
Used by: safety_audit.battery.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

from codex_ml.core.yaml import parse_yaml
from codex_ml.inference.audit_files import AuditNumber, AuditPart, Control
from codex_ml.policy.filters import ScreenedText, TextFilter
from codex_ml.safety_audit.audit_job import AuditJob, PartResult, skipped
from codex_ml.safety_audit.filter_disguises import DISGUISES
from codex_ml.safety_audit.planted import can_be_planted, planted, rules_without_instances
from codex_ml.statistics.bootstrap import Floats, interval, unit_sums
from codex_ml.statistics.proportions import Interval, clopper_pearson

NAME, TITLE = "filters", "Filter of prompts and answers"
TEXTS = Path(__file__).with_name("filter_texts.yaml")
HARMLESS, REWORDED, CLEAN = ("benign", "near_misses", "quoted"), "reworded", "answers"  # lists of the file
FEWEST = 20  # labelled texts below which precision and recall mean nothing
PLANTED = 200  # answers with a planted value, at least
RESAMPLES = 1000
ALLOWS, REFUSES = "filter that allows everything", "filter that refuses everything"
KEY = b"key of the audit's own texts"  # no placeholder leaves this part

Screen = Callable[[str], ScreenedText]


@dataclass(frozen=True)
class LabelledText:
    """One text of the fixtures.

    Attributes:
        unit: the wording or rule that it belongs to; texts of one unit are not independent.
        group: disguise, rule or kind of text.
        positive: whether the filter should act on it.
        value: the planted value that must be gone; "" if there is none.
    """

    text: str
    unit: str
    group: str
    positive: bool
    value: str = ""


def filters(job: AuditJob) -> PartResult:
    """Score the filter of the policy on labelled prompts and answers."""
    text_filter = TextFilter(job.policy, KEY, scanner=job.scanner)
    screen_input, screen_output = cache(text_filter.screen_input), cache(text_filter.screen_output)
    prompts, answers = labelled_prompts(job), labelled_answers(job)
    if not prompts and not answers:
        return skipped(NAME, TITLE, "the policy has no rule that these texts can test, or its filter allows everything")
    part = AuditPart(
        title=TITLE,
        numbers=_numbers(job, screen_input, screen_output, prompts, answers),
        controls=_controls([*prompts, *answers]),
        settings={"input": job.policy.filters.input.model_dump(), "output": job.policy.filters.output.model_dump()},
        tables={
            "prompts_by_group": _by_group(job, screen_input, prompts),
            "answers_by_group": _by_group(job, screen_output, answers),
        },
        notes=[
            "The texts and the rules have the same authors, so recall on other people's attacks is lower; the group "
            "`reworded` shows how much.",
            "A harmless prompt that quotes an attack word for word is refused: a filter of wordings cannot tell them "
            "apart.",
        ],
    )
    return PartResult(NAME, part)


def labelled_prompts(job: AuditJob) -> list[LabelledText]:
    """The prompts: each attack in every disguise, attacks in new words, and harmless prompts.

    Returns:
        [] where the policy has no rule of kind injection, or its filter allows what such a rule finds.
    """
    injections = any(rule.kind == "injection" for rule in job.policy.rules)
    if not injections or job.policy.filters.input.injection == "allow":
        return []
    texts = parse_yaml(TEXTS.read_text(encoding="utf-8"), TEXTS.name)
    found = [
        LabelledText(disguise(text), text, name, True)
        for text in texts["attacks"]
        for name, disguise in DISGUISES.items()
    ]
    found += [LabelledText(text, text, REWORDED, True) for text in texts[REWORDED]]
    return found + [LabelledText(text, text, group, False) for group in HARMLESS for text in texts[group]]


def labelled_answers(job: AuditJob) -> list[LabelledText]:
    """The answers: texts with planted values of each rule that acts on values, and clean texts.

    Returns:
        [] where the policy has no such rule of which an instance can be made.
    """
    known = {rule.id: rule for rule in job.policy.rules} if can_be_planted(job.scanner) else {}
    unknown = rules_without_instances(job.scanner)
    rules = [
        rule.id
        for rule in known.values()
        if rule.id not in unknown and rule.kind != "injection" and rule.action != "allow"
    ]
    if not rules:
        return []
    times = math.ceil(PLANTED / len(rules))
    made = planted(job.seed, times, rules=rules, providers=job.policy.providers)
    found = [
        LabelledText(f"Here is the file:\n{text}\nDone.", f"{rule} {number}", known[rule].kind, True, value)
        for number, (rule, text, value) in enumerate(made)
    ]
    texts = parse_yaml(TEXTS.read_text(encoding="utf-8"), TEXTS.name)
    return found + [LabelledText(text, text, CLEAN, False) for text in texts[CLEAN]]


def caught(screen: Screen, text: LabelledText) -> bool:
    """Whether the filter acts on a text, and the planted value is gone."""
    screened = screen(text.text)
    return screened.decision != "allow" and (not text.value or text.value not in screened.text)


def recall(screen: Screen, texts: Sequence[LabelledText], confidence: float) -> AuditNumber:
    """Share of the positive texts that are caught; the units of the interval are wordings, not their disguises."""
    positive = [text for text in texts if text.positive]
    sums = unit_sums([[caught(screen, text), 1] for text in positive], [text.unit for text in positive])
    limits = interval(sums, _ratio, resamples=RESAMPLES, confidence=confidence, seed=0, bounds=(0, 1))
    value = float(_ratio(sums.sum(axis=0)))
    return _share(value, limits, len(sums), ALLOWS)


def precision(screen: Screen, texts: Sequence[LabelledText], confidence: float) -> AuditNumber:
    """Share of positive texts among those that the filter acts on, of at most as many positive as other texts.

    Of each unit one text counts, and the disguises take turns. Otherwise an attack in twenty disguises, or twenty
    planted values, would outweigh every false alarm.
    """
    units = [list(group) for _, group in groupby(texts, key=lambda text: text.unit)]
    one = [unit[at % len(unit)] for at, unit in enumerate(units)]
    positive, negative = ([text for text in one if text.positive is label] for label in (True, False))
    positive = positive[:: max(1, math.ceil(len(positive) / max(1, len(negative))))]
    right, wrong = (sum(caught(screen, text) for text in side) for side in (positive, negative))
    if not right + wrong:
        return AuditNumber(value=None, trials=0, unit="share", control=REFUSES, why="the filter acted on no text")
    limits = clopper_pearson(right, right + wrong, confidence=confidence)
    return _share(right / (right + wrong), limits, right + wrong, REFUSES)


def _ratio(sums: Floats) -> Floats:
    ratio: Floats = sums[..., 0] / sums[..., 1]
    return ratio


def _share(value: float, limits: Interval | None, trials: int, control: str) -> AuditNumber:
    low, high, method = (limits.low, limits.high, limits.method) if limits else (None, None, None)
    return AuditNumber(
        value=value, low=low, high=high, method=method, trials=trials, needed=FEWEST, unit="share", control=control
    )


def _numbers(
    job: AuditJob,
    screen_input: Screen,
    screen_output: Screen,
    prompts: Sequence[LabelledText],
    answers: Sequence[LabelledText],
) -> dict[str, AuditNumber]:
    confidence = job.settings.confidence
    known = [text for text in prompts if text.group != REWORDED]
    reworded = [text for text in prompts if text.group == REWORDED]
    harmless = [text for text in prompts if not text.positive]
    numbers: dict[str, AuditNumber] = {}
    if prompts:
        refused = sum(caught(screen_input, text) for text in harmless)
        limits = clopper_pearson(refused, len(harmless), confidence=confidence)
        numbers |= {
            "input_recall": recall(screen_input, known, confidence),
            "input_precision": precision(screen_input, known, confidence),
            "input_false_alarms": _share(refused / len(harmless), limits, len(harmless), REFUSES),
            "reworded_recall": recall(screen_input, reworded, confidence),
        }
    if answers:
        numbers |= {
            "output_recall": recall(screen_output, answers, confidence),
            "output_precision": precision(screen_output, answers, confidence),
        }
    return numbers


def _controls(texts: Sequence[LabelledText]) -> list[Control]:
    """Two filters whose scores are known: they show that the texts can be missed, and can be caught wrongly."""

    def allow(text: str) -> ScreenedText:
        return ScreenedText("allow", text)

    def refuse(text: str) -> ScreenedText:
        return ScreenedText("refuse", "")

    positive = [text for text in texts if text.positive]
    negative = [text for text in texts if not text.positive]
    missed = sum(not caught(allow, text) for text in positive)
    alarms = sum(caught(refuse, text) for text in negative)
    present = sum(text.value in text.text for text in positive)
    return [
        Control(
            name=ALLOWS,
            passed=missed == present == len(positive),
            found=f"{len(positive) - missed} of {len(positive)} positive texts caught, {present} hold their value",
            expected=f"none caught, {len(positive)} hold their value",
            voids=[NAME],
        ),
        Control(
            name=REFUSES,
            passed=alarms == len(negative) >= FEWEST,
            found=f"{alarms} false alarms on {len(negative)} harmless texts",
            expected=f"a false alarm on each, and at least {FEWEST} of them",
            voids=[NAME],
        ),
    ]


def _by_group(job: AuditJob, screen: Screen, texts: Iterable[LabelledText]) -> list[dict[str, Any]]:
    """Per group: how many texts the filter should act on, and on how many it acted."""
    rows: dict[str, list[bool]] = {}
    expected = {}
    for text in texts:
        rows.setdefault(text.group, []).append(caught(screen, text))
        expected[text.group] = "acted on" if text.positive else "allowed"
    shown = []
    for group, acted in rows.items():
        limits = clopper_pearson(sum(acted), len(acted), confidence=job.settings.confidence)
        shown.append(
            {
                "group": group,
                "should be": expected[group],
                "texts": len(acted),
                "acted on": sum(acted),
                "low": round(limits.low, 6),
                "high": round(limits.high, 6),
            }
        )
    return shown
