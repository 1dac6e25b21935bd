"""A picture of the page. Used by: report.page, report.evaluation_pictures."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Picture:
    """A picture, with a text for people who do not see it. It is drawn only where the page shows it."""

    caption: str
    alt: str
    draw: Callable[[], str]

    @property
    def uri(self) -> str:
        return "data:image/svg+xml;base64," + base64.b64encode(self.draw().encode("utf-8")).decode("ascii")
