"""docs/teams.md as two people follow it: real clones, Git, DVC and stages, each command as printed."""

from __future__ import annotations

import json
import random
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from test_pages import WORDS
from workspace import PARAMS, Workspace, commit, make_workspace

from codex_ml.core.yaml import parse_yaml

PAGE = "docs/teams.md"
CUSTOMERS = ("north", "south", "east", "west")


@dataclass
class Team:
    """Two clones of a shared repository in which the documents of `base` are committed, with a ledger."""

    you: Workspace
    colleague: Workspace
    home: Path
    sections: list[str]

    def follow(self, who: Workspace, section: int, block: int = 0, **instead: str) -> str:
        """Run a block of the page in a clone; returns what it printed.

        Args:
            instead: words of the page -> the words of this person.
        """
        script = re.findall(r"^```sh\n(.*?)^```", self.sections[section], re.DOTALL | re.MULTILINE)[block]
        for old, new in instead.items():
            script = script.replace(old, new)
        done = who.run("sh", "-ec", script.replace("/mnt/team", f"'{self.home.parent}/team'"))
        assert "Traceback" not in done.stdout + done.stderr
        return done.stdout + done.stderr


def documents(dice: random.Random, count: int) -> list[dict[str, str]]:
    return [
        {"text": " ".join(dice.choices(WORDS, k=70)), "customer": dice.choice(CUSTOMERS) + str(i)} for i in range(count)
    ]


def write(file: Path, records: list[dict[str, str]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def near_copy(record: dict[str, str], customer: str) -> dict[str, str]:
    """The same text but for one word in the middle, and of somebody else: Jaccard similarity 0.86."""
    words = record["text"].split()
    words[35] = "otherwise"
    return {"text": " ".join(words), "customer": customer}


def make_team(folder: Path, repository: Path, *, stages: tuple[str, ...]) -> Team:
    workspace = make_workspace(folder)
    tools, home = folder / "bin", folder / "home"
    tools.mkdir()
    code = "import sys; sys.path.insert(0, 'src'); from codex_ml.cli.main import main; main()"
    for name, call in {"codex-ml": f'-c "{code}"', "dvc": "-m dvc"}.items():
        (tools / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {call} "$@"\n')
        (tools / name).chmod(0o755)
    dice = random.Random(5)
    base, tickets, invoices = documents(dice, 60), documents(dice, 40), documents(dice, 40)
    invoices += [{**record, "customer": f"other{i}"} for i, record in enumerate(tickets[:10])]  # two groups, one text
    invoices += [near_copy(record, f"copy{i}") for i, record in enumerate(tickets[10:20])]
    tickets += [near_copy(record, f"again{i}") for i, record in enumerate(invoices[:10])]
    both = documents(dice, 20)  # a file that both have
    write(home / "tickets.jsonl", tickets + both)
    write(home / "invoices.jsonl", invoices + both)
    write(home / "letters.jsonl", documents(dice, 20))
    (home / ".gitconfig").write_text("[user]\n name = T\n email = t@example.org\n[pull]\n rebase = false\n")
    workspace.extra |= {"HOME": str(home), "PATH": f"{tools}:{workspace.environment['PATH']}"}
    start(workspace, base, stages)
    workspace.dvc("remote", "add", "--default", "team", str(folder / "team/dvc"))
    shutil.copyfile(repository / ".gitattributes", workspace.root / ".gitattributes")
    for _ in range(2):
        workspace.run("dvc", "repro")
        workspace.run("codex-ml", "ledger", "accept")
    commit(workspace, "base")
    workspace.run("dvc", "push")
    workspace.run("git", "clone", "-q", "--bare", ".", str(folder / "shared.git"))
    clones = []
    for name in ("you", "colleague"):
        clone = Workspace(folder / name, workspace.wheels, dict(workspace.extra))
        workspace.run("git", "clone", "-q", str(folder / "shared.git"), str(clone.root))
        clone.run("dvc", "pull")
        clones.append(clone)
    page = (repository / PAGE).read_text(encoding="utf-8")
    return Team(*clones, home, re.split(r"^## ", page, flags=re.MULTILINE))


def start(workspace: Workspace, base: list[dict[str, str]], stages: tuple[str, ...]) -> None:
    """Parameters for texts of a person's own, and of dvc.yaml the stages that a test needs."""
    params = parse_yaml(PARAMS, "params")
    source = {"kind": "jsonl", "path": "data/raw/notes/*.jsonl", "licence": "MIT", "fields": {"group": "customer"}}
    params["fetch"], params["ingest"] = {"sample": False}, {"sources": [source]}
    del params["split"]["benchmarks"], params["evaluate"]["benchmarks"], params["evaluate"]["code"]
    (workspace.root / "params.yaml").write_text(json.dumps(params, indent=1), encoding="utf-8")
    pipeline = parse_yaml((workspace.root / "dvc.yaml").read_text(encoding="utf-8"), "dvc.yaml")
    if stages:
        pipeline = {"stages": {name: pipeline["stages"][name] for name in stages}}
        (workspace.root / "dvc.yaml").write_text(json.dumps(pipeline), encoding="utf-8")
        for script in (workspace.root / "stages").glob("*.py"):  # a script that no stage runs is refused
            if script.stem not in stages:
                script.unlink()
    write(workspace.root / "data/raw/notes/base.jsonl", base)
    workspace.run("dvc", "add", "data/raw/notes/base.jsonl")


def texts(workspace: Workspace, split: str) -> set[str]:
    return set(pq.read_table(workspace.root / f"data/splits/{split}.parquet").column("text").to_pylist())


def ledger(workspace: Workspace) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted((workspace.root / "data/split_ledger").iterdir())}


def locked(workspace: Workspace, stage: str, out: str) -> str:
    outs = parse_yaml(workspace.lock.decode(), "dvc.lock")["stages"][stage]["outs"]
    return next(entry["md5"] for entry in outs if entry["path"] == out)


def shingles(text: str) -> set[tuple[str, ...]]:
    words = text.split()
    return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}


def likeness(one: str, other: str) -> float:
    a, b = shingles(one), shingles(other)
    return len(a & b) / len(a | b)


def merge_in_both_directions(team: Team) -> None:
    other = {"tickets": "invoices"}
    back = {"origin/invoices": "origin/tickets"}
    team.follow(team.you, 1)
    team.follow(team.colleague, 1, **other)
    tests = texts(team.you, "test") | texts(team.colleague, "test")
    vals = texts(team.you, "val") | texts(team.colleague, "val")
    for who, instead in ((team.you, {}), (team.colleague, back)):
        said = team.follow(who, 2, 0, **instead)
        assert "CONFLICT" in said
        assert "left for you" not in said
    assert ledger(team.you) == ledger(team.colleague)
    assert locked(team.you, "split", "data/splits") == locked(team.colleague, "split", "data/splits")
    for who in (team.you, team.colleague):
        assert "links hold" in team.follow(who, 2, 1)
        assert who.run("git", "status", "--porcelain").stdout == ""
        assert "up to date" in who.run("dvc", "status").stdout
    assert ledger(team.you) == ledger(team.colleague)
    assert team.you.lock == team.colleague.lock
    train = texts(team.you, "train")
    assert len(train) > 60
    assert len(tests) > 10
    assert not train & (tests | vals)
    assert max(likeness(one, held_out) for one in train for held_out in tests) < 0.7


@pytest.mark.slow
def test_a_merge_ends_in_the_same_bytes_in_either_direction_and_no_test_set_is_trained_on(
    tmp_path: Path, repository: Path
) -> None:
    merge_in_both_directions(make_team(tmp_path, repository, stages=("ingest", "split")))


@pytest.mark.slow
def test_rebase_experiments_a_shared_cache_gc_and_work_trees_go_as_the_page_says(
    tmp_path: Path, repository: Path
) -> None:
    team = make_team(tmp_path, repository, stages=("ingest", "split"))
    you, colleague = team.you, team.colleague
    team.follow(you, 1)
    team.follow(colleague, 1, tickets="invoices")
    tests = texts(you, "test") | texts(colleague, "test")
    lines = set().union(*(data.split(b"\n") for who in (you, colleague) for data in ledger(who).values()))

    said = team.follow(you, 3)
    assert "CONFLICT" in said and "left for you" not in said
    assert lines <= set(ledger(you)["all.txt"].split(b"\n"))
    assert not texts(you, "train") & tests
    assert you.run("git", "status", "--porcelain").stdout == ""
    assert "up to date" in you.run("dvc", "status").stdout

    experiment = {"train.lr=4e-3": "split.val=0.2"}  # no stage reads train here
    team.follow(you, 4, 0, **experiment)
    said = team.follow(colleague, 4, 1)
    assert "warmer" in said
    assert lines <= set(ledger(colleague)["all.txt"].split(b"\n"))
    assert (colleague.root / "data/raw/notes/tickets.jsonl").is_file()
    assert "val: 0.2" in (colleague.root / "params.yaml").read_text(encoding="utf-8")
    colleague.run("git", "stash", "--include-untracked")
    colleague.run("dvc", "checkout")

    # A cut ledger, as an experiment from before the last lines leaves it: every gate says so, and one command mends it.
    whole = ledger(colleague)["all.txt"]
    (colleague.root / "data/split_ledger/all.txt").write_bytes(b"".join(whole.splitlines(keepends=True)[:-7]))
    assert "lacks 7 lines that HEAD has" in colleague.run("codex-ml", "verify", check=False).stderr
    assert "the folder lacked 7" in colleague.run("codex-ml", "merge").stdout
    assert ledger(colleague)["all.txt"] == whole

    team.follow(you, 5)
    assert "links hold" in you.run("codex-ml", "verify").stdout
    assert "up to date" in you.run("dvc", "status").stdout
    assert any((tmp_path / "team/cache/files/md5").iterdir())

    colleague.run("dvc", "fetch", "--all-commits", "data/raw/notes/base.jsonl.dvc")  # the command that `check` names
    team.follow(colleague, 6)
    assert "up to date" in colleague.run("dvc", "status").stdout
    team.follow(colleague, 7)
    assert texts(Workspace(tmp_path / "second", colleague.wheels), "train") == texts(you, "train")


@pytest.mark.slow
def test_a_merge_of_all_nine_stages_ends_in_the_same_bytes(tmp_path: Path, repository: Path) -> None:
    merge_in_both_directions(make_team(tmp_path, repository, stages=()))
