"""The section `fetch` of params.yaml."""

from __future__ import annotations

from pydantic import Field

from codex_ml.core.config import Section


class Fetch(Section):
    """`fetch`: the sample corpus."""

    sample: bool = Field(True, description="Download the wheels of data/sample.lock; false: use your own data only")
