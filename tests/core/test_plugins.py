"""Plug-ins are found by name without an import; one that fails or collides is an error for those who name it only."""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import BaseModel, ValidationError

from codex_ml.core.child import FIXED, KEPT
from codex_ml.core.errors import UserError
from codex_ml.core.plugin_trial import import_error
from codex_ml.core.plugins import KINDS, BuiltInOr, UnusablePlugin, find, installed, load, registered


@pytest.fixture
def install(tmp_path, monkeypatch):
    """install(module, code, "metrics.name" = object, ...): a package as pip leaves it."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    modules = set()

    def install(package: str, code: str, *points: str, version: str = "1.0") -> Path:
        modules.add(package)
        info = site / f"{package}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        text = ""
        for point in points:
            kind, _, rest = point.partition(".")
            text += f"[codex_ml.{kind}]\n{rest}\n"
        (info / "entry_points.txt").write_text(text)
        (site / f"{package}.py").write_text(code)
        importlib.invalidate_caches()
        return site

    yield install
    for module in modules & sys.modules.keys():
        del sys.modules[module]


def test_one_is_found_with_its_package_and_imported_only_when_it_is_loaded(install):
    install("far_words", "count = len\n", "metrics.words = far_words:count")
    plugin = find("metrics", "words")
    assert (plugin.name, plugin.origin, plugin.value) == ("words", "far_words 1.0", "far_words:count")
    assert "far_words" not in sys.modules
    assert load("metrics", "words") is len
    assert [plugin.name for plugin in installed("detectors")] == []


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import nowhere", "cannot be imported: ModuleNotFoundError: No module named 'nowhere' (far_words:count)"),
        ("raise SystemExit(3)", "cannot be imported: SystemExit: 3 (far_words:count)"),
        ("raise ValueError('two\\nlines')", "cannot be imported: ValueError: two lines (far_words:count)"),
        ("x = 1", "cannot be imported: AttributeError: module 'far_words' has no attribute 'count' (far_words:count)"),
    ],
)
def test_one_that_fails_is_an_error_of_one_line_for_those_who_name_it(install, code, why):
    install("far_words", code, "metrics.words = far_words:count")
    install("near_words", "count = len", "metrics.other = near_words:count")
    assert load("metrics", "other") is len
    with pytest.raises(UnusablePlugin) as caught:
        load("metrics", "words")
    assert caught.value.why == why
    assert str(caught.value) == f"params.yaml: evaluate.metrics: metric 'words' {why}"


def test_two_with_one_name_are_refused_and_a_missing_one_names_the_others(install):
    install("far_words", "count = len", "metrics.words = far_words:count", version="1.2")
    install("near_words", "count = len", "metrics.words = near_words:count")
    with pytest.raises(
        UserError, match=r"is offered by 2 packages, far_words 1.2 and near_words 1.0; uninstall all but"
    ):
        load("metrics", "words")
    with pytest.raises(UserError, match=r"metric 'word' is not installed; installed are: words$"):
        find("metrics", "word")
    with pytest.raises(UserError, match=r"detector 'word' is not installed; installed are: none$"):
        find("detectors", "word")


def test_what_a_plug_in_prints_at_its_import_does_not_reach_stdout(install, capsys):
    install("far_words", "print('hello')\ncount = len", "metrics.words = far_words:count")
    load("metrics", "words")
    assert capsys.readouterr() == ("", "hello\n")


def test_a_test_registers_one_for_its_own_time():
    with registered("metrics", "words", len):
        assert load("metrics", "words") is len
        assert find("metrics", "words").origin == "no package"
        with (
            registered("metrics", "words", len),
            pytest.raises(UserError, match="2 packages, no package and no package"),
        ):
            load("metrics", "words")
    assert installed("metrics") == []
    with pytest.raises(ValueError, match="there is no kind 'metric'"), registered("metric", "words", len):
        pass


class Settings(BaseModel):
    """A section with a key that names something built in or a plug-in."""

    metric: Annotated[str, BuiltInOr("metrics", ("a", "b"))]


def test_a_key_takes_what_is_built_in_and_what_is_installed(install):
    assert Settings(metric="a").metric == "a"
    with pytest.raises(ValidationError, match="input should be 'a' or 'b'; found 'words'"):
        Settings(metric="words")
    install("far_words", "raise ValueError", "metrics.words = far_words:count")
    assert Settings(metric="words").metric == "words", "a name is no import"
    with pytest.raises(ValidationError, match="input should be 'a', 'b' or 'words'; found 'word'"):
        Settings(metric="word")
    install("near_words", "", "metrics.words = near_words:count")
    with pytest.raises(UserError, match=r"is offered by 2 packages"):
        Settings(metric="words")
    assert Settings.model_json_schema()["properties"]["metric"]["anyOf"][0]["enum"] == ["a", "b"]


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("count = len", ""),
        ("print('loaded')\ncount = len", ""),
        ("raise KeyboardInterrupt", "KeyboardInterrupt:"),
        ("import os\nos._exit(7)", "its import ends Python with exit code 7"),
        ("import os\nos.write(3, b'no JSON')\nos._exit(0)", "its import ends Python with exit code 0"),
        ("raise ValueError('a\\nb')", "ValueError: a b"),
        ("class Odd(Exception):\n    def __str__(self): raise Odd\nraise Odd", "Odd"),
        ("count = 3", "must be a callable, found int"),
    ],
)
def test_a_trial_imports_one_in_a_process_of_its_own(install, code, why):
    install("far_words", code, "readers.words = far_words:count")
    assert import_error(find("readers", "words")) == why
    assert "far_words" not in sys.modules


@pytest.mark.parametrize(
    ("kind", "code", "why"),
    [
        ("templates", "count = {}", ""),
        ("templates", "count = dict", "must be a mapping, found type"),
        ("presets", "count = {}", ""),
        ("presets", "count = dict", ""),
        ("metrics", "class count:\n    measure = aggregate = len", ""),
        ("metrics", "import numpy\ncount = len", "must be an object or a class with the methods measure and aggregate, found "
         "builtin_function_or_method"),
    ],
)  # fmt: skip
def test_a_trial_names_an_object_that_its_kind_cannot_use(install, kind, code, why):
    install("far_words", code, f"{kind}.words = far_words:count")
    assert import_error(find(kind, "words")) == why


def test_a_trial_sees_no_secret_and_no_file_of_the_working_folder(install, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    (tmp_path / "json.py").write_text("raise SystemExit('the json of the working folder')\n")
    monkeypatch.chdir(tmp_path)
    code = (
        f"import os, pathlib\npathlib.Path({str(tmp_path / 'seen')!r}).write_text(repr(dict(os.environ)))\ncount = len"
    )
    install("far_words", code, "readers.words = far_words:count")
    assert import_error(find("readers", "words")) == ""
    seen = eval((tmp_path / "seen").read_text())  # noqa: S307 - written by the line above
    assert seen["HOME"] == str(tmp_path)
    assert set(seen) <= {*KEPT, *FIXED, "HOME"} | {name for name in seen if name.startswith(("LC_", "__CF"))}


def test_a_trial_ends_with_all_that_it_started(install, tmp_path):
    """The child of a plug-in holds its output open and would stay; its process gets SIGKILL with the trial."""
    code = (
        "import pathlib, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], stdout=3, pass_fds=[3])\n"
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(child.pid))\n"
    )
    install("far_words", code + "count = len", "readers.words = far_words:count", "readers.slow = slow_words:count")
    install("slow_words", code + "time.sleep(600)", version="2.0")
    for name, seconds, why in (("words", 60, ""), ("slow", 5, "its import takes longer than 5 s")):
        assert import_error(find("readers", name), seconds) == why
        pid = int((tmp_path / "pid").read_text())
        for _ in range(600):
            if _ended(pid):
                break
            time.sleep(0.1)
        assert _ended(pid), name
        (tmp_path / "pid").unlink()


def _ended(pid: int) -> bool:
    """Whether a process has ended; one that its parent has not asked for yet is a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_each_kind_names_the_file_and_the_key_that_name_its_plug_ins():
    files = {kind.named_in.partition(": ")[0] for kind in KINDS.values()}
    assert files == {"params.yaml", "data/policy.yaml"}
