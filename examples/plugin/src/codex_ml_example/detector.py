"""A detector: numbers of tickets such as ABC-1234, which name a project of the author."""

from __future__ import annotations

import re
from collections.abc import Iterator

TICKET = re.compile(r"\b[A-Z]{2,6}-[0-9]{3,6}\b")


def find_tickets(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield (rule id, start, end) of each find; offsets in characters."""
    return (("ticket", match.start(), match.end()) for match in TICKET.finditer(text))
