"""`codex-ml merge`: no line of either side is lost, both directions end in the same bytes, and people keep decisions."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from codex_ml.cli import main as cli
from codex_ml.cli.history.lost_lines import baselines, lost_in, not_compared, version_in_index
from codex_ml.cli.history.unite import merge_report, unite
from codex_ml.cli.history.versions import FOLDER, version_in_folder
from codex_ml.core.errors import UserError
from codex_ml.split.ledger import edits as ledger_files
from codex_ml.split.ledger.line_format import Text, bytes_of, read_ledger_text, salt_mark

ATTRIBUTES = Path(__file__).parents[2] / ".gitattributes"
SALT = salt_mark("salt")
LETTERS = "TtVvRrPp"
BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
# What one line of conflict is made of, and what both sides may edit far apart.
LOCK = "".join(f"stage{i}:\n  md5: {i}\n" for i in range(40))


def git(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True)
    assert not check or done.returncode == 0, f"git {arguments}: {done.stdout}{done.stderr}"
    return done


@pytest.fixture(autouse=True)
def who(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An identity for Git, and none of its variables or settings."""
    for name in [name for name in os.environ if name.startswith(("GIT_", "DVC_"))]:
        monkeypatch.delenv(name)
    settings = (
        "[user]\n name = T\n email = t@example.org\n[init]\n defaultBranch = main\n[advice]\n detachedHead = false\n"
    )
    (tmp_path / "gitconfig").write_text(settings)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_EDITOR", "true")


def some_lines(dice: random.Random, count: int) -> set[str]:
    def number(length: int, last: str) -> str:
        return "".join(dice.choices(BASE64, k=length - 1)) + dice.choice(last)

    lines = (
        f"{number(16, BASE64)} {number(11, 'AEIM')} {number(6, 'AQgw')} {dice.choice(LETTERS)}" for _ in range(count)
    )
    return set(lines)


def canonical(lines: set[str], salt: str = SALT) -> bytes:
    return bytes_of(Text(salt, np.array(sorted(line.encode() for line in lines), dtype="S37")))


def write_ledger(lines: set[str], file: str = "data/split_ledger/all.txt") -> None:
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    Path(file).write_bytes(canonical(lines))


def in_folder() -> set[str]:
    texts = [
        read_ledger_text(file.read_bytes(), str(file))
        for file in Path("data/split_ledger").glob("*.txt")
        if file.stem != "forgotten"
    ]
    return {line.decode() for text in texts for line in text.lines.tolist()}


def commit(message: str = "change") -> None:
    git("add", "-A")
    git("commit", "-q", "--allow-empty", "-m", message)


def side(branch: str, lines: set[str], dice: random.Random, *, others: bool) -> None:
    """Commit on a branch what a person does who adds documents: the ledger, and results where they run the pipeline."""
    git("checkout", "-q", "-B", branch, "start")
    write_ledger(in_folder() | lines)
    if others:
        number = dice.randrange(10**9)
        Path("dvc.lock").write_text(LOCK.replace("md5: 7\n", f"md5: {number}\n"))
        Path("reports/split/metrics.json").write_text(json.dumps({"number": number}))
        Path("data/raw/.gitignore").write_text(f"/sample\n/{branch}.jsonl\n")
        Path(f"data/raw/{branch}.jsonl.dvc").write_text(f"outs:\n- md5: {number:032d}\n  path: {branch}.jsonl\n")
    commit(branch)


def start(folder: Path, lines: set[str], attributes: str) -> None:
    folder.mkdir()
    os.chdir(folder)
    git("init", "-q")
    Path(".gitattributes").write_text(attributes)
    write_ledger(lines)
    for name, text in {
        "dvc.lock": LOCK,
        "reports/split/metrics.json": "{}\n",
        "data/raw/.gitignore": "/sample\n",
    }.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)
    commit("start")
    git("tag", "start")


def bring(way: str, other: str) -> None:
    """Bring another branch into the present one, the way people do it; it may stop."""
    if way == "stash":
        git("checkout", "-q", other)
        tip = git("rev-parse", "HEAD").stdout.strip()
        git("checkout", "-q", "-B", "work", "start")
        git("checkout", tip, "--", ".")
        git("stash", "push", "-q", "--include-untracked")
        git("checkout", "-q", "mine")
        git("stash", "pop", check=False)
    elif way == "am":
        Path("../patches").mkdir(exist_ok=True)
        git("format-patch", "-q", "--binary", "-o", "../patches", f"start..{other}")
        git("am", "-q", "--3way", *map(str, Path("../patches").iterdir()), check=False)
        shutil.rmtree("../patches")
    elif way == "squash":
        git("merge", "--squash", other, check=False)
    else:
        git(way, other, check=False)


def bytes_of_folder() -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(Path("data/split_ledger").iterdir())}


HISTORIES = [
    (way, kind, seed)
    for way in ("merge", "rebase", "cherry-pick", "stash", "squash", "am")
    for kind in ("ours", "none")
    for seed in range(3)
]


@pytest.mark.parametrize(
    ("way", "kind", "seed"), [pytest.param(*one, marks=[pytest.mark.slow] * (one[2] > 0)) for one in HISTORIES]
)
def test_no_line_of_either_side_is_lost_in_either_direction(tmp_path, monkeypatch, way, kind, seed):
    """With our .gitattributes, and with those of a clone that has none: then Git leaves markers in the ledger."""
    monkeypatch.chdir(tmp_path)
    dice = random.Random(f"{way} {seed}")
    base, a, b = (some_lines(dice, dice.choice((0, 1, 12))) for _ in range(3))
    b |= set(dice.sample(sorted(a), len(a) // 3))  # one document, dealt on both sides
    start(tmp_path / "a into b", base, ATTRIBUTES.read_text() if kind == "ours" else "")
    others = bool(seed)
    side("a", a, dice, others=others)
    side("b", b, dice, others=others)
    shutil.copytree(tmp_path / "a into b", tmp_path / "b into a")
    ends = []
    for folder, mine, other in (("a into b", "b", "a"), ("b into a", "a", "b")):
        os.chdir(tmp_path / folder)
        git("checkout", "-q", "-B", "mine", mine)
        bring(way, other)
        done = unite()
        assert in_folder() == base | a | b
        assert done.left == {}
        head = git("show", "HEAD:data/split_ledger/all.txt").stdout
        assert (done.lines, done.brought) == (len(in_folder()), len(in_folder() - set(head.splitlines())))
        assert git("ls-files", "-u").stdout == ""
        assert Path("data/split_ledger/all.txt").read_bytes() == canonical(base | a | b)
        once = bytes_of_folder(), git("status", "--porcelain").stdout, Path("dvc.lock").read_text()
        again = unite()
        assert (bytes_of_folder(), git("status", "--porcelain").stdout, Path("dvc.lock").read_text()) == once
        assert (again.added, again.left, again.united, again.results) == (0, {}, [], [])
        assert "<<<<<<<" not in Path("dvc.lock").read_text() + Path("reports/split/metrics.json").read_text()
        if others:
            assert Path("data/raw/.gitignore").read_text() == "/a.jsonl\n/b.jsonl\n/sample\n"
            json.loads(Path("reports/split/metrics.json").read_text())
        ends.append({**bytes_of_folder(), "ignored": Path("data/raw/.gitignore").read_bytes()})
    assert ends[0] == ends[1]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with 12 lines in its ledger; the current folder is in it."""
    monkeypatch.chdir(tmp_path)
    start(tmp_path / "project", some_lines(random.Random(1), 12), ATTRIBUTES.read_text())
    return tmp_path / "project"


def conflict(**sides: tuple[str | None, str | None]) -> None:
    """Two branches with other texts of files, None where a side removed it; then `git merge` on "ours"."""
    for branch, number in (("theirs", 1), ("ours", 0)):
        git("checkout", "-q", "-B", branch, "start")
        for name, texts in sides.items():
            text = texts[number]
            Path(name).unlink(missing_ok=True)
            if text is not None:
                Path(name).parent.mkdir(parents=True, exist_ok=True)
                Path(name).write_text(text)
        commit(branch)
    git("merge", "theirs", check=False)


def test_what_only_people_can_decide_is_listed_with_what_to_do_and_left_as_it_is(project):
    for name in ("params.yaml", "data/raw/notes.jsonl.dvc", "src/a.py", "docs/gone.md", "picture.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"\0old" if name.endswith("png") else b"old: 0\n")
    commit("more")
    git("tag", "-f", "start")
    conflict(**{
        "params.yaml": ("lr: 1\n", "lr: 2\n"),
        "data/raw/notes.jsonl.dvc": ("outs:\n- md5: a\n", "outs:\n- md5: b\n"),
        "src/a.py": ("x = 1\n", "x = 2\n"),
        "docs/gone.md": ("changed\n", None),
        "picture.png": ("\0one", "\0two"),
        "dvc.lock": ("ours\n", "theirs\n"),
        "reports/split/metrics.json": ("{}\n", '{"a": 1}\n'),
        "reports/train/plots/loss.tsv": ("1\t2\n", "1\t3\n"),
    })  # fmt: skip
    before = {name: Path(name).read_bytes() for name in ("params.yaml", "data/raw/notes.jsonl.dvc", "src/a.py")}
    done = unite()
    assert set(done.left) == {"params.yaml", "data/raw/notes.jsonl.dvc", "src/a.py", "docs/gone.md", "picture.png"}
    assert (
        done.left["params.yaml"]
        == "line 1: keep what you want of both sides, delete the markers, then `git add params.yaml`"
    )
    assert "git checkout --ours data/raw/notes.jsonl.dvc" in done.left["data/raw/notes.jsonl.dvc"]
    assert "then `dvc checkout data/raw/notes.jsonl.dvc`" in done.left["data/raw/notes.jsonl.dvc"]
    assert done.left["docs/gone.md"].startswith(
        "the other side removed it, HEAD changed it; `git add docs/gone.md` keeps"
    )
    assert "has no markers" in done.left["picture.png"]
    assert {name: Path(name).read_bytes() for name in before} == before
    assert Path("dvc.lock").read_text() == "ours\n"
    assert Path("reports/train/plots/loss.tsv").read_text() == "1\t2\n"
    assert done.results == ["dvc.lock", "reports/train/plots/loss.tsv"]
    assert done.next_steps == ["codex-ml merge"]
    lines = list(merge_report(done))
    assert len(lines) == 8
    assert [line for line in lines if line.startswith("left for you: params.yaml: line 1: ")]
    for name in done.left:
        Path(name).write_text("settled: 1\n")
        git("add", name)
    assert unite().left == {}
    git("commit", "-q", "--no-edit")


def test_a_result_that_one_side_removed_is_that_of_head(project):
    conflict(**{"reports/split/metrics.json": (None, '{"a": 1}\n'), "dvc.lock": ("ours\n", None)})
    assert unite().results == ["dvc.lock", "reports/split/metrics.json"]
    assert not Path("reports/split/metrics.json").exists()
    assert Path("dvc.lock").read_text() == "ours\n"
    assert git("ls-files", "-u").stdout == ""


def test_an_output_in_git_outside_of_reports_is_a_result_too(project):
    Path("dvc.yaml").write_text(
        "stages: {own: {cmd: python -P stages/own.py, outs: [{tables/own.csv: {cache: false}}]}}\n"
    )
    Path("tables").mkdir()
    Path("tables/own.csv").write_text("0\n")
    commit("stage")
    git("tag", "-f", "start")
    conflict(**{"tables/own.csv": ("1\n", "2\n"), "params.yaml": ("a: 1\n", "a: 2\n")})
    done = unite()
    assert done.results == ["tables/own.csv"]
    assert list(done.left) == ["params.yaml"]


def test_a_lock_that_git_put_together_from_lines_of_both_is_of_no_run(project):
    """Old attributes: Git merges distant lines, and DVC would then take a run that never happened for up to date."""
    Path(".gitattributes").write_text("")
    commit("attributes of before")
    git("tag", "-f", "start")
    one, two = LOCK.replace("md5: 2\n", "md5: one\n"), LOCK.replace("md5: 38\n", "md5: two\n")
    conflict(**{"dvc.lock": (one, two), "params.yaml": ("a: 1\n", "a: 2\n")})
    assert "one" in Path("dvc.lock").read_text() and "two" in Path("dvc.lock").read_text()
    assert unite().results == ["dvc.lock"]
    assert Path("dvc.lock").read_text() == one
    Path("dvc.lock").write_text("what a rerun has written\n")
    git("add", "dvc.lock")
    assert unite().results == []
    assert Path("dvc.lock").read_text() == "what a rerun has written\n"


def test_markers_that_were_added_or_committed_are_settled_too(project):
    halves = "<<<<<<< HEAD\n{}\n=======\n[]\n>>>>>>> other\n"
    for name in ("dvc.lock", "reports/split/metrics.json", "params.yaml", "data/raw/a.jsonl.dvc"):
        Path(name).write_text(halves)
    lines = sorted(in_folder())
    text = canonical(set(lines)).decode().splitlines(keepends=True)
    Path("data/split_ledger/all.txt").write_text(
        "<<<<<<< HEAD\n" + "".join(text[:5]) + "=======\n" + "".join(text[5:]) + ">>>>>>> b\n"
    )
    commit("in halves")
    done = unite()
    assert in_folder() == set(lines)
    assert not Path("dvc.lock").exists()
    assert not Path("reports/split/metrics.json").exists()
    assert list(done.left) == ["data/raw/a.jsonl.dvc", "params.yaml"]


def test_tombstones_of_both_sides_are_kept(project):
    name = "data/split_ledger/forgotten.txt"
    conflict(
        **{
            name: (
                "AAAAAAAAAAAAAAAA she asked\nBBBBBBBBBBBBBBBB both\n",
                "BBBBBBBBBBBBBBBB both\nCCCCCCCCCCCCCCCC he asked\n",
            )
        }
    )
    done = unite()
    united = "AAAAAAAAAAAAAAAA she asked\nBBBBBBBBBBBBBBBB both\nCCCCCCCCCCCCCCCC he asked\n"
    assert (Path(name).read_text(), done.tombstones) == (united, 3)


@pytest.mark.parametrize("salt", ["salt", "other"])
def test_of_ledgers_of_two_salts_the_one_that_params_name_counts(project, salt):
    """A side that starts anew takes another salt and an empty ledger: its lines and the old ones are no one ledger."""
    file = "data/split_ledger/all.txt"
    dice = random.Random(2)
    one, other = in_folder() | some_lines(dice, 1), some_lines(dice, 3)
    texts = canonical(one).decode(), canonical(other, salt_mark("other")).decode()
    conflict(**{file: texts, "params.yaml": ("split: {salt: salt}\n", "split: {salt: other}\n")})
    assert unite().left[FOLDER].startswith("the sides were split with different values of split.salt; set split.salt")
    Path("params.yaml").write_text(f"split: {{salt: {salt}}}\n")
    git("add", "params.yaml")
    done = unite()
    assert done.left == {}
    assert Path(file).read_bytes() == (canonical(one) if salt == "salt" else canonical(other, salt_mark("other")))
    assert list(lost_in(version_in_folder(), baselines(), salt=salt)) == []
    git("commit", "-q", "--no-edit")


def test_a_damaged_line_of_the_former_form_is_named_by_commit_and_file(project):
    Path(f"{FOLDER}.ndjson").write_text(former(FORMER_LINES[:1]) + "half\n")
    commit()
    assert unite().left[FOLDER].startswith(f"HEAD:{FOLDER}.ndjson:3 is not JSON")


@pytest.mark.parametrize("salt", ["salt", "other"])
def test_of_former_ledgers_of_two_salts_the_one_that_params_name_counts(project, salt):
    """Git leaves both headers in one file, between markers."""
    git("rm", "-q", "-r", FOLDER)
    Path(f"{FOLDER}.ndjson").write_text(former(FORMER_LINES[:1]))
    commit()
    commit("another commit: the lines of the fixture are long gone")
    git("tag", "-f", "start")
    anew = former([{**line, "unit": "f" * 16} for line in FORMER_LINES]).replace(SALT, salt_mark("other"))
    conflict(**{
        f"{FOLDER}.ndjson": (former(FORMER_LINES[:3]), anew),
        "params.yaml": ("split: {salt: salt}\n", "split: {salt: other}\n"),
    })  # fmt: skip
    Path("params.yaml").write_text(f"split: {{salt: {salt}}}\n")
    git("add", "params.yaml")
    done = unite()
    assert (done.left, len(in_folder())) == ({}, 3 if salt == "salt" else 4)
    assert Path(FOLDER, "all.txt").read_text().startswith(f"# codex-ml/ledger/2 salt {salt_mark(salt)}\n")


def test_lines_that_a_revert_took_are_noticed_and_brought_back(project):
    lines = in_folder() | some_lines(random.Random(4), 5)
    write_ledger(lines)
    commit()
    tip = git("rev-parse", "HEAD").stdout.strip()
    git("revert", "--no-edit", "HEAD")
    [found] = lost_in(version_in_folder(), baselines(), salt="salt")
    assert found.startswith(f"data/split_ledger lacks 5 lines that {tip[:12]} has")
    done = unite()
    assert (done.added, in_folder(), done.next_steps[0]) == (5, lines, f"git add {FOLDER}")
    assert unite().added == 0
    git("checkout", "-q", "--", FOLDER)
    commit("another commit: the revert is no more the last one")
    assert unite().added == 0
    assert unite([tip]).added == 5
    assert in_folder() == lines


def test_a_name_that_is_not_a_commit_is_refused_before_anything_is_done(project):
    for name in ("nobody", "--all", "HEAD:data"):
        with pytest.raises(UserError, match=f"^'{name}' is not a Git revision or an experiment of this clone"):
            unite([name])


@pytest.mark.parametrize("head", ["no ledger", "an empty one", "one of another salt"])
def test_lines_that_are_in_no_commit_are_kept(project, head):
    """The first `codex-ml ledger accept` of a project, or of a new salt, before its commit."""
    file = Path(FOLDER, "all.txt")
    git("rm", "-q", str(file))
    if head != "no ledger":
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"" if head == "an empty one" else canonical(in_folder(), salt_mark("other")))
    Path("params.yaml").write_text("split: {salt: salt}\n")
    commit()
    commit("another commit: the lines of the fixture are long gone")
    lines = some_lines(random.Random(8), 9)
    write_ledger(lines)
    done = unite()
    assert (done.left, done.lines, done.brought, done.added, in_folder()) == ({}, 9, 9, 0, lines)


@pytest.mark.parametrize("form", ["all.txt", "two salts", "former"])
def test_lines_of_another_salt_that_are_in_no_commit_are_not_dropped(project, form):
    """params.yaml says whose lines count, and no commit could bring back the others."""
    Path("params.yaml").write_text("split: {salt: salt}\n")
    commit()
    file, other = Path(FOLDER, "all.txt"), some_lines(random.Random(8), 3)
    if form == "former":
        file = Path(f"{FOLDER}.ndjson")
        entry = {"content": "0" * 32, "place": "0" * 16, "unit": "0" * 16, "split": "test", "kept": True}
        head = {"schema": "codex-ml/ledger/1", "salt": salt_mark("other")}
        file.write_text(json.dumps(head) + "\n" + json.dumps(entry) + "\n")
    else:
        before = file.read_bytes() if form == "two salts" else b""
        file.write_bytes(before + canonical(other, salt_mark("other")))
    data = file.read_bytes()
    assert f"{file} was split with another split.salt than params.yaml has" in unite().left[FOLDER]
    assert file.read_bytes() == data


def test_a_merge_that_ended_and_lost_lines_is_mended(project):
    """`git checkout --ours` of the whole ledger, then a commit: the parents still have the lines."""
    base = in_folder()
    dice = random.Random(4)
    a, b = some_lines(dice, 5), some_lines(dice, 7)
    side("a", a, dice, others=True)
    side("b", b, dice, others=True)
    git("merge", "a", check=False)
    git("checkout", "b", "--", "data/split_ledger", "dvc.lock", "reports")
    git("add", "-A")
    git("commit", "-q", "--no-edit")
    tip = git("rev-parse", "a").stdout.strip()[:12]
    [found] = lost_in(version_in_folder(), baselines(), salt="salt")
    assert found.startswith(f"data/split_ledger lacks 5 lines that {tip} has (in all.txt)")
    done = unite()
    assert (done.added, done.brought, in_folder()) == (5, 5, base | a | b)
    assert done.next_steps[0] == "git add data/split_ledger"
    assert list(lost_in(version_in_folder(), baselines(), salt="salt")) == []


def test_an_experiment_with_fewer_lines_is_noticed_and_repaired(project):
    """What `dvc exp apply` does: files of another commit, over those of the workspace."""
    base = in_folder()
    side("mine", some_lines(random.Random(5), 31), random.Random(5), others=False)
    git("checkout", "start", "--", "data/split_ledger")
    [found] = lost_in(version_in_folder(), baselines(), salt="salt")
    assert "lacks 31 lines that HEAD has" in found
    assert unite().added == 31
    assert len(in_folder()) == len(base) + 31
    assert list(lost_in(version_in_folder(), baselines(), salt="salt")) == []


def test_outside_of_git_there_is_nothing_to_merge(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="not in a Git repository with a commit"):
        unite()
    assert baselines() == []


def dvc(*arguments: str) -> None:
    from dvc.cli import main

    assert main(list(arguments)) == 0


def to_dvc(lines: set[str]) -> None:
    """Put the ledger into shards and DVC, as `codex-ml ledger accept` and the commands that it prints do."""
    ledger_files.write_folder(Path(FOLDER), [read_ledger_text(canonical(lines), "").lines], SALT)
    git("rm", "-r", "--cached", "--quiet", "--ignore-unmatch", FOLDER)
    dvc("add", "--quiet", FOLDER)


@pytest.mark.parametrize("forms", ["git and dvc", "dvc and dvc"])
def test_a_ledger_of_dvc_is_united_with_one_of_git_or_of_dvc(project, monkeypatch, forms):
    """The pointers conflict, or one side removed the file that the other changed; the lines come from DVC's cache."""
    monkeypatch.setattr(ledger_files, "LINES_IN_ONE_FILE", 20)
    dvc("init", "--quiet")
    commit("dvc")
    git("tag", "-f", "start")
    dice = random.Random(7)
    base, a, b = in_folder(), some_lines(dice, 30), some_lines(dice, 25 if forms == "dvc and dvc" else 5)
    for branch, lines in (("a", a), ("b", b)):
        git("checkout", "-q", "-B", branch, "start")
        shutil.rmtree(FOLDER)
        if len(base | lines) < 20:
            write_ledger(base | lines)
        else:
            to_dvc(base | lines)
        commit(branch)
    assert "already" not in git("merge", "a", check=False).stdout
    done = unite()
    assert (done.left, in_folder()) == ({}, base | a | b)
    assert git("ls-files", "-u").stdout == ""
    assert git("ls-files", FOLDER).stdout == ""
    pointer = git("show", f":{FOLDER}.dvc").stdout
    assert f"md5: {version_in_folder().folder_md5}\n" in pointer
    again = unite()
    assert (again.added, again.left, git("show", f":{FOLDER}.dvc").stdout) == (0, {}, pointer)
    bases = baselines()
    assert list(lost_in(version_in_index(), bases, salt="salt")) == list(not_compared(version_in_index(), bases)) == []
    git("commit", "-q", "--no-edit")

    # An experiment with fewer lines: the folder has them no more, and the pointer of HEAD does.
    (shard,) = random.Random(8).sample([file for file in Path(FOLDER).glob("*.txt") if file.stat().st_size > 60], 1)
    gone = len(read_ledger_text(shard.read_bytes(), "").lines)
    shard.unlink()
    found, *_ = lost_in(version_in_folder(), baselines(), salt="salt")
    assert f"lacks {gone} line" in found and f"that HEAD has (in {shard.name})" in found
    assert unite().added == gone
    assert list(lost_in(version_in_folder(), baselines(), salt="salt")) == []

    # Without the cache nothing can be compared, and that is said.
    shard.unlink()
    shutil.rmtree(".dvc/cache/files")
    assert list(lost_in(version_in_folder(), baselines(), salt="salt")) == []
    note, *_ = not_compared(version_in_folder(), baselines())
    assert "the ledger of HEAD is not in DVC's cache; `dvc fetch --all-commits data/split_ledger.dvc` brings it" in note
    assert "codex-ml merge` again" in unite().left[f"{FOLDER}.dvc"]


FORMER_LINES = [
    {"content": f"{number:032x}", "place": f"{number:016x}", "unit": f"{number:016x}", "split": split, "kept": kept}
    for number, (split, kept) in enumerate([("train", True), ("test", True), ("val", False), ("pool", True)], 1)
]


def former(lines: list[dict]) -> str:
    return "".join(json.dumps(line) + "\n" for line in [{"schema": "codex-ml/ledger/1", "salt": SALT}, *lines])


def test_a_side_that_still_has_the_former_form_is_converted_and_united(project):
    base = in_folder()
    git("rm", "-q", "-r", FOLDER)
    Path(f"{FOLDER}.ndjson").write_text(former(FORMER_LINES[:2]))
    commit("as before")
    git("tag", "-f", "start")
    git("checkout", "-q", "-B", "old", "start")
    Path(f"{FOLDER}.ndjson").write_text(former(FORMER_LINES))
    commit("more lines, former form")
    git("checkout", "-q", "-B", "new", "start")
    Path(f"{FOLDER}.ndjson").unlink()
    write_ledger(base)
    commit("converted, and other lines")
    git("merge", "old", check=False)
    done = unite()
    assert done.left == {}
    assert in_folder() > base
    assert len(in_folder()) == len(base) + 4
    assert not Path(f"{FOLDER}.ndjson").exists()
    assert git("ls-files", "-u").stdout + git("ls-files", f"{FOLDER}.ndjson").stdout == ""
    assert list(lost_in(version_in_index(), baselines(), salt="salt")) == []
    git("commit", "-q", "--no-edit")


def test_the_command_says_what_it_did_and_ends_with_1_while_something_is_left(project, capsys, monkeypatch):
    Path("src/codex_ml").mkdir(parents=True)
    Path("src/codex_ml/a.py").write_text("")
    Path("dvc.yaml").write_text("stages: {}\n")
    commit("a project")
    git("tag", "-f", "start")

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["codex-ml", "merge", *words])
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    assert run() == (0, "ledger: 12 lines, HEAD lacks 0 of them, the folder lacked 0\nmerge: nothing to do\n", "")
    conflict(**{"params.yaml": ("a: 1\n", "a: 2\n"), "dvc.lock": ("1\n", "2\n")})
    code, out, err = run()
    assert (code, err) == (1, "error: 1 file is left for you to resolve\n")
    assert out.splitlines() == [
        "ledger: 12 lines, HEAD lacks 0 of them, the folder lacked 0",
        "results: dvc.lock as in HEAD; `dvc repro` updates them",
        "left for you: params.yaml: line 1: keep what you want of both sides, delete the markers, then `git add params.yaml`",
        "next: `codex-ml merge`",
    ]
    code, out, _ = run("--json")
    assert code == 1
    assert json.loads(out)["left"].keys() == {"params.yaml"}
    git("checkout", "--ours", "params.yaml")
    git("add", "params.yaml")
    code, out, err = run()
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == (
        "next: `dvc repro --pull`, `codex-ml ledger accept`, `dvc repro`, `git add dvc.lock reports`, `git commit`"
    )


def test_it_works_in_a_linked_work_tree_and_in_a_folder_of_a_larger_repository(project):
    base, dice = in_folder(), random.Random(9)
    git("mv", "data", "ml-data")
    Path("ml").mkdir()
    git("mv", "ml-data", "ml/data")
    shutil.copy(".gitattributes", "ml/.gitattributes")
    commit("a project in a folder")
    git("tag", "-f", "start")
    lines = {}
    for branch in ("a", "b"):
        git("checkout", "-q", "-B", branch, "start")
        os.chdir("ml")
        lines[branch] = some_lines(dice, 4)
        write_ledger(base | lines[branch])
        Path("params.yaml").write_text(f"{branch}: 1\n")
        os.chdir("..")
        commit(branch)
    git("worktree", "add", "-q", "../linked", "-b", "c", "a")
    os.chdir("../linked/ml")
    git("merge", "b", check=False)
    done = unite()
    assert (done.operation, list(done.left), in_folder()) == ("merge", ["params.yaml"], base | lines["a"] | lines["b"])
    assert git("show", ":./data/split_ledger/all.txt").stdout.encode() == canonical(in_folder())
