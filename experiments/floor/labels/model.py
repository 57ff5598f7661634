"""Logistic regression on two generated classes that overlap, with very many wrong labels."""

import numpy as np

from siren.simulator.small_models import Softmax, make_dataset


def load_dataset(samples, heldout, seed):
    data = make_dataset(
        np.random.default_rng(seed),
        samples=samples,
        heldout=heldout,
        inputs=24,
        classes=2,
        distance=0.2,
        wrong_labels=0.3,
    )
    return data.train_features, data.train_labels, data.heldout_features, data.heldout_labels


class Model(Softmax):
    def __init__(self, feature_shape, classes):
        super().__init__(feature_shape[0], classes)
