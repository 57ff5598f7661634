"""Where the objects of a launched epoch lie: keys below `Task.folder`, `runs/<run>/epochs/<epoch>-<launch>/`.

`model.npz`: the model that the epoch starts from, written by the manager before launch; under
    `overwrite` and `cas` over S3 workers then replace it in place.
`worker-<i>-<position>.npz`: `average` over S3, function i's own model after so many of its pushes.
`step-<s>/worker-<i>.npz`: `sync` over S3, function i's gradient of step s.
`step-<s>/model.npz`: `sync` over S3, the model after step s, written by worker 0.
`final-<version>.npz`: any rule over Redis, the model with so many updates, written by whoever saw
    the last push, or by `collect`.

What a key holds follows from the key, so writing it twice does no harm; only `model.npz` changes.
"""

from __future__ import annotations


def start(folder: str) -> str:
    """The model that the epoch starts from; the live one of `overwrite` and `cas` over S3."""
    return f"{folder}model.npz"


def local_model(folder: str, worker: int, position: int) -> str:
    """A function's own model under `average`, after `position` of its pushes."""
    return f"{folder}worker-{worker}-{position}.npz"


def gradient(folder: str, step: int, worker: int) -> str:
    """A function's gradient of a step under `sync`."""
    return f"{folder}step-{step}/worker-{worker}.npz"


def after_step(folder: str, step: int) -> str:
    """The model after a step under `sync`."""
    return f"{folder}step-{step}/model.npz"


def final(folder: str, version: int) -> str:
    """The model that left a Redis channel after `version` updates."""
    return f"{folder}final-{version}.npz"
