"""ServeLimits of the endpoint. Used by: serve."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ServeLimits:
    """What one client, and all together, may take.

    Attributes:
        max_batch: texts that are written at once.
        max_queue: further texts that wait for a place.
        timeout: seconds for a request, from its first byte to the last of its answer.
        max_body: bytes of a request.
        max_unread: steps whose text a client of a stream has not read yet; with more it is dropped.
    """

    max_batch: int = 32
    max_queue: int = 256
    timeout: float = 120.0
    max_body: int = 1 << 20
    max_unread: int = 1024

    @property
    def most_requests(self) -> int:
        """Requests that are read or answered at once."""
        return self.max_batch + self.max_queue
