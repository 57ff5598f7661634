"""Softmax regression on generated classes that overlap, with many wrong labels."""

import numpy as np

from siren.simulator.small_models import Softmax, make_dataset


def load_dataset(seed, **settings):
    data = make_dataset(np.random.default_rng(seed), **settings)
    return data.train_features, data.train_labels, data.heldout_features, data.heldout_labels


class Model(Softmax):
    def __init__(self, feature_shape, classes):
        super().__init__(feature_shape[0], classes)
