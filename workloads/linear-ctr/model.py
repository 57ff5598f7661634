"""Sparse logistic regression on hashed features, for click-through rates."""

import math

import numpy as np


class Model:
    """One weight a hash bucket and an intercept; a row of features lists the buckets that are on."""

    def __init__(self, feature_shape, classes, buckets=8192):
        self.buckets = buckets
        self.layout = {"weight": (buckets,), "intercept": (1,)}

    def init(self, rng):
        return np.zeros(self.buckets + 1, dtype=np.float32)

    def scores(self, params, features):
        return params[:-1][features].sum(axis=1) + params[-1]

    def loss_and_grad(self, params, features, labels):
        z = self.scores(params, features)
        error = (0.5 + 0.5 * np.tanh(z / 2) - labels) / np.float32(len(labels))
        gradient = np.empty_like(params)
        repeated = np.repeat(error, features.shape[1])
        gradient[:-1] = np.bincount(features.ravel(), weights=repeated, minlength=self.buckets)
        gradient[-1] = error.sum()
        return float((np.logaddexp(0, z) - labels * z).mean()), gradient

    def evaluate(self, params, features, labels):
        z = self.scores(params, features)
        loss = (np.logaddexp(0, z) - labels * z).mean()
        return float(loss), float(((z > 0) == labels).mean())

    @staticmethod
    def kernel(params, features, labels, rows, gradient):
        fields = features.shape[1]
        last = params.shape[0] - 1
        scale = np.float32(1.0 / rows.shape[0])
        gradient[:] = 0
        loss = 0.0
        for row in rows:
            z = params[last]
            for i in range(fields):
                z += params[features[row, i]]
            tail = math.exp(-abs(z))  # never overflows
            loss += max(z, 0.0) - labels[row] * z + math.log(1.0 + tail)
            error = np.float32((1.0 if z > 0.0 else tail) / (1.0 + tail) - labels[row]) * scale
            for i in range(fields):
                gradient[features[row, i]] += error
            gradient[last] += error
        return loss / rows.shape[0]
