"""The unbiased estimate of pass@k. Used by: evaluate."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

LARGEST = 2**53  # from here on, doubles leave whole numbers out


def pass_at_k(n: ArrayLike, c: ArrayLike, k: int) -> NDArray[np.float64] | np.float64:
    """Return the probability that at least one of k samples passes, estimated from c passes among n samples.

    1 - C(n - c, k) / C(n, k) (Chen et al. 2021, section 2.1), as 1 minus the product of (n - c - i) / (n - i) over
    i < k: the chance that k samples drawn without replacement all fail.

    Args:
        n, c: any shapes that broadcast, whole numbers; the result has their shape.

    >>> float(round(pass_at_k(10, 3, 5), 5))
    0.91667

    Raises:
        ValueError: unless 1 <= k <= n and 0 <= c <= n everywhere. With n < k there is no unbiased estimate.
    """
    samples, passed = _whole(n, "n"), _whole(c, "c")
    if k < 1:
        raise ValueError(f"k = {k}; it must be at least 1")
    if np.any(samples < k):
        raise ValueError(f"pass@{k} needs at least {k} samples per task, but there are {samples.min()}")
    if np.any((passed < 0) | (passed > samples)):
        raise ValueError("the number of passes must be between 0 and the number of samples")
    failed = samples - passed
    fail_all = np.ones(np.broadcast_shapes(samples.shape, passed.shape))
    for i in range(k):
        fail_all = fail_all * (np.maximum(failed - i, 0) / (samples - i))
    return np.float64(1.0) - fail_all if fail_all.ndim else np.float64(1.0 - float(fail_all))


def _whole(values: ArrayLike, name: str) -> NDArray[Any]:
    numbers = np.asarray(values)
    with np.errstate(invalid="ignore"):
        whole = np.equal(np.mod(numbers, 1), 0) & (np.abs(numbers) < LARGEST)  # False for NaN and inf
    if not np.all(whole):
        raise ValueError(f"{name} must be whole numbers below 2^53")
    return numbers.astype(np.int64)
