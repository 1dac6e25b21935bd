"""Ctrl-C is an interruption, also where a library hides it in an error of its own."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable

import pytest

from codex_ml.core.errors import CheckFailed, UserError
from codex_ml.core.interruption import is_interruption


def raised(work: Callable[[], None]) -> BaseException:
    try:
        work()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def compile_error(cause: BaseException) -> BaseException:
    """As torch does: the error of the compiler from that of the process, and a third with it in an attribute."""

    def work() -> None:
        try:
            raise cause
        except BaseException as error:
            raise RuntimeError("C++ compile error\n" + 1600 * "line\n") from error

    error = ValueError("backend failed")
    error.inner_exception = raised(work)  # type: ignore[attr-defined]
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (KeyboardInterrupt(), True),
        (compile_error(KeyboardInterrupt()), True),
        (compile_error(subprocess.CalledProcessError(-signal.SIGINT, ["g++"])), True),
        (compile_error(subprocess.CalledProcessError(1, ["g++"])), False),
        (compile_error(subprocess.CalledProcessError(-signal.SIGKILL, ["g++"])), False),
        (UserError("a key"), False),
        (None, False),
    ],
)
def test_an_error_is_an_interruption_if_ctrl_c_caused_it(error: BaseException | None, expected: bool) -> None:
    assert is_interruption(error) == expected


def test_an_error_of_ours_says_itself_what_it_is() -> None:
    def work() -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise CheckFailed("the sweep ended") from None

    assert not is_interruption(raised(work))


def test_errors_that_point_at_each_other_end() -> None:
    first, second = ValueError(), ValueError()
    first.__cause__, second.__cause__ = second, first
    assert not is_interruption(first)
