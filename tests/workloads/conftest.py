"""A user's workload folder, to be broken in one place at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

SPEC = """
title = "a line through noise"

[dataset]
source = "model.py"
settings = { samples = 60 }
heldout = "20 rows"
licence = "none"

[training]
target_loss = 0.1
batch_size = 5
learning_rate = 0.1

[cost]
seconds_per_sample = 1e-6
evaluate_seconds_per_sample = 1e-6
sample_bytes = 16
import_s = 0.1
runtime_mb = 30
package_mb = 48
measured = "made up"
"""

MODEL = """
import numpy as np


def load_dataset(samples):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(samples + 20, 3)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.float32)
    return x[:samples], y[:samples], x[samples:], y[samples:]


class Model:
    def __init__(self, feature_shape, classes):
        self.layout = {"weight": feature_shape}

    def init(self, rng):
        return np.zeros(3, dtype=np.float32)

    def loss_and_grad(self, params, features, labels):
        error = features @ params - labels
        return float((error**2).mean()), 2 * features.T @ error / np.float32(len(labels))

    def evaluate(self, params, features, labels):
        return float(((features @ params - labels) ** 2).mean()), float("nan")

    @staticmethod
    def kernel(params, features, labels, rows, gradient):
        gradient[:] = 0
        loss = 0.0
        for row in rows:
            error = -labels[row]
            for i in range(3):
                error += features[row, i] * params[i]
            loss += error * error / len(rows)
            for i in range(3):
                gradient[i] += 2 * error * features[row, i] / len(rows)
        return loss
"""


class UserFolder:
    """A working workload folder and the two texts in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self.spec(SPEC)
        self.model(MODEL)

    def __str__(self) -> str:
        return str(self.folder)

    def spec(self, text: str) -> None:
        (self.folder / "workload.toml").write_text(text, encoding="utf-8")

    def model(self, text: str) -> None:
        (self.folder / "model.py").write_text(text, encoding="utf-8")

    def change(self, file: str, old: str, new: str) -> None:
        path = self.folder / file
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.fixture
def user(tmp_path: Path) -> UserFolder:
    return UserFolder(tmp_path / "jobs" / "line")
