"""The process of the tests: it holds proxies in place of the solution's functions, and no code of the solution.

A proxy sends the call as plain values and compares nothing itself. The benchmark's assertions run here, on decoded
values of built-in types. So `__eq__`, patched built-ins, walked frames and exit codes of the solution change nothing.

Runs inside the sandbox: it imports the standard library only. Used by: supervisor.
"""

from __future__ import annotations

import builtins

from codex_ml.sandbox import guest
from codex_ml.sandbox.plain_values import NotPlainError, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# Raised by a solution, these would end a loop of the tests early and quietly.
ENDS_LOOPS = (StopIteration, StopAsyncIteration)


class LostSolutionError(BaseException):
    """The solution ended, or its answer was not valid. Not an Exception, so that no test goes on by catching it."""


class RemoteSolution:
    """The connection to the solution.

    Attributes:
        failure: the verdict and the detail of the first broken answer. It holds even if a test catches the exception.
        raised: the exception that the solution raised last, and its description.
    """

    def __init__(self, longest: int) -> None:
        self.longest, self.count = longest, 0
        self.replies = open(guest.REPLIES, "rb", closefd=False)  # noqa: SIM115 - open until the process ends
        self.failure: tuple[str, str] | None = None
        self.raised: tuple[BaseException | None, str] = None, ""

    def call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a function of the solution and return its plain value, or raise what it raised."""
        self.count += 1
        request = {"id": self.count, "name": name, "args": list(args), "kwargs": kwargs}
        try:  # noqa: SIM105 - contextlib takes 2 ms
            guest.send(guest.REQUESTS, request)
        except BrokenPipeError:
            pass  # the solution ended; the missing reply says so
        return self.reply()

    def reply(self) -> Any:
        """Read the answer to the last call."""
        if self.failure:
            raise LostSolutionError
        line = self.replies.readline(self.longest)
        if not line.endswith(b"\n"):
            ended = ("crashed", "it ended before it answered")
            raise self._broken(*(ended if len(line) < self.longest else ("output", "an answer is too long")))
        try:
            answer = loads(line)
            if type(answer) is not dict or answer.pop("id", None) != self.count:
                raise ValueError("not an answer to this call")
            if "value" in answer:
                return answer["value"]
            if "not_plain" in answer:
                raise self._broken("wrong", f"it returned {_line(answer['not_plain'])}")
            kind, detail = _line(answer["raised"]), _line(answer["detail"])
        except (ValueError, KeyError):
            raise self._broken("crashed", "its answer is not readable") from None
        raise self._raised(kind, detail)

    def _broken(self, verdict: str, detail: str) -> LostSolutionError:
        self.failure = self.failure or (verdict, detail)
        return LostSolutionError()

    def _raised(self, kind: str, detail: str) -> BaseException:
        known: Any = getattr(builtins, kind, None)
        if not isinstance(known, type) or not issubclass(known, Exception) or issubclass(known, ENDS_LOOPS):
            return self._broken("crashed", detail)
        try:
            error = known(detail)
        except TypeError:  # UnicodeDecodeError and its like take more arguments
            error = ValueError(detail)
        self.raised = error, detail
        return error


def main(task: dict[str, Any]) -> None:
    """Run the tests and write one line: the nonce after the last test, or the verdict."""
    guest.start(task)
    solution = RemoteSolution(task["limits"]["output_bytes"])
    if not solution.replies.readline(100):  # written before the solution runs
        guest.send(guest.RESULT, {"error": "the sandbox of the solution did not start"})
        return
    verdict, detail = _judge(task, solution)
    if solution.failure:
        verdict, detail = solution.failure
    word = {"nonce": task["nonce"]} if verdict == "passed" else {"verdict": verdict, "detail": detail}
    guest.send(guest.RESULT, word)


def _judge(task: dict[str, Any], solution: RemoteSolution) -> tuple[str, str]:
    namespace = guest.fresh_module("tests")
    try:
        guest.run(task["setup"], "setup", namespace)
    except BaseException as error:
        return "crashed", f"the setup of the tests failed: {guest.describe(error)}"
    try:
        solution.reply()
        namespace.update({name: _proxy(solution, name) for name in task["entry_points"]})
        guest.run(task["tests"], "tests", namespace)
    except LostSolutionError:
        return "crashed", ""  # `failure` says more
    except NotPlainError as error:
        return "wrong", f"the tests call it with {error}"
    except BaseException as error:
        raised, detail = solution.raised
        if error is raised:
            return "memory" if isinstance(error, MemoryError) else "crashed", detail
        said = guest.describe(error)
        return "wrong", said if isinstance(error, AssertionError) else f"the tests raised {said}"
    return "passed", ""


def _proxy(solution: RemoteSolution, name: str) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        return solution.call(name, args, kwargs)

    call.__name__ = call.__qualname__ = name
    return call


def _line(text: Any) -> str:
    if type(text) is not str:
        raise ValueError("text expected")
    return guest.in_one_line(text, guest.LONGEST_DETAIL + 60)
