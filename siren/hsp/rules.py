"""Update rules as plain numerics on arrays, for the twin and for the worker on Lambda.

`overwrite`  S3 as Siren and LambdaML use it: the model a function read, less its step, replaces
             whatever is stored; the last writer wins.
`additive`   the step is added atomically to what is stored.
`staleness`  additive, with the rate damped by the updates applied since the read.
`cas`        compare-and-swap: re-read and retry the same step until nobody came between.
`average`    local SGD: every function steps on its own copy; copies are averaged at the barrier.
`sync`       gradients are averaged at a barrier after every step.

Nothing here imports more than numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Params = NDArray[np.float32]


def damped_rate(
    rate: float | NDArray[np.float64], staleness: float | NDArray[Any], scale: float
) -> float | NDArray[np.float64]:
    """The learning rate under `staleness`: rate / (1 + staleness / scale); numbers or arrays.

    Zhang et al. 2016 divide by the staleness itself; the scale softens it, and 0 staleness
    leaves plain SGD.
    """
    return rate / (1.0 + staleness / scale)


def step(base: Params, gradient: Params, rate: float, out: Params) -> None:
    """Writes base - rate x gradient into `out`, in float32; `out` may be `base`."""
    np.multiply(gradient, np.float32(rate), out=gradient)
    np.subtract(base, gradient, out=out)


def weighted_mean(vectors: Sequence[Params], weights: Sequence[float]) -> Params:
    """The weighted mean, accumulated in float64; exact for a single vector."""
    mean = Mean(len(vectors[0]))
    for vector, weight in zip(vectors, weights, strict=True):
        mean.add(vector, weight)
    return mean.value()


class Mean:
    """A running weighted mean of float32 vectors, in float64: memory for one vector.

    Args:
        size: Length of the vectors.
    """

    def __init__(self, size: int) -> None:
        self._sum = np.zeros(size)
        self._weight = 0.0

    def add(self, vector: Params, weight: float) -> None:
        """Adds a vector."""
        self._sum += vector * np.float64(weight)
        self._weight += weight

    def value(self) -> Params:
        """The mean so far, float32."""
        return (self._sum / self._weight).astype(np.float32)
