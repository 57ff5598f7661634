"""The text CNN of Kim (2014), "Convolutional Neural Networks for Sentence Classification"."""

import math

import numpy as np

EMBEDDING = 16  # constants, so that numba unrolls the loops over them
FILTERS = 16  # of each width
WIDTHS = (3, 4, 5)
CONVOLUTIONS = sum(WIDTHS) * EMBEDDING * FILTERS
UNITS = len(WIDTHS) * FILTERS


class Model:
    """Words -> embedding -> convolutions of three widths, rectified -> maximum over time -> logistic loss.

    A row of features lists word numbers below `words`; labels are 0 or 1.
    """

    def __init__(self, feature_shape, classes, words=4000):
        (self.length,) = feature_shape
        if classes != 2 or self.length < max(WIDTHS):
            raise ValueError(f"it tells two classes apart in rows of at least {max(WIDTHS)} words")
        self.words = words
        self.layout = {
            "embedding": (words, EMBEDDING),
            **{f"convolution{width}.weight": (FILTERS, width, EMBEDDING) for width in WIDTHS},
            "convolution.bias": (UNITS,),
            "output.weight": (UNITS,),
            "output.bias": (1,),
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
        embedding, *weights, _, output, _ = self.split(params)
        embedding[:] = rng.uniform(-0.25, 0.25, embedding.shape)  # as Kim's unknown words
        for weight in weights:  # He et al. 2015
            weight[:] = rng.normal(0, (2 / weight[0].size) ** 0.5, weight.shape)
        output[:] = rng.normal(0, UNITS**-0.5, UNITS)
        return params

    def forward(self, params, features):
        embedding, *weights, bias, output, intercept = self.split(params)
        x = embedding[features]  # (rows, length, EMBEDDING)
        windows, peaks, where = [], [], []
        for weight in weights:
            width = weight.shape[1]
            window = np.lib.stride_tricks.sliding_window_view(x, width, axis=1).swapaxes(2, 3)
            window = window.reshape(len(x), self.length - width + 1, width * EMBEDDING)
            maps = window @ weight.reshape(FILTERS, -1).T
            where.append(maps.argmax(axis=1))  # (rows, FILTERS)
            peaks.append(np.take_along_axis(maps, where[-1][:, None], axis=1)[:, 0])
            windows.append(window)
        hidden = np.maximum(np.concatenate(peaks, axis=1) + bias, 0)
        return windows, where, hidden, hidden @ output + intercept

    def loss_and_grad(self, params, features, labels):
        windows, where, hidden, z = self.forward(params, features)
        loss = (np.logaddexp(0, z) - labels * z).mean()
        error = (0.5 + 0.5 * np.tanh(z / 2) - labels) / np.float32(len(labels))
        gradient = np.zeros_like(params)
        embedding, *weights, bias, output, intercept = self.split(gradient)
        output[:] = error @ hidden
        intercept[:] = error.sum()
        back = np.outer(error, self.split(params)[-2]) * (hidden > 0)
        bias[:] = back.sum(axis=0)
        rows = np.arange(len(features))[:, None]
        for i, weight in enumerate(self.split(params)[1:4]):  # only the windows of maxima count
            own = back[:, i * FILTERS : (i + 1) * FILTERS]
            maximal = windows[i][rows, where[i]]  # (rows, FILTERS, width x EMBEDDING)
            weights[i].reshape(FILTERS, -1)[:] = np.einsum("rf,rfd->fd", own, maximal)
            to_words = own[:, :, None, None] * weight
            at = where[i][:, :, None] + np.arange(weight.shape[1])
            np.add.at(embedding, features[rows[:, :, None], at], to_words)
        return float(loss), gradient

    def evaluate(self, params, features, labels):
        z = np.concatenate(
            [self.forward(params, features[i : i + 64])[-1] for i in range(0, len(features), 64)]
        )
        loss = (np.logaddexp(0, z) - labels * z).mean()
        return float(loss), float(((z > 0) == labels).mean())

    @staticmethod
    def kernel(params, features, labels, rows, gradient):
        length = features.shape[1]
        first = params.shape[0] - CONVOLUTIONS - 2 * UNITS - 1  # the embedding ends here
        biases = first + CONVOLUTIONS
        outputs = biases + UNITS
        scale = np.float32(1.0 / rows.shape[0])
        gradient[:] = 0
        x = np.empty((EMBEDDING, length), np.float32)  # time last, so that the innermost loop is over it
        maps = np.empty(length, np.float32)
        best = np.empty(UNITS, np.float32)
        where = np.empty(UNITS, np.int64)
        loss = 0.0
        for row in rows:
            for at in range(length):
                word = EMBEDDING * np.int64(features[row, at])
                for j in range(EMBEDDING):
                    x[j, at] = params[word + j]
            weight, unit = first, 0
            for width in WIDTHS:
                positions = length - width + 1
                for u in range(unit, unit + FILTERS):
                    maps[:] = 0
                    for i in range(width):
                        for j in range(EMBEDDING):
                            for at in range(positions):
                                maps[at] += params[weight] * x[j, at + i]
                            weight += 1
                    where[u] = np.argmax(maps[:positions])
                    best[u] = maps[where[u]]
                unit += FILTERS
            z = params[outputs + UNITS]
            for u in range(UNITS):
                best[u] = max(best[u] + params[biases + u], np.float32(0))
                z += best[u] * params[outputs + u]
            tail = math.exp(-abs(z))  # never overflows
            loss += max(z, 0.0) - labels[row] * z + math.log(1.0 + tail)
            error = np.float32((1.0 if z > 0.0 else tail) / (1.0 + tail) - labels[row]) * scale
            gradient[outputs + UNITS] += error
            weight, unit = first, 0
            for width in WIDTHS:
                for u in range(unit, unit + FILTERS):
                    if best[u] > 0:  # only the window of the maximum counts
                        gradient[outputs + u] += error * best[u]
                        back = error * params[outputs + u]
                        gradient[biases + u] += back
                        for i in range(width):
                            word = EMBEDDING * np.int64(features[row, where[u] + i])
                            for j in range(EMBEDDING):
                                k = weight + i * EMBEDDING + j
                                gradient[k] += back * params[word + j]
                                gradient[word + j] += back * params[k]
                    weight += width * EMBEDDING
                unit += FILTERS
        return loss / rows.shape[0]
