"""What each program does first inside the sandbox: limit itself for good, forget its environment, answer in JSON lines.

The limits are set here and not before the start, because the kernel counts processes per user namespace: a limit set
outside would count the user's other processes too.

Runs inside the sandbox: it imports the standard library only, and `posix` in place of `os`, which takes 1 ms.

Used by: candidate, tester, together, alone.
"""

from __future__ import annotations

import posix
import resource
import sys

from codex_ml.sandbox.plain_values import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

REQUESTS, REPLIES, RESULT = 3, 4, 5  # file descriptors: calls to the solution, its answers, the tester's last word
OPEN_FILES = 64
VARIABLES = {b"PYTHONHASHSEED", b"PWD", b"LC_CTYPE"}  # the supervisor's, bwrap's, Python's own (PEP 538)
LONGEST_DETAIL = 200  # characters
ADDRESS = r"\b0x[0-9a-f]{6,}"


def start(task: dict[str, Any], to: int = RESULT) -> None:
    """Apply the limits of the task, clear environment and arguments, and report that the sandbox stands.

    Args:
        to: descriptor that gets the report.

    Raises:
        SystemExit: if the sandbox passes a variable of its parent.
    """
    if not posix.environ.keys() <= VARIABLES:
        raise SystemExit("the environment is not empty")
    limits = task["limits"]
    seconds = int(limits["cpu_seconds"]) + 2  # the supervisor judges; this ends a program when it cannot
    for kind, most in {
        resource.RLIMIT_AS: limits["memory_bytes"],
        resource.RLIMIT_NPROC: limits["processes"] + 1,  # one more: the first process of the namespace, which reaps
        resource.RLIMIT_FSIZE: limits["file_bytes"],
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_NOFILE: OPEN_FILES,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
    }.items():
        resource.setrlimit(kind, (most, most))
    for variable in posix.environ:
        posix.unsetenv(variable)
    posix.environ.clear()  # `os.environ` is made from it
    sys.argv[:] = [""]
    send(to, {"started": True})


def run(source: str, name: str, namespace: dict[str, Any]) -> None:
    """Execute a source text. Its random numbers start from one seed, so that a second run gives the same verdict."""
    if "random" in source:
        import random

        random.seed(0)
    exec(compile(source, name, "exec", dont_inherit=True), namespace)  # noqa: S102 - the purpose of the sandbox


def fresh_module(name: str) -> dict[str, Any]:
    """The namespace of a new module; in sys.modules too, where dataclasses and pickle look it up."""
    module = type(sys)(name)
    sys.modules[name] = module
    return module.__dict__


def in_one_line(text: str, most: int) -> str:
    """A text on one line, of at most `most` characters. No guest can import the function of core."""
    return " ".join(text.split())[:most]


def describe(error: BaseException) -> str:
    """Name and message of an exception on one line, without addresses and paths of the interpreter."""
    import re  # imported here, because it takes 5 ms and most programs raise nothing

    try:
        message = " ".join(str(error).split())
    except BaseException:  # the program's own class
        message = ""
    message = re.sub(ADDRESS, "0x...", message.replace(sys.base_prefix, "python"))[:LONGEST_DETAIL]
    name = in_one_line(type(error).__name__, LONGEST_DETAIL)
    return f"{name}: {message}" if message else name


def send(descriptor: int, message: dict[str, Any]) -> None:
    """Write one JSON line.

    Raises:
        NotPlainError: for a message with a value that is not plain; nothing is written.
    """
    left = (dumps(message) + "\n").encode("ascii")
    while left:
        left = left[posix.write(descriptor, left) :]
