"""A rung is used only if the probe cannot break out of it; without a safe rung, generated programs do not run."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from codex_ml.core.errors import CheckFailed, UserError
from codex_ml.evaluate.config import Code
from codex_ml.sandbox import breakout, ladder
from codex_ml.sandbox.judge import run_trials
from codex_ml.sandbox.ladder import RUNGS, Sandbox, check, open_sandbox
from codex_ml.sandbox.trial import ProgramLimits, Trial

TRIAL = Trial("", "def f(): return 1", "assert f() == 1", ("f",))


def wheel() -> Sandbox:
    try:
        return open_sandbox("bwrap-wheel")
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture
def room() -> Iterator[Path]:
    """A folder that nobody can enter and execute files in; /tmp is hidden from the supervisor of root."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def weakened(room: Path, change: str) -> Sandbox:
    """The wheel's bubblewrap behind a script that changes its arguments; `change` is a case of a shell script."""
    sandbox = wheel()
    assert sandbox.bwrap
    real = shutil.copy(sandbox.bwrap, room / "real")
    script = room / "bwrap"
    script.write_text(f"""#!/bin/sh
for word; do
  shift
  case "$word" in
    {change}
    *) set -- "$@" "$word";;
  esac
done
exec {real} "$@"
""")
    script.chmod(0o755)
    return replace(sandbox, bwrap=str(script))


def test_a_script_that_changes_nothing_withstands_the_probe(room: Path) -> None:
    check(weakened(room, "nothing) ;;"))


@pytest.mark.parametrize(
    ("change", "escaped"),
    [
        ("--unshare-all) set -- \"$@\" --unshare-user --unshare-net;;", "signal_the_supervisor"),
        ("--remount-ro) skip=1;; /) ;;", "write_to_the_root"),
        ("--seccomp) set -- \"$@\" --sync-fd;;", "make_a_socket, make_a_namespace"),
        ("--dev-bind) set -- \"$@\" --ro-bind /etc /etc --dev-bind;;", "read_passwords"),
        ("--dev-bind) set -- \"$@\" --ro-bind /var/tmp /var/tmp --dev-bind;;", "read_a_file, list_the_folder"),
    ],
)  # fmt: skip
def test_the_probe_finds_each_hole(room: Path, change: str, escaped: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(room))  # the bait
    with pytest.raises(CheckFailed, match=f"^the probe broke out: {escaped}$"):
        check(weakened(room, change))


def test_a_variable_of_the_parent_stops_the_start(room: Path) -> None:
    with pytest.raises(CheckFailed, match=r"^it does not start: the environment is not empty$"):
        check(weakened(room, '--clearenv) set -- "$@" --setenv TOKEN 1;;'))


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("", "the probe did not end (no message)"),
        ("print('fine')", "the probe did not end (fine)"),
        ("print('{}')", "the probe did not end ({})"),
        ("print('[]')", "the probe did not end ([])"),
        ("while True: print(1)", "the probe did not end (output)"),
        ("import os; os.kill(os.getpid(), 9)", "the probe did not end (no message)"),
        ("print('{\"tried\": 3, \"escaped\": [], \"user\": 7}')", f"the probe made 3 of its {breakout.ATTEMPTS} attempts"),
        (f"print('{{\"tried\": {breakout.ATTEMPTS}, \"escaped\": [], \"user\": 0}}')", "the probe broke out: it runs as root"),
    ],
)  # fmt: skip
def test_the_probe_fails_closed(program: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = wheel()
    monkeypatch.setattr(ladder, "PROGRAM", program)
    with pytest.raises(CheckFailed) as caught:
        check(sandbox)
    assert str(caught.value) == message


def test_the_first_rung_that_holds_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def holds(sandbox: Sandbox) -> None:
        tried.append(sandbox.rung)
        if sandbox.rung != "namespaces":
            raise CheckFailed("a hole")

    monkeypatch.setattr(ladder, "check", holds)
    monkeypatch.setattr(ladder, "_find", lambda rung: Sandbox(rung, ladder.take_inventory()))
    assert open_sandbox().rung == "namespaces"
    assert tried == list(RUNGS)


def test_without_a_safe_rung_the_refusal_names_each_reason_and_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ladder.shutil, "which", lambda *_, **__: None)
    monkeypatch.setattr(ladder, "find_spec", lambda _: None)

    def broken(_: Sandbox) -> None:
        raise CheckFailed("the probe broke out: connect")

    monkeypatch.setattr(ladder, "check", broken)
    with pytest.raises(UserError) as caught:
        open_sandbox("auto")
    message = str(caught.value)
    assert message.startswith(
        "no safe sandbox for generated programs: bwrap-system: not installed; bwrap-wheel: not installed; "
        "namespaces: the probe broke out: connect. Install bubblewrap (Debian, Ubuntu: apt install bubblewrap)"
    )
    assert "AppArmor" in message
    assert "leave evaluate.benchmarks empty" in message
    assert "\n" not in message


def test_a_named_rung_is_never_replaced_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ladder, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"^no safe sandbox for generated programs: bwrap-wheel: not installed\. "):
        open_sandbox("bwrap-wheel")


def test_an_unknown_rung_is_refused() -> None:
    with pytest.raises(UserError) as caught:
        open_sandbox("docker")
    assert str(caught.value) == "unknown sandbox 'docker'; allowed: auto, bwrap-system, bwrap-wheel, namespaces"


def test_the_parameter_names_the_rungs() -> None:
    assert get_args(Code.model_fields["sandbox"].annotation) == ("auto", *RUNGS)


def test_other_systems_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(
        UserError, match=r"^the sandbox for generated programs needs Linux on x86_64 or aarch64; this is darwin"
    ):
        open_sandbox()


def test_a_sandbox_that_stops_working_is_an_error_and_no_verdict() -> None:
    broken = replace(wheel(), bwrap="/bin/false", libraries=None)
    with pytest.raises(CheckFailed, match=r"^the sandbox did not start a program: no message$"):
        list(run_trials(broken, [TRIAL], limits=ProgramLimits()))


def test_a_file_that_is_gone_is_an_error_and_no_verdict() -> None:
    sandbox = wheel()
    gone = replace(
        sandbox, inventory=replace(sandbox.inventory, binds=(*sandbox.inventory.binds, ("/nowhere", "/nowhere")))
    )
    with pytest.raises(CheckFailed, match="/nowhere"):
        list(run_trials(gone, [TRIAL], limits=ProgramLimits()))
