"""A kind of input that is mutated. Used by: kinds, and the modules that make them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

Read = Callable[[Path], bool]
TEXT = "def f(x):\n    return x + 1  # \u00e9\U0001f468\n"


@dataclass(frozen=True)
class Kind:
    """One kind of input.

    Attributes:
        name: of the file that `read` gets.
        valid: an input without a change, which is accepted.
        make: a mutated input for a state of the RNG.
        read: reads the file; True if it was accepted.
        ends: whether a library may end the process, because a stage reads such a file in a limited child only.
    """

    name: str
    valid: bytes
    make: Callable[[Random], bytes]
    read: Read
    ends: bool = False
