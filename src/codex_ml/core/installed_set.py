"""Whether the installed distributions are those of the locks: none is missing, none is there that nothing asked for.

Used by: `codex-ml packages`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from importlib.metadata import PathDistribution
from pathlib import Path

from codex_ml.core.installed_files import LIBRARY
from codex_ml.core.packages import NAME, REQUIREMENTS, locked_versions, mend, normal, version_of
from codex_ml.core.yaml import read_text

PIP = "pip"  # it comes with the interpreter
LINE = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)[ \t]*;?([^\\\n]*)", re.MULTILINE)


def missing_packages(installed: Iterable[str]) -> Iterator[str]:
    """One message per package of requirements.lock that is for this system and Python, and is not installed.

    Args:
        installed: normalised names.
    """
    from packaging.markers import Marker

    present = set(installed)
    for name, version, condition in LINE.findall(read_text(REQUIREMENTS)):
        if normal(name) not in present and (not condition.strip() or Marker(condition.strip()).evaluate()):
            yield f"{name} is not installed, but {REQUIREMENTS} has {version}; {mend(normal(name))}"


def beyond_the_lock(distributions: dict[str, list[str]], wanted: Iterable[str]) -> tuple[list[str], list[str]]:
    """The distributions that were installed after the set-up, as names and versions: (those asked for, all others).

    Args:
        distributions: name -> .dist-info folders, as `metadata_folders` gives them.
        wanted: names of the requirements of the extras in pyproject.toml. They, plug-ins and what both require count as
            asked for.
    """
    more = distributions.keys() - locked_versions().keys() - {PIP, LIBRARY}
    asked, left = set[str](), [*map(normal, wanted), *(name for name in more if _is_plugin(distributions[name][0]))]
    while left:
        name = left.pop()
        if name in more and name not in asked:
            asked.add(name)
            requires = PathDistribution(Path(distributions[name][0])).requires or []
            left += [normal(match[0]) for line in requires if (match := NAME.match(line))]
    found = {name: f"{name} {version_of(distributions[name][0])}" for name in sorted(more)}
    return [found[name] for name in found if name in asked], [found[name] for name in found if name not in asked]


def _is_plugin(folder: str) -> bool:
    return any(point.group.startswith("codex_ml.") for point in PathDistribution(Path(folder)).entry_points)
