"""A perceptron with one hidden layer, for images of bytes."""

import numpy as np


class Model:
    """Pixels -> `hidden` rectified units -> softmax over the classes, cross-entropy loss."""

    def __init__(self, feature_shape, classes, hidden=64):
        self.inputs = int(np.prod(feature_shape))
        self.layout = {
            "hidden.weight": (self.inputs, hidden),
            "hidden.bias": (hidden,),
            "output.weight": (hidden, classes),
            "output.bias": (classes,),
        }
        self.size, self.parts = 0, []
        for shape in self.layout.values():
            end = self.size + int(np.prod(shape))
            self.parts.append((slice(self.size, end), shape))
            self.size = end

    def split(self, flat):
        """Views of the flat vector, one a tensor."""
        return [flat[part].reshape(shape) for part, shape in self.parts]

    def init(self, rng):
        params = np.zeros(self.size, dtype=np.float32)
        hidden, _, output, _ = self.split(params)
        for weight in (hidden, output):  # He et al. 2015
            weight[:] = rng.normal(0, (2 / len(weight)) ** 0.5, weight.shape)
        return params

    def forward(self, params, features):
        w1, b1, w2, b2 = self.split(params)
        x = features.reshape(len(features), self.inputs) * np.float32(1 / 255)
        x -= np.float32(0.13)  # the mean pixel: SGD bears larger and staler steps on centred inputs
        h = np.maximum(x @ w1 + b1, 0)
        z = h @ w2 + b2
        z -= z.max(axis=1, keepdims=True)
        p = np.exp(z)
        total = p.sum(axis=1, keepdims=True)
        p /= total
        return x, h, z - np.log(total), p

    def loss_and_grad(self, params, features, labels):
        x, h, log_p, p = self.forward(params, features)
        rows = np.arange(len(labels))
        loss = -log_p[rows, labels].mean()
        p[rows, labels] -= 1
        p /= np.float32(len(labels))
        gradient = np.empty_like(params)
        g1, gb1, g2, gb2 = self.split(gradient)
        np.matmul(h.T, p, out=g2)
        p.sum(axis=0, out=gb2)
        back = p @ self.split(params)[2].T
        back *= h > 0
        np.matmul(x.T, back, out=g1)
        back.sum(axis=0, out=gb1)
        return float(loss), gradient

    def evaluate(self, params, features, labels):
        log_p = self.forward(params, features)[2]
        loss = -log_p[np.arange(len(labels)), labels].mean()
        return float(loss), float((log_p.argmax(axis=1) == labels).mean())
