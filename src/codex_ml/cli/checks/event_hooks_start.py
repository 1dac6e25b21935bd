"""Hooks of `runtime.on_event` that would fail at every event. Used by: `codex-ml check`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from codex_ml.core.config import EventHook
from codex_ml.core.plugin_trial import import_error
from codex_ml.core.plugins import find


def hooks_without_start(hooks: tuple[EventHook, ...]) -> Iterator[str]:
    """One line per hook whose program is not there, or whose plug-in cannot be used.

    No program is started. A plug-in is imported in a process of its own.
    """
    for number, hook in enumerate(hooks):
        key = f"runtime.on_event.{number}"
        if hook.plugin:
            if why := import_error(find("hooks", hook.plugin)):
                yield f"{key}.plugin: {hook.plugin} cannot be used: {why}; mend or remove the hook"
        elif not _can_start(hook.command[0]):
            yield (
                f"{key}.command: there is no program {hook.command[0]}; install it, or write its path from the top of "
                "the repository and make it executable"
            )


def _can_start(program: str) -> bool:
    try:
        return shutil.which(program) is not None
    except ValueError:  # a null character
        return False
