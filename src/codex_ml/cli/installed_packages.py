"""`codex-ml packages`: prove that the installed packages are those of the lock."""

from __future__ import annotations

from codex_ml.cli.options import Debug
from codex_ml.cli.output import say
from codex_ml.core.errors import CheckFailed, one_line_errors
from codex_ml.core.repository_root import go_to_top

MOST_LINES = 20


def packages(debug: Debug = False) -> None:
    """Compare every installed package with requirements.lock, and every file of it with the hash that pip recorded.

    `make setup` ends with it. It needs a few seconds. It names a package with another version, a missing package, a
    package that nothing asked for, a file that was changed, and a file that belongs to no package. What an extra or a
    plug-in brought later is in no lock; it is listed. Exit code 1 if something differs.

    Example: codex-ml packages
    """
    from codex_ml.cli.diagnosis.optional_extras import requirements
    from codex_ml.core.installed_files import unlike_their_records
    from codex_ml.core.installed_set import beyond_the_lock, missing_packages
    from codex_ml.core.packages import REQUIREMENTS, metadata_folders, unlike_the_lock

    with one_line_errors(debug=debug):
        if not REQUIREMENTS.is_file():  # an image holds the locks, and no pipeline
            go_to_top()
        installed = metadata_folders()
        problems = list(dict.fromkeys((*unlike_the_lock(), *missing_packages(installed))))
        later, unknown = beyond_the_lock(installed, (name for names in requirements().values() for name in names))
        problems += [f"{what} is installed, but no lock and no extra asks for it; remove it" for what in unknown]
        count, changed = unlike_their_records(installed)
        problems += changed
        for what in later:
            say(f"{what} is in no lock; an extra or a plug-in brought it")
        for problem in problems[:MOST_LINES]:
            say(problem)
        if problems:
            what = f"{len(problems)} difference(s) between the installed packages and the locks"
            raise CheckFailed(f"{what}; `make packages` builds .venv again")
        say(f"packages: {len(installed)} packages, {count:,} files, all as they were locked")
