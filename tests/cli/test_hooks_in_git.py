"""The hooks as Git runs them: real commits through real pre-commit, with odd names, in a work tree, in a monorepo."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.costly
ROOT = Path(__file__).parents[2]
FILES = (
    ".pre-commit-config.yaml",
    ".gitattributes",
    ".ci/hook",
    "dvc.yaml",
    "requirements.lock",
    "torch.lock",
    "pyproject.toml",
    "src/codex_ml/__init__.py",
)
KEY = "AKIA" + "Q3EGV7XZ5PLMKTWN"  # invented pragma: allowlist secret
HOOKS = ("secrets", "env-files", "large-files", "yaml", "line-endings", "conflicts")
OTHERS = "mypy,check,ruff-check,ruff-format,test-fast,pipeline"

POLICY = """\
version: 1
rules:
  - {id: aws-key-id, description: d, kind: secret, severity: critical, action: redact, literals: [AKIA],
    pattern: 'AKIA[A-Z2-7]{16}'}
"""


class Checkout:
    """A Git repository with our hooks, those of pre-commit's own commands that need no network."""

    def __init__(self, top: Path, folder: str = "", *, environment: bool = True) -> None:
        self.top, self.project = top, top / folder
        self.git("init", "-q", "-b", "main") if not (top / ".git").exists() else None
        if environment:
            (self.project / ".venv").symlink_to(sys.prefix)

    skipped = "mypy,check"

    def only(self, *hooks: str) -> None:
        """Run these hooks and no other."""
        self.skipped = ",".join({*HOOKS, *OTHERS.split(","), "ledger"} - {*hooks})

    def run(self, *command: str | bytes, cwd: Path | None = None) -> subprocess.CompletedProcess[bytes]:
        kept = {
            k: v
            for k, v in os.environ.items()
            if not k.startswith(("GIT_", "PRE_COMMIT", "COV", "PYTHON", "MAKE", "MFLAGS"))
        }
        kept |= {
            "HOME": str(self.top.parent),
            "PRE_COMMIT_HOME": str(self.top.parent / "pre-commit"),
            "SKIP": self.skipped,
        }
        names = {
            f"GIT_{who}_{what}": "test@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
        }
        return subprocess.run(
            command,
            cwd=cwd or self.top,
            env=kept | names,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )

    def git(self, *arguments: str | bytes) -> bytes:
        done = self.run("git", *arguments)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def install(self) -> None:
        done = self.run(sys.executable, "-m", "pre_commit", "install")
        assert done.returncode == 0, done.stdout

    def stage(self, name: str | bytes, text: str) -> None:
        """Write a file of the project and stage it, whatever its name is."""
        file = os.path.join(os.fsencode(self.project), os.fsencode(name))  # noqa: PTH118 - bytes
        os.makedirs(os.path.dirname(file), exist_ok=True)  # noqa: PTH103, PTH120
        with open(file, "w", encoding="utf-8") as handle:  # noqa: PTH123
            handle.write(text)
        self.git("add", "-f", "--", file)

    def commit(self) -> tuple[int, str]:
        done = self.run("git", "commit", "-q", "-m", "change")
        return done.returncode, done.stdout.decode("utf-8", "replace")


def fill(project: Path) -> None:
    for name in FILES:
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, project / name)
    shutil.copytree(ROOT / "src", project / "src", dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    (project / "data").mkdir()
    (project / "data/policy.yaml").write_text(POLICY, encoding="utf-8")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with one commit and its hooks installed."""
    top = tmp_path_factory.mktemp("hooks") / "repository"
    fill(top)
    checkout = Checkout(top, environment=False)
    checkout.git("add", "-A")
    checkout.git("commit", "-q", "-m", "start")
    shutil.copytree(ROOT / "src", top / "src", dirs_exist_ok=True)  # with byte code, which every hook would make again
    (top / ".git/info/exclude").write_text("__pycache__\n")
    checkout.install()
    return top


@pytest.fixture
def checkout(template: Path, tmp_path: Path) -> Checkout:
    shutil.copytree(template, tmp_path / "my repo", symlinks=True)
    return Checkout(tmp_path / "my repo")


# What is an option, standard input, a pattern, a command or a line of its own to something that does not expect it.
ODD = (
    "--help", "--version", "--debug", "--", "-", "-h", "-x.txt", "--fix", "--install-completion", "-c", "@file", "*", "~",
    "a b", " ", "a\nb.txt", "a\tb", "'", '"', "\\", "$(touch owned)", "`touch owned`", "; touch owned", "#", "ünï", "%s",
    "src/-", "-dir/--help", "--help.py", "a\n.yaml", "\n", "\u202egnp.txt",
)  # fmt: skip


def test_names_of_every_shape_hide_nothing_and_are_no_fault(checkout):
    """A name that is taken for an option ends a hook with help and exit code 0, and the files beside it go in."""
    for name in ODD:
        checkout.stage(name, "x = 1\n" if name.endswith(".py") else "a: 1\n")
    wrong = {
        "secrets": ("key.txt", f"{KEY}\n", "key.txt:1:1: looks like a secret (aws-key-id)"),
        "env-files": (".env", "a=1\n", ".env: a file for credentials"),
        "large-files": ("large.txt", "0" * (513 * 1024), "large.txt: 513 KiB"),
        "yaml": ("wrong.yaml", "a: 1\na: 2\n", "wrong.yaml:2: found duplicate key"),
        "conflicts": ("halves.md", "<<<<<<< HEAD\n", "halves.md:1: conflict markers of a merge"),
        "line-endings": ("windows.txt", "a\r\n", "windows.txt:1: a carriage return"),
        "ruff-check": ("imports.py", "import os\n", "imports.py:1:8"),
        "ruff-format": ("style.py", "x  =  1\n", "style.py:1:3"),
    }
    for name, text, _ in wrong.values():
        checkout.stage(name, text)
    code, output = checkout.commit()
    assert code == 1
    for hook, (_, _, finding) in wrong.items():
        assert f"- hook id: {hook}\n- exit code: 1\n" in output
        assert finding in output
    checkout.git("rm", "-q", "-f", "--", *(name for name, _, _ in wrong.values()))
    assert checkout.commit()[0] == 0
    assert not (checkout.top / "owned").exists()


@pytest.mark.parametrize(
    "name",
    [
        *("--help", "a\nerror: b: not so"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("-", "--", "-x.py", "a\nb.yaml", "-dir/ünï")),
    ],
)
def test_what_is_in_a_file_of_an_odd_name_is_found(checkout, name):
    checkout.only("secrets", "line-endings")
    checkout.stage(name, f"a: {KEY}\r\n")
    code, output = checkout.commit()
    assert code == 1
    shown = name.replace("\n", "\\n")
    assert f"\n{shown}:1:4: looks like a secret (aws-key-id)" in output
    assert f"\n{shown}:1: a carriage return" in output


def test_python_without_a_name_of_its_own_is_not_read_from_standard_input(checkout):
    """For ruff `-` alone is standard input, which is empty in a hook."""
    checkout.only("ruff-check")
    checkout.stage("-", "#!/usr/bin/env python\nimport os\n")
    (checkout.top / "-").chmod(0o755)
    checkout.git("add", "-f", "--", "./-")
    code, output = checkout.commit()
    assert code == 1
    assert "- hook id: ruff-check\n- exit code: 1\n" in output


def test_a_name_that_is_not_utf8_does_not_let_a_secret_pass(checkout):
    """pre-commit itself cannot read such a name; a commit of it fails, whatever is in it."""
    checkout.stage(b"\xff.txt", "nothing\n")
    checkout.stage("key.txt", f"{KEY}\n")
    assert checkout.commit()[0] != 0
    assert checkout.git("rev-list", "--count", "HEAD") == b"1\n"


def test_a_work_tree_is_checked_with_the_environment_of_the_main_one(checkout):
    checkout.git("worktree", "add", "-q", "-b", "side", "../side tree")
    side = Checkout(checkout.top.parent / "side tree", environment=False)
    side.only("secrets")
    side.stage("key.txt", f"{KEY}\n")
    code, output = side.commit()
    assert (code, "key.txt:1:1: looks like a secret (aws-key-id)" in output) == (1, True)
    side.stage("src/codex_ml/cli/hooks.py", "raise SystemExit('the library of the work tree')\n")
    assert "\nthe library of the work tree\n" in side.commit()[1]


def test_a_work_tree_without_a_fitting_environment_says_what_to_do(checkout):
    checkout.git("worktree", "add", "-q", "-b", "side", "../side")
    side = Checkout(checkout.top.parent / "side", environment=False)
    side.only("secrets", "ledger")
    side.stage("requirements.lock", "# other packages\n")
    code, output = side.commit()
    assert code == 1
    lines = {line for line in output.splitlines() if line.startswith("error: ")}
    assert lines == {
        f"error: {checkout.top}/.venv was made from another requirements.lock than that of this work tree; run `make setup` in {side.top}"
    }
    (checkout.top / ".venv").unlink()
    code, output = side.commit()
    lines = {line for line in output.splitlines() if line.startswith("error: ")}
    assert (code, lines) == (1, {f"error: there is no .venv in {side.top}; run `make setup` there"})


# --- lines of the split ledger

LEDGER = "data/split_ledger/all.txt"
HEADER = "# codex-ml/ledger/2 salt 0123456789abcdef\n"
LINES = [f"{letter * 16} {'A' * 11} {'A' * 6} T\n" for letter in "ABCDEFGH"]


@pytest.fixture
def ledger(checkout: Checkout) -> Checkout:
    """A ledger of four lines is committed; of the hooks only that for the ledger runs."""
    checkout.only("ledger")
    checkout.stage(LEDGER, HEADER + "".join(LINES[:4]))
    code, output = checkout.commit()
    assert code == 0, output
    return checkout


def lacks(output: bytes | str) -> str:
    """What the hook says that is lacking."""
    text = output.decode() if isinstance(output, bytes) else output
    found = [line for line in text.splitlines() if " lacks " in line]
    return found[0].split(" lacks ")[1].split(" (")[0] if found else "nothing"


@pytest.mark.parametrize(
    "way",
    [
        *("commit --only", "rename"),
        *(pytest.param(way, marks=pytest.mark.slow) for way in ("commit", "commit -a", "rm --cached", "emptied")),
    ],
)
def test_a_commit_that_loses_lines_of_the_ledger_is_refused_however_it_is_made(ledger, way):
    """Of the index that Git really commits: `git commit -a` and `git commit FILE` make one of their own."""
    file = ledger.project / LEDGER
    if way == "rename":
        ledger.git("mv", LEDGER, "data/elsewhere.txt")
    elif way == "rm --cached":
        ledger.git("rm", "-q", "--cached", LEDGER)
    else:
        file.write_text("" if way == "emptied" else HEADER + "".join(LINES[1:4]))
    words = {"commit -a": ("-a",), "commit --only": ("--only", LEDGER), "emptied": ("-a",)}.get(way, ())
    if way == "commit":
        ledger.git("add", LEDGER)
    done = ledger.run("git", "commit", "-q", "-m", "cut", *words)
    assert (done.returncode, lacks(done.stdout)) == (
        1,
        "1 line that HEAD has" if "commit" in way else "4 lines that HEAD has",
    )
    assert b"`codex-ml merge` brings them back" in done.stdout
    assert b"`codex-ml ledger forget`" in done.stdout
    assert b"error" not in done.stdout  # a finding is no fault of the hook


def test_more_lines_and_the_same_lines_in_another_order_are_committed(ledger):
    for lines in (LINES[:6], LINES[5::-1] + LINES[:2]):
        ledger.stage(LEDGER, HEADER + "".join(lines))
        code, output = ledger.commit()
        assert code == 0, output


def test_what_is_only_in_the_work_tree_is_not_committed_and_not_judged(ledger):
    (ledger.project / LEDGER).write_text(HEADER)
    ledger.stage("other.txt", "text\n")
    assert ledger.commit()[0] == 0


@pytest.mark.parametrize(
    "way", ["no conflict", "conflict, one side taken", pytest.param("united", marks=pytest.mark.slow)]
)
def test_a_merge_is_compared_with_both_parents(ledger, way):
    """A merge without conflicts runs no pre-commit hook, but pre-merge-commit."""
    ledger.git("checkout", "-q", "-b", "other")
    if way == "no conflict":  # somebody without hooks has cut the ledger
        (ledger.project / LEDGER).write_text(HEADER + "".join(LINES[1:4]))
    else:
        ledger.stage(LEDGER, HEADER + "".join(LINES[:6]))
        ledger.stage("params.yaml", "a: 1\n")
    ledger.git("commit", "-q", "-a", "--no-verify", "-m", "other")
    ledger.git("checkout", "-q", "main")
    ledger.stage("mine.txt" if way == "no conflict" else "params.yaml", "a: 2\n")
    assert ledger.commit()[0] == 0
    merged = ledger.run("git", "merge", "--no-edit", "other")
    if way != "no conflict":
        ledger.stage("params.yaml", "a: 3\n")
        if way != "united":
            ledger.git("checkout", "HEAD", "--", LEDGER)
        merged = ledger.run("git", "commit", "-q", "--no-edit")
    tip = ledger.git("rev-parse", "other").decode()[:12]
    expected = {
        "no conflict": (1, "1 line that HEAD has"),
        "conflict, one side taken": (1, f"2 lines that {tip} has"),
        "united": (0, "nothing"),
    }
    assert (int(merged.returncode != 0), lacks(merged.stdout)) == expected[way], merged.stdout


def test_a_push_that_loses_lines_is_refused_also_where_no_hook_saw_the_commit(ledger):
    """A rebase runs no hook of commits."""
    ledger.git("init", "-q", "--bare", "../shared.git")
    ledger.git("remote", "add", "origin", "../shared.git")
    assert ledger.run("git", "push", "-q", "origin", "main").returncode == 0
    (ledger.project / LEDGER).write_text(HEADER + "".join(LINES[2:4]))
    ledger.git("commit", "-q", "-a", "--no-verify", "-m", "cut")
    done = ledger.run("git", "push", "-q", "origin", "main")
    assert (done.returncode, lacks(done.stdout).split(" that ")[0]) == (1, "2 lines")
    (ledger.project / LEDGER).write_text(HEADER + "".join(LINES))
    ledger.git("commit", "-q", "-a", "-m", "all")
    assert ledger.run("git", "push", "-q", "origin", "main").returncode == 0


@pytest.mark.parametrize("way", ["merge -s ours", pytest.param("revert", marks=pytest.mark.slow)])
def test_a_push_finds_what_was_lost_some_commits_ago(ledger, way):
    """HEAD and what the remote has do not have the lines; a commit on the way has, and the message names it."""
    ledger.git("init", "-q", "--bare", "../shared.git")
    ledger.git("remote", "add", "origin", "../shared.git")
    assert ledger.run("git", "push", "-q", "origin", "main").returncode == 0
    if way == "revert":
        ledger.stage(LEDGER, HEADER + "".join(LINES[:6]))
        ledger.git("commit", "-q", "-m", "more")
        tip = ledger.git("rev-parse", "HEAD").decode()[:12]
        ledger.git("revert", "--no-edit", "HEAD")
    else:
        ledger.git("checkout", "-q", "-b", "other")
        ledger.stage(LEDGER, HEADER + "".join(LINES[:6]))
        ledger.git("commit", "-q", "-m", "more")
        tip = ledger.git("rev-parse", "HEAD").decode()[:12]
        ledger.git("checkout", "-q", "main")
        ledger.git("merge", "-q", "--no-verify", "-s", "ours", "--no-edit", "other")
    ledger.stage("other.txt", "text\n")
    assert lacks(ledger.commit()[1]) == f"2 lines that {tip} has"  # while HEAD is the merge, or the revert
    ledger.git("commit", "-q", "--no-verify", "-m", "one more commit")
    done = ledger.run("git", "push", "-q", "origin", "main")
    assert (done.returncode, lacks(done.stdout)) == (1, f"2 lines that {tip} has")
    assert f"`codex-ml merge {tip}` brings them back".encode() in done.stdout
    assert done.stdout.count(b" lacks ") == 1


@pytest.fixture
def monorepo(template: Path, tmp_path: Path) -> Checkout:
    """The project is the folder "teams/it's ml" of a Git repository that has other files too."""
    project = tmp_path / "mono/teams/it's ml"
    shutil.copytree(template, project, ignore=shutil.ignore_patterns(".git"))
    checkout = Checkout(tmp_path / "mono", "teams/it's ml")
    printed = checkout.run(".venv/bin/python", "-m", "codex_ml", "hook", "config", cwd=project)
    assert printed.returncode == 0, printed.stdout
    (checkout.top / ".pre-commit-config.yaml").write_bytes(printed.stdout)
    checkout.install()
    return checkout


def test_a_project_in_a_monorepo_is_checked_and_nothing_else_is(monorepo):
    monorepo.stage("key.txt", f"{KEY}\n")
    monorepo.stage("--help", f"{KEY}\n")
    monorepo.stage("wrong.yaml", "a: 1\na: 2\n")
    monorepo.stage("../other/key.txt", f"{KEY}\n")
    monorepo.stage("../../key.txt", f"{KEY}\n")
    code, output = monorepo.commit()
    assert code == 1
    found = sorted(line for line in output.splitlines() if "looks like" in line or "duplicate" in line)
    assert [line.split(" ", 1)[0] for line in found] == ["--help:1:1:", "key.txt:1:1:", "wrong.yaml:2:"]
    for name in ("key.txt", "--help", "wrong.yaml"):
        monorepo.git("rm", "-q", "-f", "--", str(monorepo.project / name))
    assert monorepo.commit()[0] == 0
    monorepo.only("ledger")
    for lines, code in ((LINES[:4], 0), (LINES[1:4], 1)):
        monorepo.stage(LEDGER, HEADER + "".join(lines))
        done = monorepo.run("git", "commit", "-q", "-a", "-m", "ledger")
        assert done.returncode == code, done.stdout
    assert lacks(done.stdout) == "1 line that HEAD has"


def test_make_hooks_in_a_monorepo_says_how_the_hooks_are_set(monorepo):
    (monorepo.top / ".pre-commit-config.yaml").unlink()
    shutil.copyfile(ROOT / "Makefile", monorepo.project / "Makefile")
    words = ("make", "-o", "setup", "hooks")
    done = monorepo.run(*words, cwd=monorepo.project)
    assert done.returncode == 2
    config = "../../.pre-commit-config.yaml"
    assert done.stdout.decode().splitlines()[0] == (
        f"error: this folder is inside a larger Git repository, whose hooks are in {config}; write that file with "
        f"`.venv/bin/python -P -m codex_ml hook config > {config}` (if it exists, add the hooks that are printed)"
    )
    assert (
        monorepo.run(
            "sh", "-c", f".venv/bin/python -P -m codex_ml hook config > {config}", cwd=monorepo.project
        ).returncode
        == 0
    )
    assert monorepo.run(*words, cwd=monorepo.project).returncode == 0
    installed = {file.name for file in (monorepo.top / ".git/hooks").iterdir() if file.suffix != ".sample"}
    wanted = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["default_install_hook_types"]
    assert installed == set(wanted) == {"pre-commit", "pre-merge-commit", "pre-push"}
