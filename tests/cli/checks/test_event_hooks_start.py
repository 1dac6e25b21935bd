"""`codex-ml check` names the hooks that would fail at every event."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from codex_ml.cli.checks.event_hooks_start import hooks_without_start
from codex_ml.cli.checks.workspace import problems
from codex_ml.cli.param_rules import validate_params
from codex_ml.core.config import Runtime
from codex_ml.core.pipeline import load_pipeline


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with a hook that works, one whose module raises, and one that cannot be called."""
    site = tmp_path / "site"
    (site / "alerts-1.0.dist-info").mkdir(parents=True)
    (site / "alerts-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: alerts\nVersion: 1.0\n")
    points = "[codex_ml.hooks]\ngood = good_alerts:send\nbroken = broken_alerts:send\nnumber = good_alerts:NUMBER\n"
    (site / "alerts-1.0.dist-info/entry_points.txt").write_text(points)
    (site / "good_alerts.py").write_text("NUMBER = 1\ndef send(event): pass\n")
    (site / "broken_alerts.py").write_text("import no_such_module\n")
    monkeypatch.syspath_prepend(str(site))
    return site


def said(*hooks: dict[str, object]) -> list[str]:
    return list(hooks_without_start(Runtime.model_validate({"on_event": hooks}).on_event))


def test_a_plugin_that_cannot_be_used_is_named_and_not_imported_here(site: Path) -> None:
    assert said({"plugin": "good"}, {"plugin": "broken"}, {"plugin": "number"}) == [
        "runtime.on_event.1.plugin: broken cannot be used: ModuleNotFoundError: No module named 'no_such_module'; mend or "
        "remove the hook",
        "runtime.on_event.2.plugin: number cannot be used: must be a callable, found int; mend or remove the hook",
    ]
    assert not {"good_alerts", "broken_alerts"} & set(sys.modules)


def test_a_program_that_is_not_there_or_not_executable_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, mode in (("mail", 0o755), ("text", 0o644)):
        Path(name).write_text("#!/bin/sh\n")
        Path(name).chmod(mode)
    Path("folder").mkdir()
    monkeypatch.setenv("PATH", f"/nowhere{os.pathsep}{os.environ['PATH']}")
    commands = (
        ["sh", "x"],
        ["./mail"],
        [sys.executable],
        ["nosuchprog"],
        ["mail-x"],
        ["./text"],
        ["./folder"],
        ["a\0b"],
    )
    lines = said(*({"command": list(command)} for command in commands))
    assert [line.partition(";")[0] for line in lines] == [
        "runtime.on_event.3.command: there is no program nosuchprog",
        "runtime.on_event.4.command: there is no program mail-x",
        "runtime.on_event.5.command: there is no program ./text",
        "runtime.on_event.6.command: there is no program ./folder",
        "runtime.on_event.7.command: there is no program a\0b",
    ]


def test_check_says_so_with_the_name_of_the_file(workspace: Path) -> None:
    params = validate_params({"runtime": {"on_event": [{"command": ["nosuchprog"]}]}})
    told = [problem for problem in problems(params, {"fetch": load_pipeline()["fetch"]}) if "on_event" in problem]
    assert told == [
        "params.yaml: runtime.on_event.0.command: there is no program nosuchprog; install it, or write its path from the "
        "top of the repository and make it executable"
    ]
