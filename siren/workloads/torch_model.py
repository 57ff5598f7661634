"""A `torch.nn.Module` as a workload's model: one flat vector in, one flat gradient out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from siren.errors import MissingExtraError, SirenError, WorkloadError
from siren.workloads.protocol import Features, Labels, Params
from siren.workloads.workload import user_error

try:
    import torch
    from torch import nn
    from torch.nn import functional
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise MissingExtraError("torch", "torch") from error


class TorchModel:
    """Softmax cross-entropy of a module's output (rows, classes), over a flat parameter vector.

    The module's parameters are views of one flat tensor, and their gradients of another: a call
    copies the vector in and the gradient out, once each. It is trained as it is in `train` mode on
    one thread; modules with state outside their parameters are refused, since functions share
    nothing but the parameters.

    Attributes:
        layout: Name -> shape, as in `module.named_parameters()`.
        module: The module.
    """

    def __init__(
        self,
        build: Callable[..., object],
        feature_shape: tuple[int, ...],
        classes: int,
        settings: Mapping[str, Any],
        file: Path,
    ) -> None:
        """Build the module once; sets torch to one thread for the whole process.

        Args:
            build: `build(feature_shape, classes, **settings) -> torch.nn.Module`.
            feature_shape: Shape of one row of features.
            classes: Number of classes.
            settings: Keyword arguments for `build`.
            file: The workload's `model.py`, for errors.

        Raises:
            WorkloadError: `build` raised, or its module cannot be trained this way.
        """
        torch.set_num_threads(1)
        self._file = file
        self._build = partial(build, feature_shape, classes, **settings)
        with torch.random.fork_rng(devices=[]):
            self.module = self._checked_module()
        named = dict(self.module.named_parameters())
        self.layout: Mapping[str, tuple[int, ...]] = {
            name: tuple(parameter.shape) for name, parameter in named.items()
        }
        size = sum(parameter.numel() for parameter in named.values())
        flat = torch.empty(size, dtype=torch.float32)
        gradient = torch.zeros(size, dtype=torch.float32)
        start = 0
        for parameter in named.values():
            end = start + parameter.numel()
            parameter.data = flat[start:end].view(parameter.shape)
            parameter.grad = gradient[start:end].view(parameter.shape)
            start = end
        self._flat = flat.numpy()
        self._gradient = gradient.numpy()

    def _checked_module(self) -> nn.Module:
        try:
            module = self._build()
        except Exception as error:
            if isinstance(error, SirenError):
                raise
            raise WorkloadError(user_error(self._file, "build", error)) from error
        if not isinstance(module, nn.Module):
            raise WorkloadError(
                f"{self._file}: build must return a torch.nn.Module, not {type(module).__name__}"
            )
        for name, part in module.named_modules():
            if isinstance(part, nn.modules.dropout._DropoutNd) and part.p > 0:
                raise WorkloadError(
                    f"{self._file}: {name or 'the module'} is dropout, whose randomness a run cannot repeat; "
                    "remove it"
                )
            if getattr(part, "track_running_stats", False):
                raise WorkloadError(
                    f"{self._file}: {name or 'the module'} keeps running statistics, which functions do "
                    "not share; use GroupNorm or LayerNorm, or track_running_stats=False"
                )
        odd = [
            name for name, p in module.named_parameters() if p.dtype != torch.float32 or not p.requires_grad
        ]
        if odd:
            raise WorkloadError(
                f"{self._file}: parameters must be float32 and trainable; not so: {', '.join(odd)}"
            )
        return module.train()

    def init(self, rng: np.random.Generator) -> Params:
        """The parameters of a module built anew with torch's generator seeded from `rng`."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**63)))
            fresh = self._checked_module()
        parts = [parameter.detach().numpy().ravel() for parameter in fresh.parameters()]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.float32)

    def loss_and_grad(self, params: Params, features: Features, labels: Labels) -> tuple[float, Params]:
        """The mean cross-entropy of a mini-batch and its gradient."""
        np.copyto(self._flat, params)
        self._gradient.fill(0)
        loss = functional.cross_entropy(self.module(_tensor(features)), _tensor(labels).long())
        loss.backward()
        return loss.item(), self._gradient.copy()

    def evaluate(self, params: Params, features: Features, labels: Labels) -> tuple[float, float]:
        """The mean cross-entropy and the accuracy over the rows."""
        np.copyto(self._flat, params)
        with torch.inference_mode():
            scores = self.module(_tensor(features))
            targets = _tensor(labels).long()
            loss = functional.cross_entropy(scores, targets)
            return loss.item(), (scores.argmax(dim=1) == targets).float().mean().item()


def _tensor(array: Features) -> torch.Tensor:
    """The array as a tensor, without a copy where torch may write to it."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())
