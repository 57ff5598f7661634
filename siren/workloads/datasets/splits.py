"""What a loader returns, and how it becomes the stored training set."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from siren.workloads.protocol import Dataset, Features, Labels


class Splits(NamedTuple):
    """A training set in the order of its source, and a held-out split; see `Dataset`."""

    train_features: Features
    train_labels: Labels
    heldout_features: Features
    heldout_labels: Labels
    classes: int
    description: str


def shuffled(splits: Splits, seed: int) -> Dataset:
    """The data set with its training rows shuffled once, all arrays C-contiguous."""
    order = np.random.default_rng(seed).permutation(len(splits.train_features))
    return Dataset(
        train_features=np.ascontiguousarray(splits.train_features[order]),
        train_labels=np.ascontiguousarray(splits.train_labels[order]),
        heldout_features=np.ascontiguousarray(splits.heldout_features),
        heldout_labels=np.ascontiguousarray(splits.heldout_labels),
        classes=splits.classes,
        description=splits.description,
    )
