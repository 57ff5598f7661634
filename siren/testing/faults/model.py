"""The `model.py` of the fault-injection suite: a job that counts its updates, and dies where it is told.

The first parameters count: the gradient of a row moves that row's own parameter and no other, by
rate / batch each time. With a rate and a batch that are powers of two float32 adds without rounding,
so the model says exactly how often every row of the training set was counted, in whatever order
updates came. The last parameters are a logistic regression, whose gradients depend on the model.

Inside a function it also obeys orders, see `Orders`. Needs numpy alone.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
POINTS = 3


def load_dataset(rows: int = 64, heldout: int = 32, seed: int = 0) -> tuple[Floats, Floats, Floats, Floats]:
    """(training features, labels, held-out features, labels): which row it is as one-hot, then a point."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(rows + heldout, POINTS)).astype(np.float32)
    labels = (points @ np.array([1.5, -1.0, 0.5], np.float32) > 0).astype(np.float32)
    features = np.hstack([np.eye(rows + heldout, rows, dtype=np.float32), points])
    return features[:rows], labels[:rows], features[rows:], labels[rows:]


class Model:
    """Counters, and a logistic regression; keeps `siren.workloads.protocol.Model`.

    Args:
        feature_shape: (rows + `POINTS`,).
        classes: 2.
        orders: The folder of `Orders`; none are obeyed if empty, nor outside of functions.
    """

    def __init__(self, feature_shape: tuple[int, ...], classes: int, orders: str = "") -> None:
        assert classes == 2
        self.rows = feature_shape[0] - POINTS
        self.layout: Mapping[str, tuple[int, ...]] = {
            "counts": (self.rows,),
            "weight": (POINTS,),
            "bias": (1,),
        }
        self._at: Callable[[str], None] = lambda point: None
        if orders and "AWS_LAMBDA_FUNCTION_NAME" in os.environ:
            obeying = Orders(Path(orders))
            obeying.watch_requests()
            self._at = obeying.at

    def init(self, rng: np.random.Generator) -> Floats:
        """Counters at zero, small random weights."""
        return np.append(np.zeros(self.rows), rng.normal(0, 0.1, POINTS + 1)).astype(np.float32)

    def loss_and_grad(self, params: Floats, features: Floats, labels: Floats) -> tuple[float, Floats]:
        """The mean logistic loss of a mini-batch, and its gradient behind the mean of the one-hot rows."""
        self._at("before gradient")
        score = self._score(params, features)
        error = (1 / (1 + np.exp(-score)) - labels) / np.float32(len(labels))
        points = features[:, self.rows :]
        gradient = np.concatenate([features[:, : self.rows].mean(axis=0), points.T @ error, [error.sum()]])
        self._at("after gradient")
        return float(np.mean(np.logaddexp(0, score) - labels * score)), gradient.astype(np.float32)

    def evaluate(self, params: Floats, features: Floats, labels: Floats) -> tuple[float, float]:
        """The mean loss and the accuracy."""
        score = self._score(params, features)
        loss = np.mean(np.logaddexp(0, score) - labels * score)
        return float(loss), float(((score > 0) == (labels > 0.5)).mean())

    def _score(self, params: Floats, features: Floats) -> Floats:
        score: Floats = features[:, self.rows :] @ params[self.rows : -1] + params[-1]
        return score


class Orders:
    """What functions are told to do at a point of their loop.

    An order is a file `<name>.order`, JSON: `point`, where (`any` for all points), `nth`, at which
    passing of a process since the order was there, and `do`. The process that renames it to `.done`
    carries it out, so each is carried out once.

    Args:
        folder: Where orders lie.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._passed: Counter[str] = Counter()

    def at(self, point: str) -> None:
        """Carries out what is due at a point."""
        for path in sorted(self._folder.glob("*.order")):
            with suppress(FileNotFoundError):  # another process was first
                order = json.loads(path.read_text(encoding="utf-8"))
                if order["point"] not in ("any", point):
                    continue
                self._passed[path.name] += 1
                if self._passed[path.name] >= order["nth"]:
                    path.rename(path.with_suffix(".done"))
                    _obey(order["do"])

    def watch_requests(self) -> None:
        """Makes every request to S3 and Redis a point, before it is sent and after its answer."""
        import redis

        from siren.channels.s3 import ObjectStore

        names = {"get_object": "get", "put_object": "put"}
        ObjectStore._ask = self._around(ObjectStore._ask, lambda call: names[call[2].__name__])  # type: ignore[method-assign]
        redis.Redis.execute_command = self._around(redis.Redis.execute_command, lambda call: "redis")  # type: ignore[method-assign]

    def _around(self, request: Callable[..., Any], name: Callable[[tuple[Any, ...]], str]) -> Any:
        def watched(*args: Any, **kwargs: Any) -> Any:
            self.at(f"before {name(args)}")
            answer = request(*args, **kwargs)
            self.at(f"after {name(args)}")
            return answer

        return watched


def _obey(what: str) -> None:
    match what:
        case "exit":
            os._exit(1)
        case "hang":
            time.sleep(3600)
        case "pause":
            time.sleep(1)
        case "memory":
            _eat()
        case "raise":
            raise ZeroDivisionError("as ordered")


def _eat() -> NoReturn:
    held = []
    while True:
        held.append(b"\1" * (32 << 20))
