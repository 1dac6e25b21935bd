"""The package on docs/extend.md is built, installed and run, exactly as it stands there."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from codex_ml.evaluate.metrics.protocol import Metric, Pair, ScoredDocument
from codex_ml.evaluate.metrics.registry import load_metrics

PAGE = (Path(__file__).parents[3] / "docs/extend.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder into which pip installed the package of the page, without network."""
    source, site = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    files = re.findall(r"^`([\w/.-]+)`:\n\n```\w+\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert [name for name, _ in files] == ["first-line/pyproject.toml", "first-line/first_line.py"]
    for name, text in files:
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text(text, encoding="utf-8")
    options = re.findall(r"pip install (.*) \./first-line$", PAGE, re.MULTILINE)
    assert options == ["--no-build-isolation --no-deps"]
    offline = ["--no-index", "--disable-pip-version-check", "--quiet", "--target", str(site)]
    command = [sys.executable, "-m", "pip", "install", *options[0].split(), *offline, "./first-line"]
    subprocess.run(command, cwd=source, check=True, capture_output=True, text=True, timeout=120)
    return site


@pytest.fixture
def metrics(site, monkeypatch):
    monkeypatch.syspath_prepend(str(site))
    importlib.invalidate_caches()
    yield load_metrics(["chrf", "first_line"])
    sys.modules.pop("first_line", None)


def test_the_package_of_the_page_is_a_metric_of_twenty_lines(site, metrics):
    plugin = metrics.plugins["first_line"]
    assert (plugin.distribution, plugin.version) == ("first-line", "1.0")
    assert (metrics.failures, metrics.messages) == ({}, ())
    assert len((site / "first_line.py").read_text().splitlines()) <= 20
    pairs = [("x = 1\ny = 2", " x = 1 \nz"), ("x = 1", "x = 2"), ("", "\n"), ("a\nb", "b\na")]
    rows = [metrics.measure(Pair("", *pair, "python")) for pair in pairs]
    metric = metrics["first_line"]
    assert metrics.value(metric, np.array(rows)[:, metrics.places(metric)].sum(0)) == 2 / 4


def test_the_package_is_installed_from_the_page_alone(site):
    """A fresh process, as a stage is one, finds it when the folder is on the path."""
    code = (
        "import sys; from codex_ml.evaluate.metrics.registry import load_metrics; "
        "print(*load_metrics().plugins); assert not {'torch', 'transformers'} & sys.modules.keys()"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env={"PYTHONPATH": str(site)}
    )
    assert found.stdout == "first_line\n"
    bare = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env={})
    assert bare.stdout == "\n"


def test_the_page_names_every_part_of_the_protocol_and_of_the_items():
    attributes = re.findall(r"^\| `(\w+)(?:\(\w+\))?` \|", PAGE[PAGE.index("### The protocol") :], re.MULTILINE)
    protocol = [name for name in vars(Metric) if not name.startswith("_")]
    assert sorted(attributes) == sorted(protocol)
    for item in (Pair, ScoredDocument):
        fields = re.search(rf"`{item.__name__}` \((.*?)\)", PAGE, re.DOTALL)[1]
        assert re.findall(r"`(\w+)`", fields) == list(item.__dataclass_fields__)
