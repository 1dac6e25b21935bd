"""The rungs of the sandbox, from the one preferred to the last: choose one that withstands a probe, or refuse.

Used by: evaluate.
"""

from __future__ import annotations

from dataclasses import dataclass

RUNGS = ("bwrap-system", "bwrap-wheel", "namespaces")


@dataclass(frozen=True)
class Sandbox:
    """A way to run programs that passed the probe on this machine.

    Attributes:
        rung: the name, for the results: "bwrap-system", "bwrap-wheel" or "namespaces".
    """

    rung: str


def open_sandbox(choice: str = "auto") -> Sandbox:
    """Return the first rung of the ladder that withstands the probe, or the rung that `choice` names.

    Args:
        choice: "auto", or one of RUNGS.

    Raises:
        UserError: when no rung (or not the named one) withstands the probe; it says what to install.
    """
    raise NotImplementedError
