"""The process between harness and programs: small, without the user's rights, the reaper of all that it starts.

It starts as `python -I -S`, so that no fork copies a loaded model. It gives up root, because the kernel does not limit
the number of processes of root. One trial at a time, as one JSON line in and one out; the harness has one supervisor
per worker.

Every process of a trial becomes a child of this one when its parent ends (it is a subreaper). A trial is over when no
child is left, so no program outlives its trial.

Used by: worker.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import stat
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from codex_ml.sandbox import alone, bubblewrap, candidate, kernel, namespaces, tester, together
from codex_ml.sandbox.guest import REPLIES, REQUESTS, RESULT
from codex_ml.sandbox.guest_code import LOAD, compiled, memory_file, task_file
from codex_ml.sandbox.inventory import Inventory
from codex_ml.sandbox.seccomp import filter_program
from codex_ml.sandbox.watch import Watch

NOBODY = 65534
FILTER = RESULT + 1  # descriptor of the seccomp filter that bwrap reads and closes
HIGH = 16  # descriptors of the supervisor start here, so that none collides with those that a program gets
EMPTY = HIGH - 1  # /dev/null
SHELTER = "/tmp"  # noqa: S108 - where root shows the files of the inventory to nobody, in its own mount namespace


@dataclass(frozen=True)
class Setup:
    """How programs start.

    Attributes:
        bwrap: path of bubblewrap; None: our own namespaces.
        libraries: folder of the libraries that come with bwrap; None: the system's.
        inventory: the files that programs see.
        filter: the seccomp filter.
        guests: what `task_file` takes for each way to run a program.
    """

    bwrap: str | None
    libraries: str | None
    inventory: Inventory
    filter: bytes
    guests: dict[ModuleType, bytes]


def main() -> None:
    """Read the settings from the first line of stdin, then answer one trial per line until stdin ends."""
    while os.open(os.devnull, os.O_RDWR) < EMPTY:
        pass
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # programs inherit it, and no clock counts the children of an ignorer
    settings = json.loads(sys.stdin.buffer.readline())
    shown = Inventory.from_json(settings["inventory"])
    guests = {module: compiled(module) for module in (alone, candidate, tester, together)}
    setup = Setup(settings["bwrap"], settings["libraries"], shown, filter_program(os.uname().machine), guests)
    if os.getuid() == 0:
        setup = _give_up_root(setup)
    kernel.prctl(kernel.SUBREAPER, 1)
    Path(f"/proc/self/task/{os.getpid()}/children").read_text()  # without it (CONFIG_PROC_CHILDREN) no tree is seen
    _say({"ready": True})
    while line := sys.stdin.buffer.readline():
        _say(conduct(setup, json.loads(line)))


def conduct(setup: Setup, task: dict[str, Any]) -> dict[str, Any]:
    """Run the processes of one trial, and return what happened.

    Args:
        task: `how` (apart, in_child or alone), `limits`, and the source texts that the programs read.

    Returns:
        `exceeded`: the limit, or None; `word`: the last word of the judging process, or {}; `passed`: whether that was
        the nonce; `started`: whether the judging process came as far as its task; `code`: its exit code; `output`: what
        the program printed.
    """
    (result_in, result_out), (output_in, output_out) = os.pipe(), os.pipe()
    given, watch = [result_out, output_out], Watch(task["limits"], result_in, output_in)
    printed = {1: output_out, 2: output_out}
    last, exceeded, nonce = 0, None, ""
    try:
        if task["how"] == "apart":
            (calls_in, calls_out), (replies_in, replies_out) = os.pipe(), os.pipe()
            given += [calls_in, calls_out, replies_in, replies_out]
            told = {"solution": task["solution"], "limits": task["limits"]}
            _start(setup, candidate, told, {**printed, REQUESTS: calls_in, REPLIES: replies_out})
            nonce = secrets.token_hex(16)  # made after the fork of the solution's sandbox, so no copy of it is there
            judge = {2: output_out, REQUESTS: calls_out, REPLIES: replies_in, RESULT: result_out}
            last = _start(setup, tester, {**task, "nonce": nonce}, judge)
        else:
            nonce = secrets.token_hex(16)
            module = {"in_child": together, "alone": alone}[task["how"]]
            last = _start(setup, module, {**task, "nonce": nonce}, {**printed, RESULT: result_out})
        while given:
            os.close(given.pop())
        exceeded = watch.follow(last)
    finally:
        late = watch.end(last)
        for descriptor in [*given, result_in, output_in]:
            os.close(descriptor)
    first, word = [*watch.words(), {}, {}][:2]
    return {
        "exceeded": exceeded or late,
        "word": word,
        "passed": bool(nonce) and word.get("nonce") == nonce,
        "started": bool(first.get("started")),
        "code": watch.exit_code,
        "output": watch.output.decode("utf-8", "replace"),
    }


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def _start(setup: Setup, module: ModuleType, task: dict[str, Any], files: dict[int, int]) -> int:
    """Start a program of this package inside the sandbox, and return the id of its outermost process.

    Args:
        files: descriptor inside -> descriptor here. stdin is a file with the task.
    """
    files = {0: task_file(setup.guests[module], task), 1: EMPTY, 2: EMPTY, **files}
    # -P -s and one variable instead of -I, which ignores variables: a set must have the same order on every run.
    python = [setup.inventory.python, "-P", "-s", "-S", "-B", "-c", LOAD]
    folder_bytes = task["limits"]["file_bytes"]
    try:
        if setup.bwrap is None:
            return _fork(setup, python, files, folder_bytes)
        files[FILTER] = memory_file("filter", setup.filter)
        bwrap = ["bwrap", *bubblewrap.command(setup.inventory, folder_bytes, FILTER), "--", *python]
        libraries = {"LD_LIBRARY_PATH": setup.libraries} if setup.libraries else {}
        moves = [(os.POSIX_SPAWN_DUP2, outside, inside) for inside, outside in files.items()]
        return os.posix_spawn(setup.bwrap, bwrap, libraries, file_actions=moves)  # all others close on exec
    finally:
        os.close(files[0])
        if FILTER in files:
            os.close(files[FILTER])


def _fork(setup: Setup, python: list[str], files: dict[int, int], folder_bytes: int) -> int:
    """Start the interpreter in namespaces of our own."""
    layout, user = namespaces.lay_out(setup.inventory), (os.getuid(), os.getgid())
    child = kernel.fork_into(kernel.NEW_ALL)
    if child:
        return child
    try:
        for inside, outside in files.items():
            os.dup2(outside, inside)
        os.closerange(max(files) + 1, os.sysconf("SC_OPEN_MAX"))
        confinement = namespaces.Confinement(layout, folder_bytes, setup.filter, user)
        namespaces.become_confined(confinement, lambda: os.execve(python[0], python, {"PYTHONHASHSEED": "0"}))  # noqa: S606
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(namespaces.FAILED)


def _give_up_root(setup: Setup) -> Setup:
    """Become nobody, for good. Nobody cannot reach files below /root, so the files are first bound to a shelter.

    Root of a container may be without the right to mount. Then programs start only if nobody can reach the files.

    Returns:
        the setup with the paths of the shelter.
    """
    with suppress(PermissionError):
        kernel.unshare(kernel.NEW_MOUNTS)
        setup = _sheltered(setup)
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    os.chdir("/")
    return setup


def _sheltered(setup: Setup) -> Setup:
    sources = [path for path, _ in setup.inventory.binds]
    sources += [setup.bwrap or os.devnull, setup.libraries or os.devnull]
    opened = [os.open(path, os.O_PATH) for path in sources]  # before the shelter hides sources below itself
    kernel.mount("none", "/", None, kernel.PRIVATE | kernel.RECURSIVE)
    kernel.mount("tmpfs", SHELTER, "tmpfs", kernel.NO_SUID | kernel.NO_DEV, "mode=0755")
    *files, bwrap, libraries = [f"{SHELTER}/{number}" for number in range(len(opened))]
    for path, descriptor in zip([*files, bwrap, libraries], opened, strict=True):
        opened_again, status = f"/proc/self/fd/{descriptor}", os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode):  # a copy: once the machine replaces a file, its mount cannot be bound again
            Path(path).write_bytes(Path(opened_again).read_bytes())
            Path(path).chmod(0o755 if status.st_mode & 0o100 else 0o644)
        else:
            Path(path).mkdir() if stat.S_ISDIR(status.st_mode) else Path(path).touch()
            kernel.mount(opened_again, path, None, kernel.BIND)
        os.close(descriptor)
    inside = [place for _, place in setup.inventory.binds]
    return replace(
        setup,
        bwrap=setup.bwrap and bwrap,
        libraries=setup.libraries and libraries,
        inventory=replace(setup.inventory, binds=tuple(zip(files, inside, strict=True))),
    )
