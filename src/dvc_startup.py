"""Runs whenever Python starts in .venv: four things that DVC needs and that none of its settings can say.

`make setup` puts a file dvc_startup.pth with `import dvc_startup` into .venv. The module is no part of the library.
"""

import os
import sys


def _dvc_verb() -> str:
    """The word after `dvc` in `dvc VERB ...` or `python -m dvc VERB ...`; "" in any other program."""
    words = sys.orig_argv[1:]
    for place, word in enumerate(words[:3]):
        if word == "dvc" or word.endswith("/dvc"):
            return words[place + 1] if len(words) > place + 1 else ""
    return ""


def use_private_cache() -> None:
    """Keep DVC's pickles in .dvc/tmp, which `make setup` closes to others (mode 0700).

    DVC's own place is a folder in which every user of the machine may write. `core.site_cache_dir` cannot name ours: a
    relative path counts from the current folder, an absolute one is no part of a repository.
    """
    repository = os.path.dirname(sys.prefix)  # noqa: PTH120 - pathlib would double the start-up time of every Python
    os.environ.setdefault("DVC_SITE_CACHE_DIR", os.path.join(repository, ".dvc", "tmp", "site"))  # noqa: PTH118


def use_utf8_where_the_folder_needs_it() -> None:
    """In a C locale a folder such as "ünï" has a name that DVC cannot encode; start again in UTF-8 mode there."""
    if sys.flags.utf8_mode or sys.flags.ignore_environment:
        return
    try:
        os.getcwd().encode()  # noqa: PTH109
    except FileNotFoundError:
        return
    except UnicodeEncodeError:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, "PYTHONUTF8": "1"})  # noqa: S606


def lend_git_identity() -> None:
    """`dvc exp` commits; where Git does not know who you are it would stop with a bare "unexpected error"."""
    if _dvc_verb() != "exp" or "GIT_COMMITTER_EMAIL" in os.environ:
        return
    import subprocess

    try:
        known = subprocess.run(["git", "config", "user.email"], capture_output=True, check=False).returncode == 0
    except OSError:
        return
    if not known:
        for role in ("AUTHOR", "COMMITTER"):
            os.environ[f"GIT_{role}_NAME"], os.environ[f"GIT_{role}_EMAIL"] = "codex-ml", "codex-ml@localhost"
        print(
            "note: Git does not know you; experiments are recorded as codex-ml@localhost. To change that:\n"
            "  git config user.name 'Your Name'\n  git config user.email you@example.org",
            file=sys.stderr,
        )


def say_that_no_remote_is_needed() -> None:
    """`dvc pull` and `dvc push` without a remote: DVC says "everything is up to date", or speaks of a cloud."""
    if _dvc_verb() not in ("pull", "push", "fetch") or not os.path.isdir(".dvc"):  # noqa: PTH112
        return
    places = (".dvc/config", ".dvc/config.local", "~/.config/dvc/config", "/etc/xdg/dvc/config")
    for place in map(os.path.expanduser, places):
        try:
            with open(place, encoding="utf-8", errors="replace") as file:  # noqa: PTH123
                if "remote" in file.read():
                    return
        except OSError:
            continue
    print(
        "error: there is no DVC remote, and none is needed: `dvc repro` makes every result from the pinned sources. "
        "To share results: dvc remote add --default NAME URL",
        file=sys.stderr,
    )
    sys.stderr.flush()
    os._exit(1)


use_private_cache()
use_utf8_where_the_folder_needs_it()
lend_git_identity()
say_that_no_remote_is_needed()
