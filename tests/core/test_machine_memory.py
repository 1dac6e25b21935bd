"""The memory that a process may use is that of the machine, within the limits of its control groups."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from codex_ml.core import machine_memory as module
from codex_ml.core.errors import UserError
from codex_ml.core.machine_memory import machine_memory, memory_limits, refuse_too_many
from codex_ml.core.parallel import workers_for
from codex_ml.train import launch


def test_the_limits_of_all_enclosing_control_groups_count(tmp_path: Path) -> None:
    inner = tmp_path / "groups/a/b"
    inner.mkdir(parents=True)
    for place, limit in ((inner, "max"), (inner.parent, "3000000000"), (tmp_path / "groups", "9000000000")):
        (place / "memory.max").write_text(f"{limit}\n")
        (place / "memory.current").write_text("1000000000\n")
    own = tmp_path / "own"
    own.write_text("0::/a/b\n")
    assert memory_limits(tmp_path / "groups", own) == [(3 * 10**9, 10**9), (9 * 10**9, 10**9)]
    assert memory_limits(tmp_path / "none", tmp_path / "none") == []


def test_groups_of_version_1_count_too(tmp_path: Path) -> None:
    place = tmp_path / "groups/memory/jobs"
    place.mkdir(parents=True)
    (place / "memory.limit_in_bytes").write_text("5000000000\n")
    (place / "memory.usage_in_bytes").write_text("1\n")
    own = tmp_path / "own"
    own.write_text("4:cpu,cpuacct:/jobs\n3:memory:/jobs\n")
    assert memory_limits(tmp_path / "groups", own) == [(5 * 10**9, 1)]


@pytest.mark.parametrize(("limit", "expected"), [(None, 10), (8, 9), (99, 10)])
def test_the_smaller_of_machine_and_group_counts_and_swap_is_added(monkeypatch, limit, expected) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=9))
    monkeypatch.setattr(psutil, "swap_memory", lambda: SimpleNamespace(total=1))
    monkeypatch.setattr(module, "memory_limits", lambda *_: [] if limit is None else [(limit, 0)])
    assert machine_memory() == expected


def test_more_processes_than_fit_are_refused_with_the_number_that_fits(monkeypatch) -> None:
    monkeypatch.setattr(module, "machine_memory", lambda: 10 << 30)
    refuse_too_many("runtime.workers", 10, 1 << 30)
    with pytest.raises(UserError) as refused:
        refuse_too_many("runtime.workers", 1024, 24 << 20)
    assert str(refused.value) == (
        "runtime.workers 1024 needs at least 24.0 GiB of memory, 24 MiB for each process, and this machine has 10.0 GiB; use "
        "at most 426"
    )


def test_workers_and_training_processes_are_counted_before_one_starts(monkeypatch) -> None:
    monkeypatch.setattr(module, "machine_memory", lambda: 1 << 30)
    with pytest.raises(UserError, match=r"^runtime.workers 1024 needs at least 24.0 GiB"):
        workers_for(1 << 40, 1024)
    monkeypatch.setattr(launch.subprocess, "Popen", lambda *_, **__: pytest.fail("a process was started"))
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(
        UserError, match=r"^runtime.processes 1024 needs at least 200.0 GiB of memory, 200 MiB for each"
    ):
        launch.launch(1024, threads=2)
