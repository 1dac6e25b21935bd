"""The schema of data/policy.yaml: what a rule finds, how a hit is confirmed, how bad it is, and what happens to it.

The file is one readable list of rules. This module reads it and reports the first mistake in it as one line. scan.py
runs the rules. Used by: split, safety_audit, the Git hooks, `codex-ml check` and `codex-ml policy`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from codex_ml.core.errors import UserError
from codex_ml.core.problems import Problem, dotted, first_problem
from codex_ml.core.yaml import line_of, parse_yaml
from codex_ml.policy.backtracking import explodes, is_slow, rereads
from codex_ml.policy.filter_rules import FilterRules
from codex_ml.policy.gate_rules import GateRule
from codex_ml.policy.names import name_literals
from codex_ml.policy.providers import Action, Provider, Severity
from codex_ml.policy.validators import VALIDATORS

POLICY = Path("data/policy.yaml")
MAX_WINDOW = 1000  # characters; a wider window would make frequent literals slow

Kind = Literal["secret", "personal", "injection"]
Text = Annotated[str, Field(min_length=1, max_length=4000)]
Name = Annotated[str, Field(pattern=r"\S", max_length=200)]


class _Strict(BaseModel):
    """Unknown keys and silent conversions are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Rule(_Strict):
    """One kind of text that must not be trained on or emitted, or that is only reported.

    A rule is tried only where one of its `literals` occurs, or where its `gate` matches. Then `pattern` decides, then
    `min_entropy`, `validator` and the exceptions. The value is the named group `value`, else group 1, else the whole
    match. A redaction replaces the value only.
    """

    id: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{1,39}$")] = Field(description="Unique name, in placeholders too")
    description: Text = Field(description="What it finds, for people")
    kind: Kind = Field(
        description="secret: a credential; personal: data about a person; injection: an order to a model"
    )
    severity: Severity = Field(description="critical: any reader can use it; high: a secret or a person's number")
    action: Action = Field(description="redact: replace the value; block: drop the document; allow: report only")
    names: tuple[Text, ...] = Field((), description="Lists of `names`: the pattern begins after one, in any case")
    literals: tuple[Text, ...] = Field((), description="The rule is tried where one of these texts occurs")
    ignore_case: bool = Field(False, description="Match literals and pattern in any case")
    gate: Text | None = Field(
        None, description="A cheap expression, run at each literal, or over the whole text without literals"
    )
    before: int = Field(
        0, ge=0, le=MAX_WINDOW, description="A match may begin up to this many characters before the literal"
    )
    after: int = Field(
        300, ge=1, le=MAX_WINDOW, description="With `before`: a match may end up to this many characters after it"
    )
    pattern: Text = Field(description="Regular expression, or a list of its pieces; begins at the literal or gate")
    run: Text | None = Field(None, description="Expression for one character: the value continues while it matches")
    many: bool = Field(False, description="The value may be the first one of a list or table: find the others")
    until: Text | None = Field(None, description="Expression that must match directly after the value (after `run`)")
    edge: str = Field("A-Za-z0-9_", max_length=80, description="Characters that must not touch the value; '' for none")
    min_entropy: float = Field(
        0.0, ge=0, le=8, description="Smallest Shannon entropy of the value, in bits per character"
    )
    validator: str | None = Field(None, description="Check of the value: luhn, iban, public-ip, jwt, ...")
    allow: tuple[Text, ...] = Field((), description="Exceptions: expressions searched in the value")
    allow_before: tuple[Text, ...] = Field(
        (), description="Exceptions searched in the 100 characters of the line before the value"
    )
    allow_after: tuple[Text, ...] = Field((), description="Exceptions matched directly after the value")

    @field_validator("pattern", mode="before")
    @classmethod
    def _join(cls, value: Any) -> Any:
        return "".join(value) if isinstance(value, tuple) and all(isinstance(piece, str) for piece in value) else value

    @field_validator("validator")
    @classmethod
    def _validator_exists(cls, name: str | None) -> str | None:
        if name is not None and name not in VALIDATORS:
            near = difflib.get_close_matches(name, VALIDATORS, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(sorted(VALIDATORS))}"
            raise ValueError(f"no validator is called {name!r}{hint}")
        return name

    @field_validator("pattern", "gate", "run", "until", "allow", "allow_before", "allow_after")
    @classmethod
    def _compiles(cls, value: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        for expression in (value,) if isinstance(value, str) else value or ():
            _compile_bounded(expression)
        return value

    @field_validator("pattern", "gate", "run")
    @classmethod
    def _needs_text(cls, expression: str | None) -> str | None:
        if expression is not None and re.search(expression, ""):
            raise ValueError("it matches the empty text, so it would match everywhere")
        return expression

    @field_validator("edge")
    @classmethod
    def _is_a_class(cls, edge: str) -> str:
        compile_expression(f"[{edge}]" if edge else "")
        return edge

    @model_validator(mode="after")
    def _has_a_gate(self) -> Rule:
        if not self.literals and not self.gate and not self.names:
            raise ValueError("`names`, `literals` or `gate` must say where the pattern is tried; give one of them")
        if self.many and not self.names:
            raise ValueError("`many` needs `names`: a list is looked for after a name only")
        if self.names and (self.literals or self.gate or self.before):
            raise ValueError("a rule with `names` has no `literals`, `gate` or `before`: it begins after a name")
        return self

    @model_validator(mode="after")
    def _reads_a_line_once(self) -> Rule:
        for key, expression in (("pattern", self.pattern), ("gate", self.gate or "")):
            if rereads(expression, () if self.before else self.literals):
                raise ValueError(
                    f"`{key}` can read the rest of a line again from each of many places, as key.*end does; limit "
                    "the repetition, key.{0,200}end, or let `run` continue the value"
                )
        return self

    def after_names(self, lists: dict[str, tuple[str, ...]]) -> Rule:
        """The rule with the names of its lists as literals."""
        words = [word for name in self.names for word in lists[name]]
        return self.model_copy(update={"literals": name_literals(words)}) if words else self


class Policy(_Strict):
    """The whole of data/policy.yaml. Where two findings of one action and length overlap, the earlier rule wins.

    `parse_policy` puts a rule for each provider before the rules of the file, because these rules are more specific
    than `assigned-secret`.
    """

    version: Literal[1] = 1
    detectors: tuple[Text, ...] = Field((), description="Names of installed `codex_ml.detectors` entry points to run")
    allow: tuple[Text, ...] = Field((), description="Exceptions searched in the value of every rule of kind secret")
    names: dict[str, Annotated[tuple[Name, ...], Field(min_length=1)]] = Field(
        {}, description="Lists of names after which a value is a secret"
    )
    providers: tuple[Provider, ...] = Field((), description="Tokens that begin with a fixed prefix")
    rules: tuple[Rule, ...] = Field(min_length=1)
    filters: FilterRules = Field(FilterRules(), description="What happens at run time to prompts and answers")
    gates: tuple[GateRule, ...] = Field((), description="Limits for the numbers of the safety audit")

    @field_validator("allow")
    @classmethod
    def _compiles(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for expression in value:
            _compile_bounded(expression)
        return value

    @model_validator(mode="after")
    def _lists_exist(self) -> Policy:
        for rule in self.rules:
            for name in rule.names:
                if name not in self.names:
                    known = ", ".join(sorted(self.names)) or "none"
                    raise ValueError(f"rule {rule.id}: `names` has no list {name!r}; there is {known}")
        return self

    def only(self, *, kinds: Collection[Kind], severities: Collection[Severity] = get_args(Severity)) -> Policy:
        """A copy with the rules of these kinds and severities only, for a check that stops people."""
        kept = tuple(rule for rule in self.rules if rule.kind in kinds and rule.severity in severities)
        return self.model_copy(update={"rules": kept})


# Fields of the entries of the lists, what people call an entry, and the key that names it
ENTRIES: dict[Any, tuple[dict[str, Any], str, str]] = {
    "rules": (Rule.model_fields, "rule", "id"),
    "providers": (Provider.model_fields, "rule", "id"),
    "gates": (GateRule.model_fields, "gate", "number"),
}


def compile_expression(expression: str, flags: int = 0) -> re.Pattern[str]:
    """Compile a regular expression.

    Raises:
        ValueError: says what is wrong with the expression, and where.
    """
    try:
        return re.compile(expression, flags)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"the regular expression is wrong: {error}") from None


@lru_cache(maxsize=512)  # a third of the expressions of a policy occur twice
def _compile_bounded(expression: str) -> None:
    """Compile a regular expression whose time cannot explode; raises as `compile_expression`."""
    compile_expression(expression)
    if explodes(expression):
        raise ValueError(
            "the time of the regular expression can explode: a group that repeats can read one text in several ways, "
            "as in (a+)+; make the repetition possessive, (a+)++, or end each round with a character of its own, (a+,)+"
        )
    if is_slow(expression):
        raise ValueError(
            "the regular expression can take too many steps: several repetitions can share one text, as in x.*y.*z; "
            "limit them, x.{0,80}y.{0,80}z, or make them possessive where nothing is given back, [^;]*+;"
        )


def load_policy(path: Path = POLICY) -> Policy:
    """Read and validate a policy file.

    Raises:
        UserError: for the first mistake, as one line: file, line, rule, what was found, what is allowed.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path} is missing; take it from the repository, `git checkout {POLICY}`") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (byte {error.start})") from None
    return parse_policy(text, name=str(path))


@lru_cache(maxsize=1)  # `codex-ml check` asks for the same one three times
def parse_policy(text: str, *, name: str = str(POLICY)) -> Policy:
    """Parse and validate the text of a policy; raises as `load_policy`."""
    value = parse_yaml(text, name)
    if not isinstance(value, dict):
        raise UserError(f"{name}: expected a mapping with the key `rules`, found {type(value).__name__}")
    try:
        policy = Policy.model_validate(_tuples(value))
    except ValidationError as error:
        problem = first_problem(error)
        where = _where(text, name, problem.place)
        raise UserError(f"{where}: {_explain(value, problem)}{problem.more}") from None
    seen: dict[str, tuple[str, int, str]] = {}
    ids = [("providers", number, provider.id) for number, provider in enumerate(policy.providers)]
    for section, number, rule_id in [*ids, *(("rules", number, rule.id) for number, rule in enumerate(policy.rules))]:
        place = (section, number, "id")
        if rule_id in seen:
            first_line = line_of(text, seen[rule_id])
            where = _where(text, name, place)
            raise UserError(f"{where}: rule {rule_id}: the id is taken by the rule of line {first_line}")
        seen[rule_id] = place
    _refuse_equal_gates(text, name, policy)
    made = tuple(Rule.model_validate(provider.as_rule()) for provider in policy.providers)
    own = tuple(rule.after_names(policy.names) for rule in policy.rules)
    return policy.model_copy(update={"rules": made + own})


def _refuse_equal_gates(text: str, name: str, policy: Policy) -> None:
    seen = set[tuple[str, str]]()
    for number, gate in enumerate(policy.gates):
        if (gate.number, gate.compare) in seen:
            where = _where(text, name, ("gates", number, "number"))
            raise UserError(f"{where}: gate {gate.number}: a gate above it compares the {gate.compare} of that number")
        seen.add((gate.number, gate.compare))


def _tuples(value: Any) -> Any:
    """Turn lists into tuples: strict validation accepts only a tuple for a tuple field."""
    if isinstance(value, dict):
        return {key: _tuples(child) for key, child in value.items()}
    return tuple(_tuples(child) for child in value) if isinstance(value, list) else value


def _where(text: str, name: str, place: tuple[str | int, ...]) -> str:
    line = line_of(text, place)
    return f"{name}:{line}" if line else name


def _explain(value: Any, problem: Problem) -> str:
    place, rule = problem.place, ""
    fields: dict[str, Any] = Policy.model_fields
    if len(place) > 1 and place[0] in ENTRIES:
        number = int(place[1])
        entry, (fields, what, key) = value[place[0]][number], ENTRIES[str(place[0])]
        label = (entry.get(key) if isinstance(entry, dict) else None) or f"number {number + 1}"
        rule, place = f"{what} {str(label)[:40]}: ", place[2:]
    key = dotted(place)
    if problem.kind == "extra_forbidden":
        near = difflib.get_close_matches(key, fields, n=1)
        return f"{rule}{key} is not a key of {'a ' + rule.split()[0] if rule else 'the policy'}" + (
            f"; did you mean {near[0]}?" if near else ""
        )
    if problem.kind == "missing":
        return f"{rule}the key {key} is missing"
    return rule + replace(problem, place=place).line
