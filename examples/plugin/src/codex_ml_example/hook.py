"""A hook: it appends the message of each event to a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def to_file(event: dict[str, Any]) -> None:
    """Take one event, as docs/watch.md describes it; what is raised is logged and changes nothing.

    It runs in a process of its own, in the folder of the repository.
    """
    with Path("logs/alerts.txt").open("a", encoding="utf-8") as file:
        file.write(f"{event['event']}: {event['message']}\n")
