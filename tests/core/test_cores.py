"""Cores are those that a process may run on, limited by the quotas of its control groups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from codex_ml.core import cores as module
from codex_ml.core.cores import cores, quotas

V1, V2 = "4:cpu,cpuacct:{}\n3:cpuset:/other\n1:name=systemd:/\n", "0::{}\n"
V1_FILES = {"cpu.cfs_quota_us": "{}\n", "cpu.cfs_period_us": "100000\n"}


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """machine(own, files, allowed=...) -> what `cores` says on a machine with these control groups."""

    def on(own: str, files: dict[str, str], allowed: int = 64) -> int:
        (tmp_path / "self").write_text(own)
        for name, content in files.items():
            file = tmp_path / "groups" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
        monkeypatch.setattr(module, "GROUPS", tmp_path / "groups")
        monkeypatch.setattr(module, "OWN_GROUPS", tmp_path / "self")
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(allowed)), raising=False)
        return cores()

    return on


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("max 100000", 64), ("200000 100000", 2), ("150000 100000", 2), ("50000 100000", 1), ("1000 100000", 1),
     ("6400000 100000", 64), ("9900000 100000", 64), ("300000 50000", 6)],
)  # fmt: skip
def test_a_quota_of_version_2_limits_the_cores_and_a_part_of_one_counts_as_one(machine, quota, expected):
    assert machine(V2.format("/"), {"cpu.max": f"{quota}\n"}) == expected


@pytest.mark.parametrize(("quota", "expected"), [(-1, 64), (200_000, 2), (150_000, 2), (10_000, 1), (9_900_000, 64)])
@pytest.mark.parametrize("mount", ["cpu,cpuacct", "cpu"])
def test_a_quota_of_version_1_does_the_same(machine, mount, quota, expected):
    files = {f"{mount}/jobs/one/{name}": text.format(quota) for name, text in V1_FILES.items()}
    assert machine(V1.format("/jobs/one"), files) == expected


@pytest.mark.parametrize("text", ["", "max", "max max", "0 100000", "100000 0", "-1 100000", "150000", "x y", "1e5 1e5",
                                  "\x00\xff", "9" * 30 + " 1"])  # fmt: skip
def test_a_text_that_is_no_quota_limits_nothing(machine, text):
    assert machine(V2.format("/") + "no group\n", {"cpu.max": text}) == 64
    files = {"cpu/cpu.cfs_quota_us": text.partition(" ")[0], "cpu/cpu.cfs_period_us": text.partition(" ")[2]}
    assert machine(V1.format("/"), files) == 64


def test_the_smallest_quota_of_the_groups_around_counts(machine):
    files = {"cpu.max": "max 100000", "a/cpu.max": "300000 100000", "a/b/cpu.max": "800000 100000"}
    assert machine(V2.format("/a/b"), files) == 3
    assert machine(V2.format("/a"), files) == 3
    assert machine(V2.format("/"), files) == 64


def test_the_cores_that_a_process_may_run_on_stay_the_upper_bound(machine):
    assert machine(V2.format("/"), {"cpu.max": "800000 100000"}, allowed=3) == 3


@pytest.mark.parametrize("path", ["/docker/0123", "/../outside", "/a:b"])
def test_inside_a_container_the_mount_is_its_own_group(machine, path):
    """Its name outside may be told, and nothing of that name is there."""
    assert machine(V2.format(path), {"cpu.max": "400000 100000"}) == 4
    files = {f"cpu,cpuacct/{name}": text.format(200_000) for name, text in V1_FILES.items()}
    assert machine(V1.format(path), files) == 2


def test_both_versions_at_once(machine):
    files = {"unified/cgroup.procs": "1", **{f"cpu/{name}": text.format(500_000) for name, text in V1_FILES.items()}}
    assert machine(V1.format("/") + V2.format("/"), files) == 5


def test_this_machine_has_a_core():
    assert cores() >= 1


def test_without_control_groups_the_cores_are_those_of_the_system(machine, tmp_path, monkeypatch):
    assert machine("", {}) == 64
    assert machine(V2.format("/"), {}) == 64
    assert list(quotas(tmp_path / "no", tmp_path / "file")) == []
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores() == 1


def test_no_other_module_counts_cores(repository):
    sources = [*(repository / "src").rglob("*.py"), *(repository / "stages").glob("*.py")]
    counting = {
        path.relative_to(repository).as_posix()
        for path in sources
        if any(word in path.read_text() for word in ("sched_getaffinity", "cpu_count"))
    }
    assert counting == {Path(module.__file__).relative_to(repository).as_posix()}
