"""Call the programs and plug-ins of `runtime.on_event` with the events of a run, for alerts.

A hook is a process of its own: it gets one JSON object on its standard input, the line of the log, and has a time
limit. It sees an allow-list of environment variables and no home folder of the user, like every child of the pipeline
(core.child). What goes wrong is logged and changes nothing: neither result nor exit code.

Used by: core.stage_log.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from codex_ml.core.config import EventHook
from codex_ml.core.events import is_event, log_line
from codex_ml.core.message_cleaner import clean_message
from codex_ml.core.short_child import run_briefly
from codex_ml.core.strict_json import ndjson_line

log = logging.getLogger("codex_ml")
HOOK_FAILED = "hook_failed"  # the event of a hook that failed; no hook is called with it
# The program of a plug-in's process; it imports the plug-in, which must not reach the process of the stage.
_PLUGIN = """import json, sys
sys.path.insert(0, sys.argv[1])
from codex_ml.core.plugins import load
load("hooks", sys.argv[2])(json.loads(sys.stdin.read()))"""


class HookCaller(logging.Handler):
    """Calls each hook with the events that it names, and waits until it ends."""

    def __init__(self, stage: str, hooks: tuple[EventHook, ...]) -> None:
        super().__init__()
        self._stage, self._hooks = stage, hooks
        self.addFilter(is_event)

    def emit(self, record: logging.LogRecord) -> None:
        name = getattr(record, "event", "")
        for hook in self._hooks:
            if name == HOOK_FAILED or name not in hook.events:
                continue
            line = ndjson_line(log_line(record, self._stage, clean_message).as_json())
            if why := call_hook(hook, line):
                called = hook.plugin or hook.command[0]
                fields = {"event": HOOK_FAILED, "fields": {"hook": called, "of": name, "why": why}}
                log.warning("%s: the hook %s for %s failed (%s); the run goes on", self._stage, called, name, why,
                            extra=fields)  # fmt: skip


def call_hook(hook: EventHook, line: bytes) -> str:
    """Run a hook with a line of the log on its standard input; return why it failed, or ""."""
    return run_briefly(_command(hook), line, seconds=hook.seconds, variables={})


def _command(hook: EventHook) -> list[str]:
    import codex_ml

    if hook.command:
        return list(hook.command)
    return [sys.executable, "-P", "-s", "-c", _PLUGIN, str(Path(codex_ml.__file__).resolve().parents[1]), hook.plugin]
