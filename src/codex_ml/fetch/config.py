"""The section `fetch` of params.yaml."""

from __future__ import annotations

from pydantic import Field

from codex_ml.core.config import Section


class Fetch(Section):
    """`fetch`: the sample corpus and public benchmarks."""

    sample: bool = Field(True, description="Download the wheels of data/sample.lock; false: use your own data only")
    benchmarks: bool = Field(
        False, description="Download the benchmarks of data/sample.lock into data/benchmarks/sample"
    )
