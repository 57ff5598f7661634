"""The model that a launched epoch led to, for the manager: from its workers' statuses and the bucket."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from siren.channels.base import Params, StoreError
from siren.channels.objects import Origin, StoredModel
from siren.channels.s3 import ObjectStore, in_parallel, read_model
from siren.hsp import rules
from siren.worker import layout
from siren.worker.messages import Status, Task


@dataclass(frozen=True)
class Outcome:
    """What came out of an epoch.

    Attributes:
        params: The model, float32, (size,).
        pushes: Updates that were applied, by all workers.
        lost: Those that `params` does not contain (`overwrite`).
    """

    params: Params
    pushes: int
    lost: int


def epoch_outcome(store: ObjectStore, task: Task, statuses: Collection[Status]) -> Outcome | None:
    """The model after an epoch, or None if it is still in Redis and a `collect` task must fetch it.

    Args:
        store: The bucket; its requests are counted there.
        task: Any task of the launch.
        statuses: The last status of every worker that returned one, and that of `collect`.

    Raises:
        StoreError: An object is missing, or the cache lost updates.
        MessageError: An object is not what it must be.
        NotFiniteError: Training diverged.
    """
    origin = Origin.of(task)
    pushes = sum(status.position for status in statuses)
    if task.rule == "average" and task.channel == "s3":
        return _mean(store, origin, task, statuses)
    if task.channel == "redis":
        seen = max((status.version for status in statuses), default=0)
        left = [s for s in statuses if s.model_key.startswith(f"{task.folder}final-")]
        last = max(left, key=lambda status: status.version, default=None)
        if last is None or last.version < seen:
            return None
        key = last.model_key
    elif task.rule == "sync":
        steps = max((status.version for status in statuses), default=0)
        key = layout.after_step(task.folder, steps - 1) if steps else layout.start(task.folder)
    else:
        key = layout.start(task.folder)
    return _counted(task, pushes, _require(store, origin, key))


def _counted(task: Task, pushes: int, model: StoredModel) -> Outcome:
    """The outcome, whose model must have seen every push that a worker made."""
    if task.rule == "sync":
        pushes = sum(task.members(step) for step in range(model.version))
    elif task.rule == "average":
        pushes = task.epoch_pushes if model.version == task.functions else pushes
    elif task.rule == "overwrite":
        return Outcome(model.params, max(pushes, model.contained), max(0, pushes - model.contained))
    elif model.version < pushes:
        raise StoreError(
            f"workers made {pushes} updates and the model has {model.version}: the store lost some; "
            "run the epoch again"
        )
    else:
        pushes = model.version
    return Outcome(model.params, pushes, 0)


def _mean(store: ObjectStore, origin: Origin, task: Task, statuses: Collection[Status]) -> Outcome:
    """The mean of the models of the functions that ended, weighted by samples, in the functions' order."""
    ended = {s.worker: s for s in sorted(statuses, key=lambda s: s.worker) if s.state == "done"}
    if not ended:
        return Outcome(_require(store, origin, layout.start(task.folder)).params, 0, 0)
    models = in_parallel(lambda s: _require(store, origin, s.model_key), list(ended.values()))
    mean = rules.Mean(task.size)
    for model in models:
        mean.add(model.params, float(model.samples))
    return Outcome(mean.value(), sum(model.version for model in models), 0)


def _require(store: ObjectStore, origin: Origin, key: str) -> StoredModel:
    found = read_model(store, origin, key)
    if found is None:
        raise StoreError(f"{key} is missing from the bucket: run the epoch again")
    return found
