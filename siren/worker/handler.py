"""The function's entry point: `siren.worker.handler.handler`."""

from __future__ import annotations

import os
import resource
import sys
import time
from typing import Any

import numpy as np

from siren.worker import loop
from siren.worker.environment import Environment
from siren.worker.messages import Status, Task
from siren.worker.output import limited
from siren.worker.progress import Deadline, Meter, Result

_environment = Environment()
_environment.initialise(os.environ)


def handler(event: object, context: Any) -> dict[str, Any]:
    """Does one task and tells how it went.

    Args:
        event: A `Task` as JSON.
        context: Lambda's context, or None.

    Raises:
        MessageError: The task, or an object that it names, is not what it must be.
        StoreError: The store lost what it held, is full, or stayed busy until the task's deadline.
    """
    with limited():
        return handle(event, context, _environment).to_json()


def handle(event: object, context: Any, environment: Environment) -> Status:
    """What `handler` does, in a given environment."""
    began, task = time.time(), Task.from_json(event)
    deadline = Deadline(task.deadline_s, context)
    cold, environment.cold = environment.cold, False
    meter = Meter()
    with meter.timed("load_s"):
        store = environment.store(task)
        if task.redis_url:
            environment.redis(task.redis_url)
    with np.errstate(all="ignore"):  # what is not finite is found where it counts
        if task.kind == "collect":
            shared = loop.redis_model(task, environment, store, deadline)
            result = loop.collect(task, store, shared, Result("done", 0, 0))
        else:
            work = loop.prepare(task, environment, store, deadline, meter)
            result = loop.run(work, environment)
    return Status(
        run=task.run,
        epoch=task.epoch,
        launch=task.launch,
        worker=task.worker,
        attempt=task.attempt,
        state=result.state,
        position=result.position,
        samples=task.bounds[result.position],
        pushes=meter.pushes,
        version=result.version,
        model_key=result.model_key,
        began=began,
        **meter.seconds,
        staleness_sum=meter.staleness_sum,
        retries=meter.retries,
        s3_puts=store.puts,
        s3_gets=store.gets,
        loaded_rows=meter.loaded_rows,
        square_norm_sum=meter.square_norm_sum,
        max_rss_mb=_max_rss_mb(),
        cold=cold,
    )


def _max_rss_mb() -> float:
    """Peak memory of this process: Linux counts kibibytes, macOS bytes (getrusage(2))."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)
