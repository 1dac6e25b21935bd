"""The section `report` of params.yaml."""

from __future__ import annotations

from pydantic import Field

from codex_ml.core.config import Section


class Report(Section):
    """`report`: one page and a model card for people."""

    title: str = Field("codex-ml sample model", min_length=1, max_length=200, description="Title of the page")
