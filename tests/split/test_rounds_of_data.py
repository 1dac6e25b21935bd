"""Three rounds of documents through the code of the stages: the test set is clean by brute force, and no old document moves."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from codex_ml.cli.main import whole_app

from .brute_force import BruteForce, everything
from .test_splits_end_to_end import run

pytestmark = pytest.mark.costly
SOURCES = [{"kind": "jsonl", "path": "data/raw/*.jsonl", "fields": {"group": "repo"}}]
QUALITY = {
    "min_alphanumeric_share": None,
    "min_compression_ratio": None,
    "drop_generated": False,
    "max_line_length": None,
}
SPLIT = {
    "val": 0.1,
    "test": 0.2,
    "licences": ["MIT"],
    "quality": {**QUALITY, "max_mean_line_length": None},
    "policy": "off",
}


class Project:
    """The files of a user; their folder is the current one."""

    def __init__(self, root: Path, repository: Path, project: Path) -> None:
        self.root = root
        shutil.copytree(project, root, dirs_exist_ok=True)
        shutil.copyfile(repository / "dvc.yaml", root / "dvc.yaml")
        (root / "src").symlink_to(repository / "src")
        (root / "data/raw").mkdir()

    def split(self, **changed: object) -> dict[str, tuple[str, str]]:
        """Ingest and split; split and group of each text that is kept."""
        params = {
            "ingest": {"sources": SOURCES},
            "split": SPLIT | changed,
            "runtime": {"workers": 1, "progress": "off"},
        }
        run("ingest", params)
        run("split", params)
        found: dict[str, tuple[str, str]] = {}
        for part in ("train", "val", "test"):
            table = pq.read_table(self.root / f"data/splits/{part}.parquet", columns=["text", "group"])
            rows = list(zip(table["text"].to_pylist(), table["group"].to_pylist(), strict=True))
            assert not found.keys() & {text for text, _ in rows}, f"a text of {part} is in another split"
            assert len({text for text, _ in rows}) == len(rows), f"a text is twice in {part}"
            found |= {text: (part, group) for text, group in rows}
        return found


def refuse_a_leak(kept: dict[str, tuple[str, str]], threshold: float) -> None:
    parts = {(group, part) for part, group in kept.values() if group}
    assert len(parts) == len({group for group, _ in parts}), "a group is in two splits"
    texts, where = list(kept), [part for part, _ in kept.values()]
    pairs = [
        (where[row], where[other], texts[row], texts[other])
        for row, others in enumerate(BruteForce.of_texts(texts).neighbours(threshold))
        for other in others.tolist()
    ]
    assert [pair for pair in pairs if pair[0] != pair[1]] == []


@pytest.mark.parametrize("threshold", [0.7, pytest.param(0.5, marks=pytest.mark.slow)])
def test_no_pair_and_no_group_is_across_splits_after_three_rounds(
    tmp_path, monkeypatch, repository, project, threshold
):
    monkeypatch.chdir(tmp_path)
    dice = random.Random(threshold)
    made = Project(tmp_path, repository, project)
    texts = sorted(set(everything(11, 1800)) - {""}, key=lambda text: dice.random())
    before: dict[str, tuple[str, str]] = {}
    old: set[str] = set()
    for number in range(3):
        lines = [
            {"id": i, "text": text, "licence": "MIT", "repo": dice.choice(["", "", f"r{dice.randrange(200)}"])}
            for i, text in enumerate(texts[number * 600 : number * 600 + 600])
        ]
        file = tmp_path / f"data/raw/{dice.randrange(100)}-{number}.jsonl"
        file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        kept = made.split(near_duplicate=threshold)
        refuse_a_leak(kept, threshold)
        assert {text: place for text, place in kept.items() if text in old} == before, "an old document moved"
        before, old = kept, old | {str(line["text"]) for line in lines}
        done = CliRunner().invoke(whole_app(), ["ledger", "accept"])
        assert done.exit_code == 0, done.output
    assert made.split(near_duplicate=threshold) == before, "accepting moved a document"
    refuse_a_leak(made.split(near_duplicate=threshold, ledger=False), threshold)
