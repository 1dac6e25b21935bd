"""Check params.yaml, dvc.yaml and the workspace before any work is done: without torch, in about a second."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from codex_ml.cli.checks import preflight
from codex_ml.cli.checks.code import code_problems
from codex_ml.cli.checks.data import data_problems
from codex_ml.cli.checks.dvc_state import leftovers
from codex_ml.cli.checks.event_hooks_start import hooks_without_start
from codex_ml.cli.checks.memory_fit import too_large
from codex_ml.cli.checks.named_machinery import named_machinery
from codex_ml.cli.checks.other_code import other_plugins
from codex_ml.cli.history.lost_lines import baselines, lost_in
from codex_ml.cli.history.versions import version_in_folder
from codex_ml.cli.param_rules import Params, load_params
from codex_ml.cli.param_texts import refuse_texts
from codex_ml.core.conflicts import conflicts
from codex_ml.core.errors import UserError
from codex_ml.core.globs import expand_glob
from codex_ml.core.import_graph import ImportGraph, deps_read, params_declared
from codex_ml.core.packages import unlike_the_lock
from codex_ml.core.pipeline import LOCK, PIPELINE, StageSpec, load_lock, load_pipeline
from codex_ml.core.planted_files import refuse_planted_files
from codex_ml.core.sections import PARAMS
from codex_ml.core.yaml import read_yaml
from codex_ml.documents.licence_mistakes import wrong_licences
from codex_ml.safety_audit.accepted import ACCEPTED, read_accepted, refuse_expired
from codex_ml.train.trackers import missing_extras

UNTRACKED_BY_STAGES = {"version", "runtime"}  # they change no byte


def check_workspace() -> Params:
    """Validate params.yaml, dvc.yaml and the workspace of the current folder.

    Raises:
        UserError: the first problem, as one line.
        CheckFailed: when a finding of the audit is accepted by an entry that has expired.
    """
    for problem in conflicts(_tracked()):  # first, because the readers below would report other symptoms
        raise UserError(problem)
    params = load_params()
    refuse_texts()
    stages = load_pipeline()
    refuse_planted_files(stages)
    for problem in problems(params, stages):
        raise UserError(problem)
    if ACCEPTED.exists():  # a workspace without the stage needs none
        refuse_expired(read_accepted(clean=_clean), clean=_clean)
    return params


def _clean(text: str) -> str:
    """A text without what the policy forbids. The policy is loaded only where there is something to say."""
    from codex_ml.cli.measure_model import POLICY
    from codex_ml.policy.cleaner import load_cleaner

    return load_cleaner(*map(Path, POLICY))(text)


def problems(params: Params, stages: dict[str, StageSpec]) -> Iterator[str]:
    """Problems of a workspace whose files are well-formed, one line each."""
    if shutil.which("git") is None:
        yield "git is not installed; DVC needs it"
    yield from leftovers()
    lock = load_lock() if LOCK.exists() else {}
    yield from _commands(stages)
    yield from _parameters(stages)
    yield from preflight.missing_sections(stages, read_yaml(PARAMS))
    yield from _dependencies(stages)
    yield from _run_cache(stages)
    yield from _sources(params, stages)
    licences = wrong_licences(params.split.licences, (source.licence for source in params.ingest.sources))
    yield from (f"{PARAMS}: {mistake}" for mistake in licences)
    yield from data_problems(params, stages)
    yield from code_problems(stages)
    yield from preflight.former_ledger(params)
    yield from preflight.missing_inputs(stages)
    yield from preflight.base_files(params)
    yield from preflight.benchmarks(params)
    yield from preflight.baseline(params)
    yield from preflight.metrics(params)
    yield from preflight.quantization(params)
    yield from preflight.home()
    yield from preflight.hardware(params)
    yield from too_large(params)
    yield from named_machinery(params)
    yield from preflight.edited_files(params, lock)
    yield from lost_in(version_in_folder(), baselines(), salt=params.split.salt)
    yield from other_plugins(params, lock)
    yield from (f"{PARAMS}: {problem}" for problem in missing_extras(params.runtime))
    yield from (f"{PARAMS}: {problem}" for problem in hooks_without_start(params.runtime.on_event))
    yield from unlike_the_lock()
    yield from _git(stages)


def _tracked() -> list[str]:
    """Files below the current folder that Git tracks; none outside of Git."""
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], capture_output=True, check=False)
    except FileNotFoundError:  # `problems` says so
        return []
    return [name for name in listed.stdout.decode("utf-8", "surrogateescape").split("\0") if name]


def _commands(stages: dict[str, StageSpec]) -> Iterator[str]:
    for spec in stages.values():
        if spec.cmd != f"python -P {spec.script}":
            # DVC pastes ${...} into a shell command: a parameter from a pull request would be code
            yield f"{PIPELINE}: the cmd of {spec.name} must be exactly `python -P {spec.script}`; found `{spec.cmd}`"
        elif not Path(spec.script).is_file():
            yield f"{PIPELINE}: stage {spec.name} has no script {spec.script}"


def _parameters(stages: dict[str, StageSpec]) -> Iterator[str]:
    sections = set(Params.model_fields)
    declared = {param.split(".")[0] for spec in stages.values() for param in spec.params}
    for spec in stages.values():
        own = set(spec.params)
        if unknown := sorted(own - sections):
            yield f"{PIPELINE}: stage {spec.name} declares the param {unknown[0]}, which {PARAMS} does not have"
        if forbidden := sorted(own & UNTRACKED_BY_STAGES):
            name = forbidden[0]
            yield f"{PIPELINE}: stage {spec.name} declares the param {name}, whose keys change no byte; remove it"
        read = params_declared(Path(spec.script))
        if undeclared := sorted(read - own):
            yield f"{PIPELINE}: stage {spec.name} lacks the param {undeclared[0]}, which {spec.script} declares; add it"
        if unused := sorted(own - read):
            yield f"{PIPELINE}: stage {spec.name} declares the param {unused[0]}, which {spec.script} does not"
    for section in sorted(sections - declared - UNTRACKED_BY_STAGES):
        yield f"{PARAMS}: no stage reads {section}; remove it or declare it in {PIPELINE}"


def _dependencies(stages: dict[str, StageSpec]) -> Iterator[str]:
    imports = ImportGraph()
    for spec in stages.values():
        needed = {spec.script, *imports.folders(Path(spec.script))}
        if missing := sorted(needed - set(spec.deps)):
            yield f"{PIPELINE}: stage {spec.name} imports from {missing[0]}, which is not in its deps; add it"
        if named := sorted(path for path in deps_read(Path(spec.script)) if not spec.reads(path)):
            yield f"{PIPELINE}: stage {spec.name} reads {named[0]}, which is not in its deps; add it"
        if extra := sorted(set(spec.code) - needed):
            yield f"{PIPELINE}: stage {spec.name} lists {extra[0]} in deps but does not import it"


def _sources(params: Params, stages: dict[str, StageSpec]) -> Iterator[str]:
    ingest = stages.get("ingest")
    for number, source in enumerate(params.ingest.sources):
        if ingest and not any(Path(source.path).is_relative_to(dep) for dep in ingest.deps):
            yield (
                f"{PARAMS}: ingest.sources.{number}.path {source.path} is not inside a dependency of stage ingest; "
                f"put the data under data/raw or add the path to its deps in {PIPELINE}"
            )
        sample = Path(source.path).is_relative_to("data/raw/sample")
        if sample and not params.fetch.sample:
            yield f"{PARAMS}: ingest.sources.{number} reads the sample, but fetch.sample is false; name your own data"
        elif not sample and not Path(source.path).exists():
            yield from _glob(f"{PARAMS}: ingest.sources.{number}.path {source.path}", source.path)


def _glob(key: str, pattern: str) -> Iterator[str]:
    """A path that does not exist is a glob, as `ingest` reads it."""
    try:
        if not any(expand_glob(pattern)):
            yield f"{key} does not exist; put the data there"
    except ValueError as error:
        yield f"{key} is not a valid glob: {error}"


def _git(stages: dict[str, StageSpec]) -> Iterator[str]:
    """Outputs that Git tracks too: they make DVC fail after the stage has run, hours later."""
    outs = [out for spec in stages.values() for out in spec.outs if out not in spec.uncached]
    tracked = {folder for name in _tracked() for folder in (name, *map(str, Path(name).parents))}
    if both := [out for out in outs if str(Path(out)) in tracked]:
        yield (
            f"Git tracks {both[0]}, which is an output in DVC's cache, so DVC would fail after the stage has run; run "
            f"`git rm -r --cached {shlex.join(both)}`"
        )


def _run_cache(stages: dict[str, StageSpec]) -> Iterator[str]:
    """Outputs that turn DVC's run cache off for a stage (dvc/stage/__init__.py, no_cache_outs): it then always runs."""
    for spec in stages.values():
        for out in sorted(spec.plain_uncached):
            yield (
                f"{PIPELINE}: output {out} of stage {spec.name} has `cache: false` and is neither a metric nor a plot, "
                "so DVC would never restore the stage from its run cache; remove `cache: false`"
            )
