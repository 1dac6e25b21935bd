"""What README.md claims is so."""

from __future__ import annotations

import json
import re
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

from codex_ml.cli.param_rules import Params, validate_params
from codex_ml.core.pipeline import load_pipeline, producers_of
from codex_ml.core.sections import known_keys
from codex_ml.core.yaml import parse_yaml

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.shipped


@cache
def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def block(language: str, holding: str) -> str:
    return next(b for b in re.findall(rf"```{language}\n(.*?)```", readme(), re.DOTALL) if holding in b)


def test_first_screen_holds_sentence_commands_output_and_picture() -> None:
    lines = readme().split("\n")
    screen = "\n".join(lines[:50])
    for wanted in ("make repro", "make test", "```text", "bits per byte", "```mermaid", "safety_audit: "):
        assert wanted in screen, wanted


def test_picture_shows_the_edges_of_the_pipeline() -> None:
    """Every arrow is a dependency in dvc.yaml, and every stage is in the picture; edges implied by a path may be left out."""
    stages = load_pipeline(ROOT / "dvc.yaml")
    real = {(p.name, s.name) for s in stages.values() for dep in s.data for p in producers_of(dep, stages)}
    drawn = set()
    for line in block("mermaid", "flowchart").splitlines()[1:]:
        chain = [name.strip() for name in line.split("-->")]
        drawn |= set(pairwise(chain))
    drawn.remove(("sample.lock", "fetch"))
    assert drawn <= real
    assert {name for edge in drawn for name in edge} == set(stages)

    def reachable(start: str) -> set[str]:
        found = {end for begin, end in drawn if begin == start}
        return found | {name for end in found for name in reachable(end)}

    assert all(end in reachable(begin) for begin, end in real)


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z-]+)", readme()))
    assert named and named <= targets


def test_commands_exist() -> None:
    from codex_ml.cli.main import whole_app

    app = whole_app()

    commands = {(c.name or c.callback.__name__.replace("_", "-")) for c in app.registered_commands if c.callback}
    commands |= {group.name for group in app.registered_groups}
    named = set(re.findall(r"codex-ml ([a-z][a-z-]*)", readme())) - {"docker"}
    assert named <= commands | {"-"}, named - commands


def test_keys_exist_and_the_example_of_own_data_is_valid() -> None:
    named = set(re.findall(r"`((?:split|train|fetch|pack|tokenizer|runtime)\.[a-z_]+)", readme()))
    named |= set(re.findall(r"-S ([a-z_.]+)=", readme()))
    assert named and named <= set(known_keys(Params))
    example = block("yaml", "sources:")
    assert len(validate_params(parse_yaml(example, "README.md"), text=example).ingest.sources) == 3


def test_files_of_the_tables_exist() -> None:
    for name in ("params.yaml", "dvc.yaml", "stages", "src/codex_ml", "data/sample.lock", "CHANGELOG.md", "LICENSE"):
        assert name.split("/")[-1] in readme() or name == "LICENSE"
        assert (ROOT / name).exists()


@pytest.mark.parametrize("name", ["dvc.lock", "reports/evaluate/metrics.json", "reports/split/metrics.json"])
def test_results_are_in_git_so_that_a_clone_can_compare(name: str) -> None:
    assert (ROOT / name).is_file()


def test_numbers_are_those_of_the_committed_run() -> None:
    metrics = json.loads((ROOT / "reports/evaluate/metrics.json").read_text(encoding="utf-8"))
    assert (
        f"evaluate: {metrics['bits_per_byte']} bits per byte on test, zlib {metrics['zlib_bits_per_byte']}" in readme()
    )
    split = json.loads((ROOT / "reports/split/metrics.json").read_text(encoding="utf-8"))
    assert f"{100 * split['leakage']['random_split_leak']:.1f} %" in readme()
    assert metrics["bits_per_byte"] < metrics["zlib_bits_per_byte"]
