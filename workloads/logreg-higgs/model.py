"""Logistic regression on dense features."""

import math

import numpy as np


class Model:
    """One weight a feature and an intercept, logistic loss; labels are 0 or 1."""

    def __init__(self, feature_shape, classes):
        (self.inputs,) = feature_shape
        self.layout = {"weight": (self.inputs,), "intercept": (1,)}

    def init(self, rng):
        return np.zeros(self.inputs + 1, dtype=np.float32)

    def loss_and_grad(self, params, features, labels):
        z = features @ params[:-1] + params[-1]
        error = (0.5 + 0.5 * np.tanh(z / 2) - labels) / np.float32(len(labels))
        gradient = np.empty_like(params)
        np.matmul(error, features, out=gradient[:-1])
        gradient[-1] = error.sum()
        return float((np.logaddexp(0, z) - labels * z).mean()), gradient

    def evaluate(self, params, features, labels):
        z = features @ params[:-1] + params[-1]
        loss = (np.logaddexp(0, z) - labels * z).mean()
        return float(loss), float(((z > 0) == labels).mean())

    @staticmethod
    def kernel(params, features, labels, rows, gradient):
        inputs = features.shape[1]
        scale = np.float32(1.0 / rows.shape[0])
        gradient[:] = 0
        loss = 0.0
        for row in rows:
            z = params[inputs]
            for i in range(inputs):
                z += features[row, i] * params[i]
            tail = math.exp(-abs(z))  # never overflows
            loss += max(z, 0.0) - labels[row] * z + math.log(1.0 + tail)
            error = np.float32((1.0 if z > 0.0 else tail) / (1.0 + tail) - labels[row]) * scale
            for i in range(inputs):
                gradient[i] += error * features[row, i]
            gradient[inputs] += error
        return loss / rows.shape[0]
