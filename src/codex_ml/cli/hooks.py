"""Checks of a commit or push: `codex-ml hook NAME FILES`, called by .pre-commit-config.yaml.

Each finding is one line on stderr that starts with `file:line`, or `file` where there is no line. Exit codes: 0 when
nothing is found, 1 for findings, 2 for wrong use. Values of secrets are never printed.

The hooks of the public package pre-commit-hooks 6.0 start in 0.03 s, these in 0.2 s. But the public ones miss cases:

- check-yaml accepts conflict markers between braces, and ends with a traceback at a file that is not UTF-8;
- mixed-line-ending passes a file whose lines all end with CRLF, or else rewrites it and turns a lone carriage return
  into a new line;
- check-merge-conflict looks only during a merge, and then refuses the underline of a heading;
- check-added-large-files skips a file that grows and a name with a newline, or else prints that name as two lines.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from codex_ml.cli.output import say
from codex_ml.core.conflicts import conflict_in
from codex_ml.core.errors import CheckFailed, UserError, one_line, one_line_errors
from codex_ml.core.paths import SPLIT_LEDGER
from codex_ml.core.repository_root import go_to_top

if TYPE_CHECKING:
    from codex_ml.policy.scan import Scanner

app = typer.Typer(help="Checks for Git hooks.", no_args_is_help=True)
Files = Annotated[list[Path], typer.Argument(exists=True, dir_okay=False, help="Files to check.")]

MAX_KIB = 512
MERGED = "GITHEAD_"  # begins the variables in which `git merge` names the commits that it merges
POLICY = Path("data/policy.yaml")  # of the repository whose commit is checked; Git runs hooks in its top folder
OUR_POLICY = Path(__file__).resolve().parents[3] / POLICY  # of this checkout, for a repository without one
CONFIG = Path(".pre-commit-config.yaml")
RUNNER = "sh .ci/hook"  # begins every entry of the configuration
SECRET_FILES = (
    ".env", ".env.*", "*.env", ".envrc", ".netrc", "_netrc", ".pgpass", ".pypirc", ".htpasswd", ".git-credentials",
    "id_rsa", "id_dsa", "id_ecdsa", "id_ed25519", "*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "*.kdbx", "config.local",
)  # fmt: skip
TEMPLATES = (".env.example", ".env.sample", ".env.template", ".env.dist", "example.env")
ALLOWED = "pragma: allowlist secret"  # the mark that detect-secrets and its users know

_WOULD_RUN = re.compile(r"^Running stage '(.+)':|^Stage '(.+)' is cached - skipping run", re.MULTILINE)


def _text(file: Path) -> str:
    """The file as text, whatever its bytes are: a damaged character must not hide the secret next to it."""
    data = file.read_bytes()
    return data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8", "replace")


@cache
def _scanner(policy: Path, top: Path) -> Scanner:
    """The rules of the policy that may stop a commit: those for credentials with severity high or critical.

    Args:
        policy: as messages name it.
        top: the current folder, where a relative `policy` lies; each has a scanner of its own.
    """
    from codex_ml.core.plugin_lock import refuse_other_code
    from codex_ml.policy.rules import load_policy  # here, because the other hooks need none of it
    from codex_ml.policy.scan import Scanner

    whole = load_policy(policy)
    refuse_other_code("detectors", whole.detectors, policy.parent / "detectors.lock")
    return Scanner(whole.only(kinds={"secret"}, severities={"high", "critical"}))


def find_secrets(file: Path) -> Iterator[str]:
    """Find credentials by the same rules that keep them out of the training text."""
    text = _text(file)
    lines = text.split("\n")
    for finding in _scanner(POLICY if POLICY.exists() else OUR_POLICY, Path.cwd()).scan(text):
        if ALLOWED not in lines[finding.line - 1]:
            yield (
                f"{file}:{finding.line}:{finding.column}: looks like a secret ({finding.rule}); remove and revoke it, "
                f"or end the line with `{ALLOWED}` if it is invented"
            )


def find_large_file(file: Path) -> Iterator[str]:
    """Find files that belong in DVC: Git keeps every version of a file forever."""
    size = file.stat().st_size
    if file.parent == SPLIT_LEDGER:
        yield from _large_ledger(file, size)
    elif size > MAX_KIB * 1024:
        yield f"{file}: {size / 1024:.0f} KiB, more than {MAX_KIB}; keep data and models in DVC (`dvc add`), not in Git"


def _large_ledger(file: Path, size: int) -> Iterator[str]:
    """Find a ledger that is too large for Git: it stays in Git, which can merge it, while it is one file."""
    from codex_ml.split.ledger.edits import LINES_IN_ONE_FILE
    from codex_ml.split.ledger.line_format import HEADER, WIDTH
    from codex_ml.split.ledger.shards import SHARDS

    if file.name in SHARDS or size >= len(HEADER) + 17 + LINES_IN_ONE_FILE * WIDTH:
        yield (
            f"{file}: a ledger of {LINES_IN_ONE_FILE} lines or more belongs in DVC; `codex-ml merge` divides it and "
            f"runs `dvc add {SPLIT_LEDGER}`, then `git add {SPLIT_LEDGER}.dvc {SPLIT_LEDGER.parent / '.gitignore'}`"
        )


def find_env_file(file: Path) -> Iterator[str]:
    """Find files whose name says that they hold credentials."""
    name = file.name.lower()
    if name not in TEMPLATES and any(fnmatchcase(name, pattern) for pattern in SECRET_FILES):
        yield f"{file}: a file for credentials; take it out with `git rm --cached` and list it in .gitignore"


def find_bad_yaml(file: Path) -> Iterator[str]:
    """Find YAML that DVC cannot read: syntax errors, tabs, keys given twice."""
    from codex_ml.core.yaml import read_yaml

    try:
        read_yaml(file)
    except UserError as error:
        yield str(error)


def find_carriage_return(file: Path) -> Iterator[str]:
    """Find Windows line endings: they change the hash of a text, so stages would run again."""
    data = file.read_bytes()
    if b"\0" not in data and b"\r" in data:
        line = data[: data.index(b"\r")].count(b"\n") + 1
        yield f"{file}:{line}: a carriage return; save with Unix line endings (LF)"


def find_conflict(file: Path) -> Iterator[str]:
    """Find conflict markers: no reader can use a file that holds them, and one side of the merge may be lost."""
    if found := conflict_in(file):
        yield found


def stages_to_run(dry_run: str) -> list[str]:
    """Names of the stages that are not up to date, from what `dvc repro --dry` prints, in its order."""
    return list(dict.fromkeys(running or cached for running, cached in _WOULD_RUN.findall(dry_run)))


def _check(find: Callable[[Path], Iterable[str]], files: Iterable[Path]) -> None:
    with one_line_errors():  # a file may be unreadable, and the policy may be wrong
        findings = [finding for file in files for finding in find(file)]
    _report(findings)


def _report(findings: Iterable[str]) -> None:
    found = False
    for finding in findings:
        say(finding, err=True)
        found = True
    if found:
        raise typer.Exit(1)


@app.command()
def secrets(files: Files) -> None:
    """Refuse files that hold credentials."""
    _check(find_secrets, files)


@app.command()
def large_files(files: Files) -> None:
    """Refuse files over 512 KiB."""
    _check(find_large_file, files)


@app.command()
def env_files(files: Files) -> None:
    """Refuse .env files, private keys and similar files."""
    _check(find_env_file, files)


@app.command("yaml")
def yaml_files(files: Files) -> None:
    """Refuse files that are not valid YAML 1.2."""
    _check(find_bad_yaml, files)


@app.command()
def line_endings(files: Files) -> None:
    """Refuse files with carriage returns."""
    _check(find_carriage_return, files)


@app.command("conflicts")
def conflict_markers(files: Files) -> None:
    """Refuse files with the conflict markers of a merge."""
    _check(find_conflict, files)


@app.command()
def ledger() -> None:
    """Refuse a commit, a merge or a push that loses lines of the split ledger.

    For a commit, it compares the index with HEAD, with the parents of HEAD and with the commits that are merged. For a
    push, it compares the pushed commit with the commit of the remote and with the commits in between.
    """
    from codex_ml.cli.history.git_commands import files_of_commit
    from codex_ml.cli.history.lost_lines import baselines, lost_in, not_compared, version_in_index, versions_between
    from codex_ml.cli.history.versions import PATHS, version_of
    from codex_ml.cli.param_rules import load_params

    with one_line_errors():
        go_to_top()
        pushed, known = os.environ.get("PRE_COMMIT_TO_REF"), os.environ.get("PRE_COMMIT_FROM_REF")
        if pushed and known:  # set by pre-commit
            now, bases = version_of(files_of_commit(pushed, *PATHS)), versions_between(known, pushed)
        else:
            # In a merge without conflicts, Git writes MERGE_HEAD only after this hook; GITHEAD_ names the commits.
            now = version_in_index()
            bases = baselines(*(name.removeprefix(MERGED) for name in os.environ if name.startswith(MERGED)))
        try:
            salt = load_params().split.salt
        except UserError:  # `check` says what is wrong with it
            salt = None
        found = lost_in(now, bases, salt=salt, named=bool(pushed and known))
        findings = [*(islice(found, 1) if pushed and known else found), *not_compared(now, bases)]
    _report(findings)


@app.command()
def pipeline() -> None:
    """Refuse a pipeline that is not up to date with its code, parameters and data.

    `dvc status` and `dvc repro --dry` exit with 0 in that case too, so this reads the text of the dry run.
    """
    with one_line_errors():
        go_to_top()
        if stages := stages_to_run(_dry_run()):
            raise CheckFailed(
                f"dvc.lock: not up to date: {', '.join(stages)}; run `make repro`, or "
                "`codex-ml accept-code` after an edit of comments only, and commit dvc.lock"
            )


@app.command("config")
def config_for_monorepo() -> None:
    """Print the hooks for the top folder of a Git repository in which this project is a subfolder.

    Git has one set of hooks per repository, and pre-commit reads one file, .pre-commit-config.yaml of the top folder.
    """
    import yaml

    from codex_ml.core.yaml import read_yaml

    with one_line_errors():
        folder, config = _project_folder(), read_yaml(CONFIG)
        for repo in config["repos"]:
            repo["hooks"] = [in_folder(folder, hook) for hook in repo["hooks"]]
        typer.echo(yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=1000), nl=False)


def in_folder(folder: str, hook: dict[str, Any]) -> dict[str, Any]:
    """A hook of our configuration for a project in `folder` ("ml/") of the repository: it checks only that folder."""
    # .ci/hook removes the folder from each word that begins with it: from src/codex_ml too, if the folder is src/
    words = hook["entry"].removeprefix(RUNNER).replace(f" {folder}", f" {folder}{folder}")
    moved = {**hook, "entry": f"sh {shlex.quote(folder + '.ci/hook')}{words}"}
    if not hook.get("always_run"):
        moved["files"] = f"^{re.escape(folder)}(?:{hook.get('files', '').removeprefix('^')})"
    return moved


def _project_folder() -> str:
    done = _git("rev-parse", "--show-prefix")
    if done.returncode:
        raise UserError("this folder is not in a Git repository; run `git init` in the top folder first")
    if not (folder := done.stdout.removesuffix("\n")):
        raise UserError(f"this project is the top folder of its Git repository, which reads {CONFIG}; run `make hooks`")
    return folder


def _git(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["git", *arguments]
    return subprocess.run(command, capture_output=True, encoding="utf-8", errors="surrogateescape", check=False)


def _dry_run() -> str:
    # Git gives hooks the repository in GIT_ variables; in a worktree, they would lead DVC to another repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    dvc = [sys.executable, "-P", "-m", "dvc", "repro", "--dry", "--allow-missing"]
    run = subprocess.run(dvc, capture_output=True, text=True, encoding="utf-8", errors="replace", env=environment)
    if run.returncode:
        raise UserError(f"`dvc repro --dry` failed: {one_line(run.stderr)}")
    return run.stdout
