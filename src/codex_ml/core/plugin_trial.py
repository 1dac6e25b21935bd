"""Try to import a plug-in, in a Python process of its own. Used by: `codex-ml plugins list`."""

from __future__ import annotations

import subprocess
import sys

from codex_ml.core.errors import one_line
from codex_ml.core.plugins import Plugin
from codex_ml.core.strict_json import dump_json, parse_json

SECONDS = 120  # for one import; torch takes two to ten
CODE = """
import json, os, sys
answer = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what the plug-in prints is no answer
sys.path[:] = json.loads(sys.argv[1])
from importlib.metadata import EntryPoint
try:
    EntryPoint(*sys.argv[2:]).load()
    why = ""
except BaseException as error:
    why = f"{type(error).__name__}: {error}"[:1000]
print(json.dumps(why), file=answer, flush=True)
os._exit(0)  # its threads and exit handlers are not awaited
"""


def import_error(plugin: Plugin) -> str:
    """Why a plug-in cannot be imported, on one line; "" if it can. Its code cannot end, hang or change this process."""
    if plugin.point is None:
        return ""
    point = plugin.point
    command = [sys.executable, "-c", CODE, dump_json(sys.path, indent=None), point.name, point.value, point.group]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"its import takes longer than {SECONDS} s"
    if not done.stdout:
        return f"its import ends Python with exit code {done.returncode}"
    why = str(parse_json(done.stdout))
    return one_line(why) if why else ""
