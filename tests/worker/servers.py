"""Servers and a small cluster of workers for the tests of `siren.worker` and `siren.channels`."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from siren.channels.objects import Origin, start_object
from siren.channels.s3 import ObjectStore, s3_client
from siren.errors import MissingExtraError
from siren.hsp import quotas
from siren.platforms import storage
from siren.testing import tiny_model
from siren.testing.tiny import tiny_workload
from siren.twin.twin import job_of
from siren.worker import layout, loop, records
from siren.worker.environment import Environment
from siren.worker.handler import handle
from siren.worker.messages import ModelRef, Status, Task

BUCKET = "siren-tests"
_numbers = itertools.count()
_staged: set[tuple[str, str]] = set()


@contextlib.contextmanager
def s3_server(folder: Path) -> Iterator[str]:
    """The URL of an S3 server with an empty bucket, whose credentials are in the environment meanwhile."""
    with _started(lambda: storage.start_s3(folder, BUCKET)) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", server.credentials[0])
        patch.setenv("AWS_SECRET_ACCESS_KEY", server.credentials[1])
        patch.delenv("AWS_SESSION_TOKEN", raising=False)
        yield server.url


@contextlib.contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """The URL of a Redis-compatible server."""
    with _started(lambda: storage.start_redis(folder)) as server:
        yield server.url


@contextlib.contextmanager
def _started(start: Callable[[], Any]) -> Iterator[Any]:
    try:
        server = start()
    except MissingExtraError as error:
        pytest.skip(str(error))
    try:
        yield server
    finally:
        server.child.stop()


@functools.cache
def client_of(url: str) -> Any:
    """One S3 client for all tests: making one takes a tenth of a second."""
    return s3_client("us-east-1", url)


def cold_environment(task: Task) -> Environment:
    """An environment that has not run yet, with that client."""
    environment = Environment()
    environment._s3[task.region, task.s3_url] = client_of(task.s3_url)
    return environment


@dataclass
class Cluster:
    """A staged tiny job whose workers run in this process."""

    s3_url: str
    redis_url: str | None
    workload: Any
    params: np.ndarray
    tasks: list[Task]

    @property
    def store(self) -> ObjectStore:
        task = self.tasks[0]
        return ObjectStore(client_of(self.s3_url), BUCKET, (task.prefix, task.dataset.prefix))

    @property
    def split(self) -> quotas.Quotas:
        return quotas.divide(job_of(self.workload), len(self.tasks))

    @property
    def rows(self) -> np.ndarray:
        """Dataset rows of the epoch in the order in which the workers go through them."""
        stored = self.tasks[0].dataset.rows
        return np.concatenate(
            [(t.first_row + loop.shard_order(t.order_seed, t.samples)) % stored for t in self.tasks]
        )

    def run(self, worker: int, environment: Environment | None = None, **changes: Any) -> Status:
        """One invocation, through JSON."""
        task = replace(self.tasks[worker], **changes)
        event = json.loads(json.dumps(task.to_json()))
        status = handle(event, None, environment or cold_environment(task))
        status.check_answers(task)
        return Status.from_json(json.loads(json.dumps(status.to_json())))

    def run_all(self, **changes: Any) -> list[Status]:
        """All workers at once; raises what any of them raised."""
        return together([lambda i=i: self.run(i, **changes) for i in range(len(self.tasks))])


def together(calls: list[Any]) -> list[Any]:
    """The results of calls that run at the same time."""
    results: list[Any] = [None] * len(calls)
    errors: list[BaseException] = []

    def run(index: int) -> None:
        try:
            results[index] = calls[index]()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results


def make_cluster(
    s3_url: str,
    redis_url: str | None,
    rule: str,
    functions: int = 3,
    *,
    epoch: int = 1,
    run: str | None = None,
    deadline_s: float = 30.0,
    samples: int = 80,
    batch: int = 10,
    batch_rule: str = "constant",
    workload: Any = None,
) -> Cluster:
    """Stages the tiny job and the start of an epoch; Redis is the channel where there is one."""
    training = {
        "update_rule": rule,
        "channel": "redis" if redis_url else "s3",
        "samples_per_epoch": samples,
        "batch_size": batch,
        "batch_rule": batch_rule,
        "pushes_per_function": 3,
        "learning_rate": 0.5,
        "staleness_scale": 2.0,
    }
    workload = workload or tiny_workload(kernel=False, training=training)
    job, data = job_of(workload), workload.dataset
    split = quotas.divide(job, functions)
    ref = records.describe(data.train_features, data.train_labels)
    ref = replace(ref, rows_per_object=70)  # several objects
    run = run or f"run-{next(_numbers)}-{os.getpid()}"
    tasks = []
    for i in range(functions):
        low, high = split.first_push[i], split.first_push[i + 1]
        tasks.append(
            Task(
                run=run,
                epoch=epoch,
                functions=functions,
                epoch_pushes=split.pushes,
                worker=i,
                rule=rule,
                channel="redis" if redis_url else "s3",
                region="us-east-1",
                bucket=BUCKET,
                dataset=ref,
                model=ModelRef("numpy", (3,), 2),
                size=workload.size,
                first_row=int((200 + split.first_sample[low]) % ref.rows),  # wraps around
                batches=tuple(np.diff(split.first_sample[low : high + 1]).tolist()),
                order_seed=100 + i,
                rate=0.5,
                staleness_scale=2.0,
                deadline_s=deadline_s,
                s3_url=s3_url,
                redis_url=redis_url,
            )
        )
    cluster = Cluster(s3_url, redis_url, workload, workload.init(0), tasks)
    store = cluster.store
    if (s3_url, ref.prefix) not in _staged:
        for key, body in records.objects(ref, data.train_features, data.train_labels):
            store.put(key, body)
        _staged.add((s3_url, ref.prefix))
    origin = Origin(run, epoch, 0, workload.size, functions)
    store.put(layout.start(tasks[0].folder), start_object(origin, cluster.params))
    return cluster


def workload_folder(folder: Path) -> Path:
    """A folder with the tiny model, as in a code package."""
    folder.mkdir(exist_ok=True)
    shutil.copyfile(tiny_model.__file__, folder / "model.py")
    return folder
