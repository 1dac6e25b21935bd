"""Solution and tests in one process, for tests whose values are not plain. Such a solution can cheat.

Therefore the outcome says `in_child`.

Runs inside the sandbox: it imports the standard library only. Used by: supervisor.
"""

from __future__ import annotations

from codex_ml.sandbox import guest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def main(task: dict[str, Any]) -> None:
    """Run setup, solution and tests in one module, and write the nonce after the last test."""
    guest.start(task)
    nonce = task.pop("nonce")
    namespace = guest.fresh_module("solution")
    verdict, detail = "passed", ""
    try:
        for name in ("setup", "solution", "tests"):
            guest.run(task[name], name, namespace)
    except AssertionError as error:
        verdict, detail = "wrong", guest.describe(error)
    except MemoryError as error:
        verdict, detail = "memory", guest.describe(error)
    except BaseException as error:
        verdict, detail = "crashed", guest.describe(error)
    guest.send(guest.RESULT, {"nonce": nonce} if verdict == "passed" else {"verdict": verdict, "detail": detail})
