"""The process of the solution: it answers calls with plain values. Nothing that it says is believed.

Its answers go to the tester, which decodes plain values and compares them. A solution that takes over this process can
send any value, but it cannot reach the tests, the tester's names, or the tester's last word.

Runs inside the sandbox: it imports the standard library only. Used by: supervisor.
"""

from __future__ import annotations

import json
import os
from typing import Any

from codex_ml.sandbox import guest
from codex_ml.sandbox.plain_values import NotPlainError, decode, encode


def main() -> None:
    """Load the solution, then answer calls until the tester closes its pipe."""
    task = guest.start(guest.REPLIES)
    with open(guest.REQUESTS, "rb", closefd=False) as requests:
        namespace = guest.fresh_module("solution")
        guest.send(guest.REPLIES, _attempt(0, lambda: guest.run(task["solution"], "solution", namespace)))
        for line in requests:
            call = json.loads(line)
            guest.send(guest.REPLIES, _attempt(call["id"], lambda call=call: _call(namespace, call)))
    os._exit(0)  # no exit handlers, no waiting for threads


def _call(namespace: dict[str, Any], call: dict[str, Any]) -> Any:
    function = namespace[call["name"]]
    return function(*decode(call["args"]), **{name: decode(value) for name, value in call["kwargs"].items()})


def _attempt(number: int, work: Any) -> dict[str, Any]:
    try:
        return {"id": number, "value": encode(work())}
    except NotPlainError as error:
        return {"id": number, "not_plain": str(error)}
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too: it ends no trial
        return {"id": number, "raised": _kind(error), "detail": guest.describe(error)}


def _kind(error: BaseException) -> str:
    """The nearest built-in class of an exception: the tests may expect a ValueError."""
    return next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins")
