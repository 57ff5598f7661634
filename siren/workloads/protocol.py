"""What a workload is made of: the model that a user writes, its data, and both joined.

A user's `model.py` needs numpy alone. It defines a class `Model` that keeps the `Model` protocol
below; nothing in it imports Siren, because the same file runs inside the Lambda worker.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Params = NDArray[np.float32]
"""A model's parameters: one flat, C-contiguous float32 vector."""

Features = NDArray[Any]
"""Rows of inputs, (samples, ...), of whatever dtype the dataset is stored in."""

Labels = NDArray[Any]
"""One label a row, (samples,): int64 class indices, or float32 in {0, 1} for binary models."""

Kernel = Callable[[Params, Features, Labels, NDArray[np.int64], Params], float]
"""`kernel(params, features, labels, rows, gradient) -> loss`, see `Model`."""


@runtime_checkable
class Model(Protocol):
    """What the class `Model` in a workload's `model.py` must have.

    It is built as `Model(feature_shape, classes, **settings)`: the shape of one row of features,
    the number of classes (2 for binary models), and the `[model.settings]` of `workload.toml`.

    Attributes:
        layout: Name -> shape of every tensor, in the order in which the flat vector holds them.

    A model may also define a static method `kernel(params, features, labels, rows, gradient)`:
    the mean loss over `rows` (int64 row indices) in plain loops, writing the gradient into
    `gradient`. Siren compiles it with numba; it must agree with `loss_and_grad` to float32
    rounding. It makes tiny models an order of magnitude faster in the twin.
    """

    layout: Mapping[str, tuple[int, ...]]

    def init(self, rng: np.random.Generator) -> Params:
        """The initial parameters, float32, (size,)."""
        ...

    def loss_and_grad(self, params: Params, features: Features, labels: Labels) -> tuple[float, Params]:
        """The mean loss of a mini-batch and its gradient, float32, (size,)."""
        ...

    def evaluate(self, params: Params, features: Features, labels: Labels) -> tuple[float, float]:
        """The mean loss and the accuracy in [0, 1] over the rows; NaN for no accuracy."""
        ...


@dataclass(frozen=True)
class Dataset:
    """A training set, already shuffled, and the stated held-out split.

    Attributes:
        train_features: (samples, ...), C-contiguous.
        train_labels: (samples,).
        heldout_features: (heldout samples, ...).
        heldout_labels: (heldout samples,).
        classes: Number of classes; 2 for binary labels.
        description: One line that names data, origin and licence, for headers and summaries.
    """

    train_features: Features
    train_labels: Labels
    heldout_features: Features
    heldout_labels: Labels
    classes: int
    description: str

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """Shape of one row of features."""
        return tuple(int(n) for n in self.train_features.shape[1:])


def layout_size(layout: Mapping[str, tuple[int, ...]]) -> int:
    """Number of float32 values in a flat vector of this layout."""
    return int(sum(np.prod(shape, dtype=np.int64) for shape in layout.values()))
