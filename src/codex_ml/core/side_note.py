"""The side note of a stage's last run: what differs between machines and times, beside the record of its inputs.

logs/environment/<stage>.json holds the run id, the commit, every installed distribution, CPU, GPUs and driver, and how
the run resolved its hardware. It names the record (reports/<stage>/lineage.json) by its SHA-256. Nothing depends on it:
it is neither output nor dependency.

Used by: core.stage (writes it), modeling.hardware, train (add to it), `codex-ml lineage` (reads it).
"""

from __future__ import annotations

import logging
import os
import platform
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field

from codex_ml.core.config import TRACKERS, Runtime
from codex_ml.core.contract import Contract
from codex_ml.core.cores import cores
from codex_ml.core.errors import UserError, one_line
from codex_ml.core.events import run_id
from codex_ml.core.folders import logs_folder
from codex_ml.core.hashing import sha256_of
from codex_ml.core.packages import installed_versions
from codex_ml.core.plugin_lock import code_digest
from codex_ml.core.record import record_path

log = logging.getLogger("codex_ml")
NOTE_SCHEMA: Final = "codex-ml/environment/1"
GIT_SECONDS = 10.0
NVIDIA = Path("/proc/driver/nvidia")  # of the kernel module; to read it needs no library


class PluginCode(Contract):
    """Code of another package that the run calls and that decides no byte of its outputs: a hook or a tracker.

    Attributes:
        kind: of `core.plugins.KINDS`.
        sha256: of its code when the run began; "" where it was not found.
    """

    kind: str
    name: str
    sha256: str


class SideNote(Contract):
    """logs/environment/<stage>.json.

    Attributes:
        record: SHA-256 of the record that the run wrote.
        commit, dirty: of the checkout when the run began, and whether tracked files differed; None without Git.
        packages: every distribution that Python would import, with its version.
        driver: the first line that NVIDIA's driver says about itself; "" without one.
        plugins: hooks and trackers of other packages, which have no lock.
        resolved: how the run resolved `auto`: device, precision, compile, attention, and the recipe of a training.
    """

    format: Literal["codex-ml/environment/1"] = Field(alias="schema")
    run: str
    stage: str
    record: str
    commit: str | None
    dirty: bool | None
    python: str
    system: str
    cpu: str
    cores: int
    gpus: list[str]
    driver: str
    packages: dict[str, str]
    resolved: dict[str, Any]
    plugins: list[PluginCode] = Field(default_factory=list)


_current: list[tuple[Path, SideNote]] = []  # of the run in this process


def side_note_path(stage: str) -> Path:
    """Path of the side note of a stage's last run."""
    return logs_folder() / "environment" / f"{stage}.json"


def read_side_note(stage: str) -> SideNote | None:
    """The side note that belongs to the record in the workspace; None where there is none.

    A note of another run of the stage does not count, for example where DVC restored the outputs from its cache.
    """
    try:
        note = SideNote.read(side_note_path(stage), stage=stage)
        return note if note.record == sha256_of(record_path(stage)) else None
    except (UserError, OSError):
        return None


class GitState:
    """Asks Git for commit and changes in a process of its own, while the stage hashes its dependencies."""

    def __init__(self) -> None:
        self._process = None
        command = ["git", "status", "--porcelain=v2", "--branch", "--untracked-files=no"]
        environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}  # DVC may use the index at the same time
        with suppress(OSError):
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
            )

    def read(self) -> tuple[str | None, bool | None]:
        """(commit, whether tracked files differ from it); None without Git or without a commit."""
        if self._process is None:
            return None, None
        try:
            printed = self._process.communicate(timeout=GIT_SECONDS)[0].decode("utf-8", "replace")
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            return None, None
        commit = re.search(r"^# branch\.oid ([0-9a-f]{40,64})$", printed, re.MULTILINE)
        if commit is None:
            return None, None
        return commit[1], any(line and not line.startswith("#") for line in printed.splitlines())


def write_side_note(stage: str, git: GitState, runtime: Runtime | None = None) -> None:
    """Write the side note of the run that begins; a disk error is logged and changes nothing.

    Args:
        runtime: names the hooks and trackers that the run calls.
    """
    commit, dirty = git.read()
    note = SideNote(
        format=NOTE_SCHEMA,
        run=run_id(),
        stage=stage,
        record=sha256_of(record_path(stage)),
        commit=commit,
        dirty=dirty,
        python=f"{platform.python_implementation()} {sys.version.split()[0]}",
        system=platform.platform(),
        cpu=_cpu(),
        cores=cores(),
        gpus=_gpus(),
        driver=_first_line(NVIDIA / "version"),
        packages=dict(sorted(installed_versions().items())),
        resolved={},
        plugins=_plugins(stage, runtime or Runtime()),
    )
    _current[:] = [(side_note_path(stage), note)]
    _write()


def _plugins(stage: str, runtime: Runtime) -> list[PluginCode]:
    called = [("hooks", hook.plugin) for hook in runtime.on_event if hook.plugin]
    called += [("trackers", name) for name in runtime.trackers if stage == "train" and name not in TRACKERS]
    return [PluginCode(kind=kind, name=name, sha256=code_digest(kind, name)) for kind, name in sorted(set(called))]


def note_resolved(**values: Any) -> None:
    """Add to the side note of the run in this process how it resolved something; without a run, do nothing.

    Args:
        values: JSON values.
    """
    if _current:
        path, note = _current[0]
        resolved = {**note.resolved, **values}
        if resolved != note.resolved:
            _current[0] = (path, note.model_copy(update={"resolved": resolved}))
            _write()


def run_tags(seed: int) -> dict[str, str]:
    """What other tools find the run of this process by; see `tags_of`."""
    return tags_of(_current[0][1] if _current else None, seed=seed)


def tags_of(note: SideNote | None, *, seed: int) -> dict[str, str]:
    """What other tools find a run by: run id, experiment ("workspace" outside one), seed and commit, as texts."""
    experiment = os.environ.get("DVC_EXP_NAME") or "workspace"
    run = note.run if note else run_id()
    return {"run": run, "experiment": experiment, "seed": str(seed), "commit": commit_of(note)}


def commit_of(note: SideNote | None) -> str:
    """The commit of a run, with "+changes" where tracked files differed from it; "none" where it is not known."""
    return (note.commit or "none") + ("+changes" if note.dirty else "") if note else "none"


def forget_side_note() -> None:
    """End the run of this process."""
    _current.clear()


def _write() -> None:
    path, note = _current[0]
    try:
        note.write(path)
    except OSError as error:
        log.warning(
            "%s: the side note %s could not be written (%s)", note.stage, os.path.relpath(path), one_line(error)
        )


def _cpu() -> str:
    text = ""
    with suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")[:10_000]
    named = re.search(r"^(?:model name|Model)\s*: (.+)$", text, re.MULTILINE)
    return named[1].strip() if named else platform.processor() or platform.machine()


def _gpus() -> list[str]:
    found = []
    with suppress(OSError):
        for file in sorted((NVIDIA / "gpus").glob("*/information")):
            named = re.search(r"^Model:\s*(.+)$", file.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
            found.append(named[1].strip() if named else "unknown")
    return found


def _first_line(file: Path) -> str:
    with suppress(OSError):
        return next(iter(file.read_text(encoding="utf-8", errors="replace").splitlines()), "")
    return ""
