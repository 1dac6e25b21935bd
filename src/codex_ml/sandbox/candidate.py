"""The process of the solution: it answers calls with plain values. Nothing that it says is believed.

Its answers go to the tester, which decodes plain values and compares them. A solution that takes over this process can
send any value, but it cannot reach the tests, the tester's names, or the tester's last word.

Runs inside the sandbox: it imports the standard library only. Used by: supervisor.
"""

from __future__ import annotations

import posix

from codex_ml.sandbox import guest
from codex_ml.sandbox.plain_values import NotPlainError, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def main(task: dict[str, Any]) -> None:
    """Load the solution, then answer calls until the tester closes its pipe."""
    guest.start(task, guest.REPLIES)
    with open(guest.REQUESTS, "rb", closefd=False) as requests:
        namespace = guest.fresh_module("solution")
        _answer(0, lambda: guest.run(task["solution"], "solution", namespace))
        for line in requests:
            call = loads(line)
            _answer(call["id"], _named(namespace, call))
    posix._exit(0)  # no exit handlers, no waiting for threads


def _answer(number: int, work: Callable[[], Any]) -> None:
    try:
        guest.send(guest.REPLIES, {"id": number, "value": work()})
    except NotPlainError as error:
        guest.send(guest.REPLIES, {"id": number, "not_plain": str(error)})
    except BaseException as error:  # SystemExit too: it ends no trial
        guest.send(guest.REPLIES, {"id": number, "raised": _kind(error), "detail": guest.describe(error)})


def _named(namespace: dict[str, Any], call: dict[str, Any]) -> Callable[[], Any]:
    def run() -> Any:
        if call["name"] not in namespace:
            raise NameError(f"name '{call['name']}' is not defined")
        return namespace[call["name"]](*call["args"], **call["kwargs"])

    return run


def _kind(error: BaseException) -> str:
    """The nearest built-in class of an exception: the tests may expect a ValueError."""
    return next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins")
