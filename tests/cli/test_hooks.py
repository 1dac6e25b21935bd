"""The local gates: what they refuse, with file and line, and what they let pass."""

from __future__ import annotations

import errno
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from codex_ml.cli import hooks
from codex_ml.cli.hooks import stages_to_run
from codex_ml.core.yaml import read_yaml

ROOT = Path(__file__).parents[2]
SECRET = "gh" + "p_" + "aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bC1eF3hJ5"  # pragma: allowlist secret


def hook(name: str, *files: Path) -> tuple[int, str]:
    result = CliRunner().invoke(hooks.app, [name, *map(str, files)])
    return result.exit_code, result.stderr


@pytest.mark.parametrize(
    ("name", "file", "data", "told"),
    [
        ("secrets", "a.py", f"x = 1\nt = '{SECRET}'\n".encode(), ":2:6: looks like a secret (github-token)"),
        ("secrets", "a.txt", f"{SECRET}\n".encode("utf-16"), ":1:1: looks like a secret"),
        ("secrets", "a.bin", b"\xff\xff" + SECRET.encode(), "looks like a secret"),
        (
            "large-files",
            "a.bin",
            b"0" * (512 * 1024 + 1),
            "512 KiB, more than 512; keep data and models in DVC (`dvc add`)",
        ),
        ("env-files", ".env", b"", "a file for credentials"),
        ("env-files", "id_ed25519", b"", "a file for credentials"),
        ("env-files", "Server.PEM", b"", "a file for credentials"),
        ("yaml", "a.yaml", b"a: 1\na: 2\n", ":2: found duplicate key"),
        ("yaml", "a.yaml", b"a:\n\tb: 1\n", ":2: a tab cannot indent YAML"),
        ("yaml", "a.yaml", b"a: {x: 1,\n<<<<<<< HEAD\n}\n", ":2: conflict markers of a merge"),
        ("yaml", "a.yaml", b"a: \xff\n", " is not UTF-8 (byte 3)"),
        ("line-endings", "a.py", b"x\ny\r\n", ":2: a carriage return"),
        ("line-endings", "a.txt", b"x\r\ny\r\n", ":1: a carriage return"),
        ("line-endings", "a.txt", b"x\ny\rz\n", ":2: a carriage return"),
        ("conflicts", "a.md", b"||||||| base\n", ":1: conflict markers of a merge"),
    ],
)
def test_what_must_not_be_committed_is_named(project, tmp_path, monkeypatch, name, file, data, told):
    monkeypatch.chdir(project)
    (tmp_path / file).write_bytes(data)
    code, errors = hook(name, tmp_path / file)
    assert code == 1
    assert f"{tmp_path / file}" in errors
    assert told in errors
    assert errors.count("\n") == 1
    assert SECRET not in errors


@pytest.mark.parametrize(
    ("name", "lines", "refused"),
    [
        ("all.txt", 20_000, False),  # 760 kB: more than other files may have
        ("all.txt", 99_999, False),
        ("all.txt", 100_000, True),
        ("00.txt", 1, True),  # a shard: of a ledger that is not in one file any more
        ("ff.txt", 0, True),
        ("forgotten.txt", 20_000, False),
    ],
)
def test_the_ledger_may_be_in_git_as_long_as_it_is_one_file(tmp_path, monkeypatch, name, lines, refused):
    monkeypatch.chdir(tmp_path)
    file = Path("data/split_ledger") / name
    file.parent.mkdir(parents=True)
    file.write_bytes(b"# codex-ml/ledger/2 salt 0123456789abcdef\n" + (b"A" * 37 + b"\n") * lines)
    code, errors = hook("large-files", file)
    assert code == refused
    if refused:
        assert errors.startswith(
            f"{file}: a ledger of 100000 lines or more belongs in DVC; `codex-ml merge` divides it"
        )
        assert "`git add data/split_ledger.dvc data/.gitignore`" in errors


@pytest.mark.parametrize(
    ("name", "file", "data"),
    [
        ("secrets", "a.py", f"t = '{SECRET}'  # {hooks.ALLOWED}\n".encode()),
        ("secrets", "a.py", b"t = os.environ['TOKEN']\n"),
        ("large-files", "a.bin", b"0" * 512 * 1024),
        ("env-files", ".env.example", b""),
        ("env-files", "environment.py", b""),
        ("yaml", "a.yaml", b"a: 3e-4\n"),
        ("line-endings", "a.bin", b"\0\r\n"),
        ("conflicts", "a.md", b"Heading\n=======\n"),
    ],
)
def test_what_is_in_order_passes(project, tmp_path, monkeypatch, name, file, data):
    monkeypatch.chdir(project)
    (tmp_path / file).write_bytes(data)
    assert hook(name, tmp_path / file) == (0, "")


def test_a_file_that_is_not_there_is_wrong_use(tmp_path):
    assert hook("secrets", tmp_path / "none")[0] == 2


@pytest.mark.parametrize("name", ["secrets", "line-endings", "conflicts"])
def test_a_file_that_cannot_be_read_is_one_line_about_the_disk(name, tmp_path, monkeypatch):
    def fail(self):
        raise OSError(errno.EIO, "Input/output error", str(self))

    file = tmp_path / "a.yaml"
    file.touch()
    monkeypatch.setattr(Path, "read_bytes", fail)
    code, told = hook(name, file)
    assert (code, told.count("\n")) == (1, 1)
    assert told.startswith("error: the disk failed (input/output error)") and str(file) in told


def test_stages_of_a_dry_run_are_read_from_its_text():
    text = (
        "Stage 'fetch' didn't change, skipping\nRunning stage 'train':\n> python -P stages/train.py\n\n"
        "Stage 'evaluate' is cached - skipping run, checking out outputs\nRunning stage 'report':\n"
    )
    assert stages_to_run(text) == ["train", "evaluate", "report"]
    assert stages_to_run("Data and pipelines are up to date.\n") == []


def test_hooks_are_local_and_need_no_network():
    config = read_yaml(ROOT / ".pre-commit-config.yaml")
    assert [repo["repo"] for repo in config["repos"]] == ["local"]
    listed = config["repos"][0]["hooks"]
    assert {entry["language"] for entry in listed} == {"system"}
    own = {re.findall(r"codex_ml hook ([a-z-]+)", entry["entry"])[0] for entry in listed if " hook " in entry["entry"]}
    commands = {
        command.name or command.callback.__name__.replace("_", "-") for command in hooks.app.registered_commands
    }
    assert own == commands - {"config"}


def test_every_hook_that_gets_names_ends_its_options_before_them():
    for entry in read_yaml(ROOT / hooks.CONFIG)["repos"][0]["hooks"]:
        words = entry["entry"].split()
        assert words[:3] == ["sh", ".ci/hook", "-m"]
        assert entry.get("pass_filenames", True) == ("--" in words)
        assert entry.get("files", "^").startswith("^")


@pytest.mark.parametrize("folder", ["ml/", "a b/it's/", "-x/", "$(x)/", "a.b/", "ünï/", "src/"])
def test_hooks_for_a_monorepo_match_what_ours_match_below_their_folder(folder):
    names = [
        "params.yaml",
        "dvc.lock",
        "src/a.py",
        "stages/a\nb.py",
        "a.yaml",
        "x/a.dvc",
        "README.md",
        "pyproject.toml",
    ]
    for hook in read_yaml(ROOT / hooks.CONFIG)["repos"][0]["hooks"]:
        moved = hooks.in_folder(folder, hook)
        words = shlex.split(moved["entry"])
        assert words[:2] == ["sh", f"{folder}.ci/hook"]
        # what .ci/hook makes of the others is what the hook calls in a project of its own
        assert [word.removeprefix(folder) for word in words[2:]] == shlex.split(hook["entry"])[2:]
        if hook.get("always_run"):
            assert moved == {**hook, "entry": moved["entry"]}
            continue
        for name in names:
            matches = bool(re.search(hook.get("files", ""), name))
            assert bool(re.search(moved["files"], folder + name)) is matches
            assert name.startswith(folder) or not re.search(moved["files"], name)
            assert not re.search(moved["files"], f"other/{folder}{name}")


def test_hooks_for_a_monorepo_need_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / hooks.CONFIG).write_text("repos: []\n")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    result = CliRunner().invoke(hooks.app, ["config"])
    assert (result.exit_code, result.stderr) == (
        2, "error: this folder is not in a Git repository; run `git init` in the top folder first\n"
    )  # fmt: skip
    subprocess.run(["git", "init", "-q"], check=True)
    result = CliRunner().invoke(hooks.app, ["config"])
    assert (result.exit_code, result.stderr) == (
        2,
        "error: this project is the top folder of its Git repository, which reads .pre-commit-config.yaml; "
        "run `make hooks`\n",
    )


@pytest.mark.shipped
def test_the_repository_itself_passes():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False).stdout.decode()
    files = [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]
    for name in ("secrets", "large-files", "env-files", "line-endings"):
        assert hook(name, *files) == (0, "")
