"""LeNet-5 (LeCun et al. 1998) with max pooling, for 28x28 images of bytes."""

import torch
from torch import nn


class Scale(nn.Module):
    """Bytes (rows, height, width) -> floats (rows, 1, height, width) around 0, the mean pixel being 0.13."""

    def forward(self, images):
        return images.unsqueeze(1).to(torch.float32) / 255 - 0.13


def build(feature_shape, classes):
    """The network; Siren adds softmax cross-entropy."""
    if tuple(feature_shape) != (28, 28):
        raise ValueError(f"LeNet-5 here takes 28x28 images, not {feature_shape}")
    return nn.Sequential(
        Scale(),
        nn.Conv2d(1, 6, 5), nn.MaxPool2d(2), nn.Tanh(),
        nn.Conv2d(6, 16, 5), nn.MaxPool2d(2), nn.Tanh(),
        nn.Flatten(),
        nn.Linear(256, 120), nn.Tanh(),
        nn.Linear(120, 84), nn.Tanh(),
        nn.Linear(84, classes),
    )  # fmt: skip
