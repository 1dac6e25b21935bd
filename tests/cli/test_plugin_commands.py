"""`codex-ml plugins list` shows what packages offer, with failures and collisions; `lock` records what is named."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from codex_ml.cli.main import whole_app
from codex_ml.cli.plugin_list import PluginList
from codex_ml.core.plugins import KINDS


def run(*arguments):
    return CliRunner().invoke(whole_app(), ["plugins", *arguments])


METRIC = "class count:\n    def measure(self, pair): ...\n    def aggregate(self, sums): ...\n"
PACKAGES = {
    "good": (METRIC, "metrics.words", "metrics.lines"),
    "bad": ("raise ValueError('no\\n\\x1b[31mway')", "metrics.broken"),
    "twin": (METRIC, "metrics.lines"),
    "odd": ("count = 'text'", "metrics.odd", "readers.odd", "templates.odd", "presets.odd"),
    "later": ("count = len", "rewards.length"),
    "ours": ("raise SystemExit", "metrics.chrf", "readers.jsonl", "presets.small", "architectures.llama"),
}


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Packages: `good` works, `bad` raises and hides a terminal sequence in its error, `twin` has a name of good.

    `odd` offers things of wrong types, `ours` a name that is built in, and `later` something of an unknown kind.
    """
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    for package, (code, *names) in PACKAGES.items():
        info = site / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        points = [name.split(".") for name in names]
        text = "".join(f"[codex_ml.{kind}]\n{name} = {package}:count\n" for kind, name in points)
        (info / "entry_points.txt").write_text(text)
        (site / f"{package}.py").write_text(code)
    importlib.invalidate_caches()
    return site


def test_without_plug_ins_it_says_so(workspace):
    done = run("list", "--kind", "metrics")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == "plugins: no package offers metrics; docs/extend.md describes how to make one\n"
    assert PluginList.model_validate(json.loads(run("list", "--json").stdout)).plugins == []


def test_each_is_listed_with_its_package_and_its_error_or_collision(workspace, site):
    done = run("list", "--json")
    assert (done.exit_code, done.stderr, done.stdout.isascii()) == (0, "", True)
    plugins = PluginList.model_validate(json.loads(done.stdout)).plugins
    assert [(p.kind, p.name, p.distribution, p.version, p.object, p.state, p.why) for p in plugins] == [
        ("architectures", "llama", "ours", "1.0", "ours:count", "shadowed", "the built-in architecture of this name is used instead"),
        ("metrics", "broken", "bad", "1.0", "bad:count", "failed", "ValueError: no \x1b[31mway"),
        ("metrics", "chrf", "ours", "1.0", "ours:count", "shadowed", "the built-in metric of this name is used instead"),
        ("metrics", "lines", "good", "1.0", "good:count", "collision", "twin 1.0 offers the same name; uninstall all but one"),
        ("metrics", "lines", "twin", "1.0", "twin:count", "collision", "good 1.0 offers the same name; uninstall all but one"),
        ("metrics", "odd", "odd", "1.0", "odd:count", "failed", "must be an object or a class with the methods measure and aggregate, found str"),
        ("metrics", "words", "good", "1.0", "good:count", "loaded", ""),
        ("presets", "odd", "odd", "1.0", "odd:count", "failed", "must be a mapping or a callable, found str"),
        ("presets", "small", "ours", "1.0", "ours:count", "shadowed", "the built-in preset of this name is used instead"),
        ("readers", "jsonl", "ours", "1.0", "ours:count", "shadowed", "the built-in reader of this name is used instead"),
        ("readers", "odd", "odd", "1.0", "odd:count", "failed", "must be a callable, found str"),
        ("rewards", "length", "later", "1.0", "later:count", "failed", f"there is no kind 'rewards' of plug-ins; there are: {', '.join(KINDS)}"),
        ("templates", "odd", "odd", "1.0", "odd:count", "failed", "must be a mapping, found str"),
    ]  # fmt: skip
    text = run("list", "--kind", "metrics").stdout
    assert [line.split()[:4] for line in text.splitlines()][5] == ["metrics", "words", "good", "1.0"]
    assert "failed: ValueError: no \\x1b[31mway" in text and "\x1b" not in text
    assert run("list", "--kind", "detectors").stdout.startswith("plugins: no package offers detectors;")


def test_an_unknown_kind_is_one_line():
    done = run("list", "--kind", "metric")
    assert done.exit_code == 2
    assert done.stderr.startswith("error: --kind: there is no kind 'metric' of plug-ins; there are: ")


def test_a_lock_holds_what_is_named_and_an_error_leaves_all_locks_as_they_were(workspace, site):
    before = Path("data/detectors.lock").read_text()
    assert run("lock").exit_code == 0
    assert Path("data/detectors.lock").read_text() == before
    (site / "good-1.0.dist-info/entry_points.txt").write_text("[codex_ml.detectors]\nmine = good:count\n")
    importlib.invalidate_caches()
    policy = Path("data/policy.yaml")
    text = policy.read_text()
    policy.write_text(text.replace("detectors: []", "detectors: [other]"))
    failed = run("lock")
    assert (failed.exit_code, failed.stderr) == (
        2,
        "error: data/policy.yaml: detectors: detector 'other' is not installed; installed are: mine\n",
    )
    assert Path("data/detectors.lock").read_text() == before
    policy.write_text(text.replace("detectors: []", "detectors: [mine]"))
    done = run("lock")
    assert (
        "plugins: detector mine: good 1.0, good:count\nplugins: data/detectors.lock holds 1 detectors\n" in done.stdout
    )
    assert "name: mine\n" in Path("data/detectors.lock").read_text()
