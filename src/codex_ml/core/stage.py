"""What all stage scripts share: the guard, the parameters, the record, the exit codes.

from codex_ml.core.stage import Stage, run_stage

class Params(Section):
    ingest: Ingest

def main(stage: Stage[Params]) -> None: ...

if __name__ == "__main__":
    run_stage("ingest", main, Params)
"""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Generic, TypeVar

import codex_ml
from codex_ml.core.config import Runtime, Section
from codex_ml.core.error_log import recorded_failures
from codex_ml.core.errors import CheckFailed, UserError, one_line_errors
from codex_ml.core.events import begin_run
from codex_ml.core.io import write_json
from codex_ml.core.loaded_code import refuse_unrecorded, watch
from codex_ml.core.lock import only_one
from codex_ml.core.message_cleaner import POLICY, load_cleaner
from codex_ml.core.network_guard import refuse_network
from codex_ml.core.pipeline import PIPELINE, StageSpec, load_pipeline
from codex_ml.core.planted_files import refuse_planted_files
from codex_ml.core.plugin_lock import lock_path, refuse_other_code
from codex_ml.core.private_data import make_private_cache
from codex_ml.core.progress import Advance, Item, progress, track
from codex_ml.core.publication import publishing
from codex_ml.core.ranks import rank, settle_launcher
from codex_ml.core.record import record_path, start_record
from codex_ml.core.result_sender import send_results
from codex_ml.core.run_events import logged_run
from codex_ml.core.sections import read_sections
from codex_ml.core.side_note import GitState, write_side_note
from codex_ml.core.stage_log import start_log
from codex_ml.core.tree import why_not_traced
from codex_ml.core.variables import FIXED, refuse_prompt

log = logging.getLogger("codex_ml")


Sections = TypeVar("Sections", bound=Section)


@dataclass(frozen=True)
class Stage(Generic[Sections]):
    """A running stage: what it may read, where it may write."""

    spec: StageSpec
    params: Sections  # what the script declares, which is what dvc.yaml declares for this stage
    runtime: Runtime
    record: dict[str, Any]  # reports/<stage>/lineage.json, see codex_ml.core.record

    def dep(self, path: str) -> Path:
        """The path of a dependency that dvc.yaml declares for this stage, or of something inside one.

        Raises:
            UserError: when dvc.yaml does not declare it, or DVC does not hash it.
        """
        self.require(path)
        return Path(path)

    def require(self, path: str) -> None:
        """Check that the stage depends on a path.

        Raises:
            UserError: when DVC would not notice a change there.
        """
        if not self.spec.reads(path):
            raise UserError(
                f"{PIPELINE}: {path} is not a dependency of stage {self.spec.name}; add it to its deps, or DVC will "
                "not notice a change"
            )
        if why := why_not_traced(path, self.spec.deps):
            raise UserError(f"{self.spec.name}: {why}")

    def check_plugins(self, named: Mapping[str, Iterable[str]]) -> None:
        """Check that the plug-ins that the params name (kind -> names) are those that the lock of each kind records.

        Raises:
            UserError: when one is missing or its code has changed; see `codex_ml.core.plugin_lock`.
        """
        for kind, names in named.items():
            refuse_other_code(kind, names, self.dep(str(lock_path(kind))))

    def out(self, path: str) -> Path:
        """A declared output."""
        assert path in self.spec.outs, f"{path} is not an out of {self.spec.name}"
        return Path(path)

    def progress(self, what: str, total: int, unit: str) -> AbstractContextManager[Advance]:
        """Show the progress of a loop in the style of runtime.progress; see `codex_ml.core.progress`."""
        return progress(what, total, unit, style=self.runtime.progress)

    def track(self, items: Iterable[Item], what: str, total: int, unit: str) -> Iterator[Item]:
        """Iterate over `items` and show the progress."""
        return track(items, what, total, unit, style=self.runtime.progress)

    @property
    def metrics(self) -> Path:
        return self.out(f"reports/{self.spec.name}/metrics.json")

    def write_numbers(self, numbers: dict[str, Any], *, compared: Iterable[str]) -> None:
        """Write all numbers to details.json, and the `compared` ones to metrics.json, which `dvc metrics diff` shows.

        Args:
            compared: dotted names; a name that `numbers` lacks is skipped.
        """
        write_json(self.out(f"reports/{self.spec.name}/details.json"), numbers)
        write_json(self.metrics, chosen(numbers, compared))

    def warn(self, warning: str) -> None:
        """Log a warning of this stage; "" is none."""
        if warning:
            log.warning("%s: %s", self.spec.name, warning)

    def announce(self, headlines: Iterable[str]) -> None:
        """Log one line per headline, and give metrics.json to the trackers; one that fails changes nothing."""
        for line in headlines:
            log.info("%s: %s", self.spec.name, line)
        send_results(self.spec.name, self.runtime.trackers)


def chosen(numbers: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """The part of a nested mapping that dotted names choose.

    >>> chosen({"train": {"rows": 3, "fill": 0.9}, "documents": 5}, ["train.rows", "documents", "val.rows"])
    {'train': {'rows': 3}, 'documents': 5}
    """
    result: dict[str, Any] = {}
    for name in names:
        *folders, leaf = name.split(".")
        source, target = numbers, result
        for folder in folders:
            source = source.get(folder, {})
        if leaf in source:
            for folder in folders:
                target = target.setdefault(folder, {})
            target[leaf] = source[leaf]
    return result


def run_stage(
    name: str,
    main: Callable[[Stage[Sections]], None],
    params: type[Sections],
    *,
    network: bool = False,
    prepare: Callable[[], None] | None = None,
    parallel: bool = False,
) -> None:
    """Run a stage script as a Typer command; never returns. The docstring of the script is its help.

    Args:
        params: the sections of params.yaml that the stage reads.
        network: whether the stage may reach other machines.
        prepare: called first, before anything is read or recorded.
        parallel: whether several processes may share the work.
    """
    import typer

    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    about = sys.modules[main.__module__].__doc__ or ""

    @app.command(help=about + "\n\n`dvc repro` runs it. Its settings are in params.yaml, its paths in dvc.yaml.")
    def command(debug: bool = typer.Option(False, "--debug", help="Print the traceback of an error.")) -> None:
        refuse_prompt()
        begin_run()
        with recorded_failures(name), one_line_errors(debug=debug, stage=name):
            settle_launcher(name, parallel=parallel)
            if prepare:
                prepare()
            with _set_up(name, params, network=network) as stage:
                main(stage)

    app()


class _RuntimeOnly(Section):
    runtime: Runtime = Runtime()


@contextmanager
def _set_up(name: str, schema: type[Sections], *, network: bool) -> Iterator[Stage[Sections]]:
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    _assert_own_library()
    os.environ.update(FIXED)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    if not network:
        sys.addaudithook(refuse_network)
    signal.signal(signal.SIGTERM, _terminate)
    params, runtime = checked_params(schema)
    make_private_cache()
    stages = load_pipeline()
    spec = stages.get(name)
    if spec is None:
        raise UserError(f"{PIPELINE} has no stage {name}")
    refuse_planted_files(stages)
    refuse_unrecorded(spec, packages=False)
    watch(spec, guard=None if network else refuse_network)
    if unlike := sorted(set(spec.params) ^ set(schema.model_fields)):
        raise UserError(
            f"{PIPELINE}: stage {name} and {spec.script} declare different params: {', '.join(unlike)}; "
            "`codex-ml check` says which one is wrong"
        )
    with nullcontext() if rank() else only_one(_lock_file(name), name):
        start_log(name, runtime)
        with logged_run(name):
            git = None if rank() else GitState()
            record = start_record(spec, params)
            if git:
                write_json(record_path(name), record)
                write_side_note(name, git, runtime)
            with publishing(load_cleaner()) if spec.reads(POLICY) else nullcontext():
                yield Stage(spec, params, runtime, record)
            refuse_unrecorded(spec)


def checked_params(schema: type[Sections]) -> tuple[Sections, Runtime]:
    """Validate all of params.yaml; return the sections that the stage reads, and `runtime`.

    Raises:
        UserError: the first problem of any section; inside DVC also how to get the outputs back.
    """
    try:
        _validate_all_params()
        return read_sections(schema), read_sections(_RuntimeOnly).runtime
    except UserError as error:
        if "DVC_STAGE" in os.environ:  # DVC removes the outputs before it runs the command
            raise UserError(
                f"{error} (DVC has removed this stage's outputs; mend this, and `dvc repro` brings them back)"
            ) from None
        raise


def _validate_all_params() -> None:
    """Refuse what a later stage would refuse after hours of work: mistakes in its section, sections that disagree.

    The schemas of other stages can only refuse here. So they are not dependencies of this stage, and a change of one
    does not make this stage stale. Their modules are removed from `sys.modules`, so that `refuse_unrecorded`
    sees only what the stage itself imports.
    """
    before = set(sys.modules)
    importlib.import_module("codex_ml.cli.param_rules").load_params()
    importlib.import_module("codex_ml.cli.param_texts").refuse_texts()
    for name in set(sys.modules) - before:
        if name.split(".")[0] == "codex_ml":
            del sys.modules[name]


def _assert_own_library() -> None:
    """Check that the library comes from the checkout that DVC runs in, not from an installed copy."""
    here, library = Path.cwd(), Path(codex_ml.__file__).resolve()
    if not (here / PIPELINE).is_file():
        raise UserError(f"no {PIPELINE} in {here}; run stages from the repository's top folder")
    if not library.is_relative_to((here / "src").resolve()):
        raise CheckFailed(f"the library in use is {library}, not the one of this checkout ({here / 'src'})")


def _terminate(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)  # unwinds, so that temporary files are removed


def _lock_file(name: str) -> Path:
    Path(".cache").mkdir(mode=0o700, exist_ok=True)
    return Path(".cache/locks") / name
