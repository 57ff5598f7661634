"""A perceptron with one hidden layer for two classes."""

import numpy as np


class Model:
    """Features -> `hidden` tanh units -> the probability of class 1, cross-entropy loss."""

    def __init__(self, feature_shape, classes, hidden=16):
        self.inputs, self.hidden = int(np.prod(feature_shape)), hidden
        self.layout = {
            "hidden.weight": (self.inputs, hidden),
            "hidden.bias": (hidden,),
            "output.weight": (hidden,),
            "output.bias": (1,),
        }
        self.size = (self.inputs + 2) * hidden + 1

    def split(self, flat):
        """Views of the flat vector, one a tensor."""
        end = self.inputs * self.hidden
        weight = flat[:end].reshape(self.inputs, self.hidden)
        return weight, flat[end : end + self.hidden], flat[end + self.hidden : -1], flat[-1:]

    def init(self, rng):
        params = np.zeros(self.size, dtype=np.float32)
        hidden, _, output, _ = self.split(params)
        hidden[:] = rng.normal(0, self.inputs**-0.5, hidden.shape)
        output[:] = rng.normal(0, self.hidden**-0.5, output.shape)
        return params

    def forward(self, params, features):
        w1, b1, w2, b2 = self.split(params)
        h = np.tanh(features @ w1 + b1)
        return h, h @ w2 + b2

    def loss_and_grad(self, params, features, labels):
        h, z = self.forward(params, features)
        error = (1 / (1 + np.exp(-z)) - labels).astype(np.float32) / np.float32(len(labels))
        gradient = np.empty_like(params)
        g1, gb1, g2, gb2 = self.split(gradient)
        g2[:], gb2[:] = h.T @ error, error.sum()
        back = error[:, None] * self.split(params)[2] * (1 - h * h)
        g1[:], gb1[:] = features.T @ back, back.sum(axis=0)
        return float(np.mean(np.logaddexp(0, z) - labels * z)), gradient

    def evaluate(self, params, features, labels):
        _, z = self.forward(params, features)
        return float(np.mean(np.logaddexp(0, z) - labels * z)), float(np.mean((z > 0) == (labels > 0.5)))
