"""A sandbox per rung that this machine can run; any other rung is a visible skip with its reason."""

from __future__ import annotations

import pytest

from codex_ml.core.errors import UserError
from codex_ml.sandbox.ladder import RUNGS, Sandbox, open_sandbox


@pytest.fixture(scope="session", params=RUNGS)
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    try:
        return open_sandbox(request.param)
    except UserError as error:
        pytest.skip(str(error))
