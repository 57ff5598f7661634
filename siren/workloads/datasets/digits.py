"""The handwritten digits that scikit-learn ships (UCI optdigits test set, 1,797 images of 8x8)."""

from __future__ import annotations

import numpy as np

from siren.errors import DatasetError
from siren.workloads.datasets.splits import Splits

SAMPLES = 1797


def load_digits(*, heldout_samples: int = 297, seed: int = 0) -> Splits:
    """The bundled digits, pixels scaled to [0, 1] as float32, (samples, 64).

    Args:
        heldout_samples: Rows of the held-out split, drawn at random.
        seed: Seed of that draw.

    Raises:
        DatasetError: The held-out split would take everything or nothing.
    """
    if not 0 < heldout_samples < SAMPLES:
        raise DatasetError(f"digits: heldout_samples must be 1 to {SAMPLES - 1}, not {heldout_samples}")
    from sklearn.datasets import load_digits as bundled

    pixels, digits = bundled(return_X_y=True)
    order = np.random.default_rng(seed).permutation(SAMPLES)
    features = (pixels[order] / 16).astype(np.float32)
    labels = digits[order].astype(np.int64)
    return Splits(
        features[heldout_samples:],
        labels[heldout_samples:],
        features[:heldout_samples],
        labels[:heldout_samples],
        10,
        "digits bundled with scikit-learn (UCI optdigits, CC BY 4.0)",
    )
