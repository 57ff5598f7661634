"""Small models with compiled kernels, and data for them: what the twin's family of jobs trains."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from siren.workloads.protocol import Dataset, Params

Singles = NDArray[np.float32]


class Softmax:
    """Softmax regression without a bias: a row of features, one column of weights a class.

    With two classes it is logistic regression. Keeps `siren.workloads.protocol.Model`.

    Args:
        inputs: Features of a sample.
        classes: Classes.
    """

    def __init__(self, inputs: int, classes: int) -> None:
        self.inputs, self.classes = inputs, classes
        self.layout: Mapping[str, tuple[int, ...]] = {"weight": (inputs, classes)}

    def init(self, rng: np.random.Generator) -> Params:
        """Zeros: all classes alike."""
        return np.zeros(self.inputs * self.classes, np.float32)

    def _log_probabilities(self, params: Params, features: Singles) -> Singles:
        """Class by class, which is much faster than sample by sample; returned as (samples, classes)."""
        z = np.ascontiguousarray((features @ params.reshape(self.inputs, self.classes)).T)
        z -= z.max(axis=0)
        z -= np.log(np.exp(z).sum(axis=0))
        return z.T

    def loss_and_grad(self, params: Params, features: Singles, labels: NDArray[Any]) -> tuple[float, Params]:
        """The mean cross-entropy of a mini-batch and its gradient."""
        log_p, rows = self._log_probabilities(params, features), np.arange(len(labels))
        error = np.exp(log_p)
        error[rows, labels] -= 1
        gradient = features.T @ error / np.float32(len(labels))
        return float(-log_p[rows, labels].mean()), gradient.ravel()

    def evaluate(self, params: Params, features: Singles, labels: NDArray[Any]) -> tuple[float, float]:
        """The mean cross-entropy and the accuracy."""
        log_p = self._log_probabilities(params, features)
        loss = -log_p[np.arange(len(labels)), labels].mean()
        return float(loss), float((log_p.argmax(axis=1) == labels).mean())

    @staticmethod
    def kernel(params: Params, features: Singles, labels: NDArray[Any], rows: Any, gradient: Params) -> float:
        """`loss_and_grad` in plain loops, for numba."""
        inputs = features.shape[1]
        classes = params.shape[0] // inputs
        scale = np.float32(1.0 / rows.shape[0])
        score = np.empty(classes, np.float32)
        gradient[:] = 0
        loss = 0.0
        for row in rows:
            score[:] = 0
            for i in range(inputs):
                x = features[row, i]
                for c in range(classes):
                    score[c] += x * params[i * classes + c]
            top = score.max()
            loss += top - score[labels[row]]
            total = np.float32(0.0)
            for c in range(classes):
                score[c] = math.exp(score[c] - top)
                total += score[c]
            loss += math.log(total)
            for c in range(classes):
                score[c] *= scale / total
            score[labels[row]] -= scale
            for i in range(inputs):
                x = features[row, i]
                for c in range(classes):
                    gradient[i * classes + c] += x * score[c]
        return float(loss / rows.shape[0])


def make_dataset(
    rng: np.random.Generator,
    *,
    samples: int,
    heldout: int,
    inputs: int,
    classes: int,
    spectrum: float = 1.0,
    distance: float = 0.8,
    wrong_labels: float = 0.05,
) -> Dataset:
    """Classes around random centres, features of a power-law spectrum, some labels wrong.

    Args:
        rng: Source of everything.
        samples, heldout: Samples of either split.
        inputs: Features, the first of which is a constant 1.
        classes: Classes.
        spectrum: The i-th principal variance falls as i^-this; their mean is 1.
        distance: Standard deviation of the centres' coordinates.
        wrong_labels: Share of labels that are drawn at random.
    """
    total = samples + heldout
    variances = np.arange(1.0, inputs + 1) ** -spectrum
    variances *= inputs / variances.sum()
    turn, _ = np.linalg.qr(rng.normal(size=(inputs, inputs)))
    centres = rng.normal(size=(classes, inputs)) * distance
    labels = rng.integers(classes, size=total)
    features = centres[labels] + (rng.normal(size=(total, inputs)) * np.sqrt(variances)) @ turn.T
    features[:, 0] = 1.0
    wrong = rng.random(total) < wrong_labels
    labels = np.where(wrong, rng.integers(classes, size=total), labels)
    data = np.ascontiguousarray(features, np.float32)
    return Dataset(
        data[:samples], labels[:samples], data[samples:], labels[samples:], classes, "generated, no licence"
    )


def largest_curvature(dataset: Dataset) -> float:
    """Largest eigenvalue of the Hessian of `Softmax` at zero weights: that of X'X / N over classes."""
    features = dataset.train_features.astype(np.float64)
    covariance = features.T @ features / len(features)
    return float(np.linalg.eigvalsh(covariance)[-1]) / dataset.classes
