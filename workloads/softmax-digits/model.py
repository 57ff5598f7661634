"""Softmax regression: the smallest classifier of images."""

import math

import numpy as np


class Model:
    """A linear map to one score a class, softmax, cross-entropy loss; the bias is the last row."""

    def __init__(self, feature_shape, classes):
        self.inputs, self.classes = int(np.prod(feature_shape)), classes
        self.layout = {"weight": (self.inputs, classes), "bias": (classes,)}

    def init(self, rng):
        return np.zeros((self.inputs + 1) * self.classes, dtype=np.float32)

    def log_probabilities(self, params, features):
        table = params.reshape(self.inputs + 1, self.classes)
        z = features.reshape(len(features), self.inputs) @ table[:-1] + table[-1]
        z -= z.max(axis=1, keepdims=True)
        return z - np.log(np.exp(z).sum(axis=1, keepdims=True))

    def loss_and_grad(self, params, features, labels):
        log_p = self.log_probabilities(params, features)
        rows = np.arange(len(labels))
        error = np.exp(log_p)
        error[rows, labels] -= 1
        error /= np.float32(len(labels))
        gradient = np.empty((self.inputs + 1, self.classes), dtype=np.float32)
        np.matmul(features.reshape(len(features), self.inputs).T, error, out=gradient[:-1])
        error.sum(axis=0, out=gradient[-1])
        return float(-log_p[rows, labels].mean()), gradient.ravel()

    def evaluate(self, params, features, labels):
        log_p = self.log_probabilities(params, features)
        loss = -log_p[np.arange(len(labels)), labels].mean()
        return float(loss), float((log_p.argmax(axis=1) == labels).mean())

    @staticmethod
    def kernel(params, features, labels, rows, gradient):
        inputs = features.shape[1]
        classes = params.shape[0] // (inputs + 1)
        bias = inputs * classes
        scale = np.float32(1.0 / rows.shape[0])
        score = np.empty(classes, dtype=np.float32)
        gradient[:] = 0
        loss = 0.0
        for row in rows:
            for c in range(classes):
                score[c] = params[bias + c]
            for i in range(inputs):
                x = features[row, i]
                for c in range(classes):
                    score[c] += x * params[i * classes + c]
            label = labels[row]
            top = score.max()
            loss += top - score[label]
            total = np.float32(0.0)
            for c in range(classes):
                score[c] = math.exp(score[c] - top)
                total += score[c]
            loss += math.log(total)
            for c in range(classes):
                score[c] *= scale / total
            score[label] -= scale
            for c in range(classes):
                gradient[bias + c] += score[c]
            for i in range(inputs):
                x = features[row, i]
                for c in range(classes):
                    gradient[i * classes + c] += x * score[c]
        return loss / rows.shape[0]
