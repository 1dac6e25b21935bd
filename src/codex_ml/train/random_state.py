"""Save and restore the global random number generators (RNGs) of Python, NumPy and torch.

Used by: train.resume (as JSON), and train.tracking and train.trackers (around the code of a tracker).
"""

from __future__ import annotations

import base64
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def capture() -> dict[str, Any]:
    """Return the states of the global RNGs of Python, NumPy and torch (CPU, and the GPU of this process)."""
    import numpy as np
    import torch

    version, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002
    states = [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if torch.cuda.is_available() else [])]
    return {
        "python": [version, list(internal), gauss],
        "numpy": [name, np.asarray(keys).tolist(), position, has_gauss, cached],
        "torch": [base64.b64encode(state.numpy().tobytes()).decode() for state in states],
    }


def restore(state: dict[str, Any]) -> None:
    """Restore the states that `capture` returned."""
    import numpy as np
    import torch

    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))  # noqa: NPY002
    tensors = [torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8) for text in state["torch"]]
    torch.set_rng_state(tensors[0])
    if torch.cuda.is_available() and len(tensors) > 1:
        torch.cuda.set_rng_state(tensors[1])


@contextmanager
def unchanged() -> Iterator[None]:
    """Restore the states after this block, whatever it drew; about 0.1 ms. Other threads must not draw meanwhile."""
    import numpy as np
    import torch

    python, numpy, cpu = random.getstate(), np.random.get_state(legacy=True), torch.get_rng_state()  # noqa: NPY002
    gpu = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(cpu)
        if gpu is not None:
            torch.cuda.set_rng_state(gpu)
