"""The fitted law of asynchronous convergence, beside the noisy quadratic model.

    loss = (g2 b_w + g3) sqrt((R + g4) n) / (j + g1) + g5

with n workers of weighted mean batch b_w and heterogeneity R, and j updates over all of them (spotDNN,
README of its repository). With excess x = loss - g5 and C = (g2 b_w + g3)
sqrt((R + g4) n), K more updates give 1 / x' = 1 / x + K / C, which also serves when n changes
between epochs: the law has no state but the loss.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class SpotDnn:
    """Parameters of the law.

    Attributes:
        offset: g1, in updates.
        per_sample: g2, in loss x updates per sample of batch.
        scale: g3, in loss x updates.
        heterogeneity: R + g4; 1 for equal workers.
        lowest: g5, the loss that endless training reaches.
        noise: Standard deviation of the noise that an epoch adds to log(x).
    """

    offset: float
    per_sample: float
    scale: float
    heterogeneity: float
    lowest: float
    noise: float = 0.0

    def strength(self, functions: Floats, batch: Floats) -> Floats:
        """C at each count of workers and mean batch."""
        strength: Floats = (self.per_sample * batch + self.scale) * np.sqrt(self.heterogeneity * functions)
        return strength

    def loss(self, functions: Floats, batch: Floats, updates: Floats) -> Floats:
        """The law as published."""
        return self.strength(functions, batch) / (updates + self.offset) + self.lowest

    def progress(self, functions: Floats, batch: Floats, pushes: Floats) -> Floats:
        """What an epoch of that many pushes adds to 1 / (loss - lowest)."""
        return pushes / self.strength(functions, batch)


RESNET110 = SpotDnn(offset=876.5, per_sample=-0.2, scale=2507.6, heterogeneity=1.0, lowest=0.5)
"""ResNet-110 on CIFAR-100, as spotDNN's repository gives it for equal workers."""


def mean_excess(excess: float, progress: Floats, epochs: int) -> Floats:
    """Excess loss of fixed counts without noise, (counts, epochs + 1); column 0 is the initial one."""
    return 1.0 / (1.0 / excess + progress[:, None] * np.arange(epochs + 1))


@numba.njit(cache=True)
def advance(excess: float, progress: float, noise: float, rng: np.random.Generator) -> float:
    """The excess loss after one more epoch."""
    after = 1.0 / (1.0 / excess + progress)
    if noise > 0.0:
        after *= np.exp(noise * rng.standard_normal())
    return after
