"""Try to import a plug-in, in a Python process of its own. Used by: `codex-ml plugins list`, `codex-ml check`.

The code of a plug-in that no lock records runs here only. Its process sees an allow-list of environment variables, as
the children of core.child do, has a session of its own and a time limit, and ends with everything that it started.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from codex_ml.core.child import FIXED, KEPT
from codex_ml.core.errors import one_line
from codex_ml.core.plugins import KINDS, Plugin
from codex_ml.core.strict_json import dump_json, parse_json

SECONDS = 120.0  # for one import; torch takes two to ten
ANSWER_BYTES = 1 << 16
CODE = """
import json, os, sys
answer = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what the plug-in prints is no answer
sys.path[:] = json.loads(sys.argv[1])
from collections.abc import Mapping
from importlib.metadata import EntryPoint
why, kind, shapes = "", "", []
try:
    found = EntryPoint(*sys.argv[2:]).load()
    kind = type(found).__name__[:100]
    shapes += ["callable"] * callable(found) + ["mapping"] * isinstance(found, Mapping)
    shapes += ["metric"] * all(callable(getattr(found, name, None)) for name in ("measure", "aggregate"))
except BaseException as error:
    try:
        why = f"{type(error).__name__}: {error}"[:1000]
    except BaseException:
        why = type(error).__name__
print(json.dumps({"why": why, "type": kind, "shapes": shapes}), file=answer, flush=True)
os._exit(0)  # its threads and exit handlers are not awaited
"""


def import_error(plugin: Plugin, seconds: float = SECONDS) -> str:
    """Why a plug-in cannot be used, on one line: it cannot be imported, or it is not what its kind needs; else "".

    Its code cannot end, hang or change this process.
    """
    if plugin.point is None:
        return ""
    point = plugin.point
    # -P and -s: neither the working folder nor the user's packages are on the path before the answer is set up
    command = [sys.executable, "-P", "-s", "-c", CODE, dump_json(sys.path, indent=None)]
    environment = {name: os.environ[name] for name in KEPT if name in os.environ} | FIXED | {"HOME": str(Path.cwd())}
    with tempfile.TemporaryFile() as answer:  # and not a pipe, which a child of the plug-in could hold open
        process = subprocess.Popen(
            [*command, point.name, point.value, point.group],
            stdin=subprocess.DEVNULL,
            stdout=answer,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # so that its own children end with it
        )
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            return f"its import takes longer than {seconds:g} s"
        finally:
            with suppress(ProcessLookupError, PermissionError):  # nothing is left of it
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        answer.seek(0)
        return _why(plugin, _parsed(answer.read(ANSWER_BYTES)), code)


def _parsed(data: bytes) -> dict[str, Any]:
    with suppress(ValueError):
        value = parse_json(data)
        if isinstance(value, dict) and isinstance(value.get("why"), str) and isinstance(value.get("shapes"), list):
            return value
    return {}


def _why(plugin: Plugin, answer: dict[str, Any], code: int) -> str:
    if not answer:
        return f"its import ends Python with exit code {code}"
    if answer["why"]:
        return one_line(answer["why"])
    needed = KINDS[plugin.kind].shapes
    if set(needed) & {str(shape) for shape in answer["shapes"]}:
        return ""
    return f"must be {' or '.join(needed.values())}, found {one_line(str(answer.get('type')))}"
