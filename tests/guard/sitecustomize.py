"""Refuse to open what belongs to the user of a checkout: tests of the code pass in every clone, whatever is in it.

Loaded by tests/conftest.py, and by Python at start where this folder is in PYTHONPATH; CODEX_TEST_CHECKOUT is the folder
that is guarded. Tests that are marked `shipped` compare those very files, as this repository ships them, and may. It also
makes imports cheaper.
"""

from __future__ import annotations

import gc
import os
import sys

# Importing torch and transformers makes a million objects, which by default the collector reads again and again meanwhile:
# 0.3 to 0.7 s of the 6 s of CPU time that train, evaluate and safety_audit take on a tiny corpus.
gc.set_threshold(50_000, 10, 10)

OWNED = ("README.md", "params.yaml", "dvc.lock", "data", "models", "reports", "logs", ".cache")
EVENTS = ("open", "os.listdir", "os.scandir")
CHECKOUT = os.environ.get("CODEX_TEST_CHECKOUT", "")
allowed: list[str] = []  # ids of the running tests that are marked `shipped`


def owned(path: str) -> bool:
    """Whether a path lies in the checkout and belongs to its user."""
    path = os.path.abspath(path)  # noqa: PTH100 - names only, whatever is a link
    return path.startswith(f"{CHECKOUT}/") and path[len(CHECKOUT) + 1 :].partition("/")[0] in OWNED


def guard(event: str, arguments: tuple[object, ...]) -> None:
    if event not in EVENTS or allowed or not isinstance(path := arguments[0], str | bytes):
        return
    name = os.fsdecode(path)
    if event == "open" and arguments[1] is None and name[:1] != "/":
        return  # os.open, where the name may be relative to another folder that is open
    if owned(name):
        raise AssertionError(
            f"a test opened {name}, which belongs to the user; take tests/project, or mark it `shipped`"
        )


if CHECKOUT:
    sys.addaudithook(guard)
