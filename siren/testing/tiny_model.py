"""A whole `model.py` in a few lines: logistic regression on points around a line; needs numpy alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def load_dataset(
    samples: int = 240, heldout: int = 80, seed: int = 0
) -> tuple[Floats, Floats, Floats, Floats]:
    """(training features, labels, held-out features, labels): three features, one label in ten wrong."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(samples + heldout, 3)).astype(np.float32)
    side = features @ np.array([1.5, -1.0, 0.5], np.float32) > 0
    labels = np.where(rng.random(len(side)) < 0.1, ~side, side).astype(np.float32)
    return features[:samples], labels[:samples], features[samples:], labels[samples:]


class Model:
    """Weights and a bias, the logistic loss; keeps `siren.workloads.protocol.Model`."""

    def __init__(self, feature_shape: tuple[int, ...], classes: int) -> None:
        assert classes == 2
        self.inputs = int(np.prod(feature_shape))
        self.layout: Mapping[str, tuple[int, ...]] = {"weight": (self.inputs,), "bias": (1,)}

    def init(self, rng: np.random.Generator) -> Floats:
        """Small random numbers, so that seeds differ."""
        return rng.normal(0, 0.1, self.inputs + 1).astype(np.float32)

    def loss_and_grad(self, params: Floats, features: Floats, labels: Floats) -> tuple[float, Floats]:
        """The mean loss of a mini-batch and its gradient."""
        score = features @ params[:-1] + params[-1]
        error = (1 / (1 + np.exp(-score)) - labels) / np.float32(len(labels))
        gradient = np.append(features.T @ error, error.sum()).astype(np.float32)
        return float(np.mean(np.logaddexp(0, score) - labels * score)), gradient

    def evaluate(self, params: Floats, features: Floats, labels: Floats) -> tuple[float, float]:
        """The mean loss and the accuracy."""
        score = features @ params[:-1] + params[-1]
        loss = np.mean(np.logaddexp(0, score) - labels * score)
        return float(loss), float(((score > 0) == (labels > 0.5)).mean())

    @staticmethod
    def kernel(params: Floats, features: Floats, labels: Floats, rows: Any, gradient: Floats) -> float:
        """`loss_and_grad` in plain loops, for numba."""
        inputs = features.shape[1]
        gradient[:] = 0
        loss = 0.0
        for row in rows:
            score = float(params[inputs])
            for i in range(inputs):
                score += params[i] * features[row, i]
            loss += max(score, 0.0) + math.log1p(math.exp(-abs(score))) - labels[row] * score
            error = np.float32((1.0 / (1.0 + math.exp(-score)) - labels[row]) / len(rows))
            gradient[inputs] += error
            for i in range(inputs):
                gradient[i] += error * features[row, i]
        return float(loss / len(rows))
