"""The checkout as `codex-ml doctor` sees it: packages, Git, hooks, write access, DVC's cache, locks.

Used by: `codex-ml doctor`.
"""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from codex_ml.cli.checks.dvc_state import leftovers
from codex_ml.cli.diagnosis.doctor_finding import DoctorFinding, bad, ok, warn
from codex_ml.cli.history.git_commands import git_text, run_git
from codex_ml.core.errors import one_line
from codex_ml.core.folders import logs_folder, scratch_place
from codex_ml.core.lock import last_holder
from codex_ml.core.packages import unlike_the_lock
from codex_ml.core.tree import cache_folder

HOOKS = ("pre-commit", "pre-merge-commit", "pre-push")
COMMAND = re.compile(r"`([^`]+)`")
WRITTEN = ("data", "models", "reports", ".dvc/tmp")  # where stages and DVC write, besides cache, scratch and logs


def packages() -> Iterator[DoctorFinding]:
    """Installed versions against requirements.lock; `codex-ml packages` compares files too, which takes seconds."""
    unlike = list(unlike_the_lock())
    for problem in unlike:
        yield bad("packages", problem, _command(problem, "make setup"))
    if not unlike:
        text = "they have the versions of requirements.lock; whether their files are as installed says"
        yield ok("packages", text, "codex-ml packages")


def git() -> Iterator[DoctorFinding]:
    """Git itself, and its settings that bite."""
    if shutil.which("git") is None:
        yield bad("git", "not installed; DVC needs it", "apt install git")
        return
    inside = run_git("rev-parse", "--show-toplevel")
    if inside.returncode:
        said = one_line(inside.stderr.decode("utf-8", "replace"))
        owner = "dubious ownership" in said
        mend = f"git config --global --add safe.directory {shlex.quote(str(Path.cwd()))}" if owner else "git init"
        yield bad("git", f"does not answer here: {said}", mend)
        return
    yield ok("git", git_text("--version"))
    yield from git_settings()


def git_settings() -> Iterator[DoctorFinding]:
    """Settings of Git that change bytes, stop a commit, or hide history."""
    endings = git_text("config", "core.autocrlf").lower()
    ruled = "eol: lf" in git_text("check-attr", "eol", "--", "params.yaml")
    if endings == "true" and not ruled:
        text = "core.autocrlf turns line endings into CRLF, and no rule in .gitattributes prevents it: hashes change"
        yield bad("line endings", text, "git config core.autocrlf false")
    else:
        rule = "eol=lf in .gitattributes decides" if ruled else f"core.autocrlf is {endings or 'not set'}"
        yield ok("line endings", rule)
    for key, example in (("user.name", "Ada Lovelace"), ("user.email", "ada@example.org")):
        if not git_text("config", key):
            text = f"{key} is not set, so `git commit` and `dvc exp run` fail"
            yield warn("git user", text, f'git config {key} "{example}"')
    if git_text("rev-parse", "--is-shallow-repository") == "true":
        text = "this clone is shallow: `lineage --rev`, `merge` and `plan` do not see older commits"
        yield warn("history", text, "git fetch --unshallow")


def hooks() -> Iterator[DoctorFinding]:
    """Whether the hooks of pre-commit are installed."""
    folder = git_text("rev-parse", "--git-path", "hooks")
    if not folder:
        return  # `git` says why
    missing = [name for name in HOOKS if not _is_of_pre_commit(Path(folder, name))]
    if missing:
        yield warn("hooks", f"not installed: {', '.join(missing)}; commits are not checked", "make hooks")
    else:
        yield ok("hooks", ", ".join(HOOKS))


def _is_of_pre_commit(hook: Path) -> bool:
    try:
        return os.access(hook, os.X_OK) and "pre-commit" in hook.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def write_access() -> Iterator[DoctorFinding]:
    """Whether this user may write where stages, DVC and the logs write; a file is really made and removed."""
    places = [Path(), *map(Path, WRITTEN), logs_folder(), Path(cache_folder() or ".dvc/cache")]
    refused = 0
    for place in dict.fromkeys(places):
        folder = next(path for path in (place, *place.parents, Path()) if path.is_dir())
        try:
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            refused += 1
            user = f"chown -R $(id -u) {shlex.quote(str(folder))}"
            yield bad("write access", f"{folder}: {error.strerror}", user)
    if not refused:
        yield ok("write access", "everywhere that stages, DVC and the logs write")


def links() -> Iterator[DoctorFinding]:
    """How DVC's cache gets into the workspace: what the configuration says, and which links really work."""
    from dvc.repo import Repo
    from dvc_objects.fs.generic import test_links

    kinds = ["reflink", "hardlink", "symlink"]
    with Repo() as repo:
        cache = repo.cache.local
        asked = cache.cache_types or ["reflink", "copy"]
        place = next(path for path in (Path(cache.path), *Path(cache.path).parents) if path.is_dir())
        works = test_links(kinds, cache.fs, str(place), repo.fs, repo.root_dir)
        index = os.environ.get("DVC_SITE_CACHE_DIR") or repo.config["core"].get("site_cache_dir")
    if not index:
        text = "DVC keeps its index, which is pickles, in a folder where other users may write"
        yield warn("DVC index", *_private_index(text, str(Path.cwd().resolve())))
    used = next((kind for kind in asked if kind in (*works, "copy")), None)
    text = f"cache.type is {', '.join(asked)}; links that work here: {', '.join(works) or 'none'}"
    if used is None:
        yield bad("DVC cache", f"{text}, so DVC cannot check out", "dvc config --local cache.type copy")
    elif used == "copy" and works:
        text += "; DVC copies, so each output takes its size twice"
        yield ok("DVC cache", text, f"dvc config --local cache.type {works[0]},copy")
    else:
        yield ok("DVC cache", f"{text}; DVC uses {used}")


def _private_index(text: str, top: str) -> tuple[str, str]:
    """What to say about an index of DVC that is not private, and the command that makes it so."""
    if top.isascii() and top.isprintable() and "%" not in top:  # as in the Makefile
        return text, "make setup"
    why = "; its configuration cannot hold the path of this folder, which is not plain ASCII, so type before dvc"
    return text + why, 'export DVC_SITE_CACHE_DIR="$PWD/.dvc/tmp/site"'


def locks() -> Iterator[DoctorFinding]:
    """Locks that a killed DVC left, and locks of ours that a process holds."""
    found = 0
    for problem in leftovers():
        found += 1
        yield bad("locks", problem, _command(problem, "codex-ml check"))
    for file in sorted({*scratch_place().glob("locks/*"), *scratch_place().glob("*/*.lock")}):
        if file.suffix != ".queue" and _is_held(file):
            found += 1
            number = last_holder(file)
            yield ok("locks", f"{file}: {f'process {number}' if number else 'a process'} holds it and works here")
    if not found:
        yield ok("locks", "none is held, none is left over")


def _is_held(file: Path) -> bool:
    with file.open(encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _command(text: str, otherwise: str) -> str:
    """The first command that a message names."""
    match = COMMAND.search(text)
    return match[1] if match else otherwise
