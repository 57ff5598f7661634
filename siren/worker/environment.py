"""What an execution environment keeps between invocations: clients, the model, the last shard."""

from __future__ import annotations

import importlib.util
import json
import logging
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from siren.channels.redis import redis_client
from siren.channels.s3 import ObjectStore, s3_client
from siren.worker import records
from siren.worker.messages import MessageError, ModelRef, Task

WORKLOAD_DIR = "SIREN_WORKLOAD_DIR"
"""Environment variable with the folder of `model.py`; by default `workload` beside the package `siren`."""

S3_URL, REDIS_URL = "SIREN_S3_URL", "SIREN_REDIS_URL"
"""Environment variables with the endpoints that tasks will name; without the first one, AWS's own S3."""

_log = logging.getLogger(__name__)

_RUNTIME_API = "AWS_LAMBDA_RUNTIME_API"
"""Set where Lambda runs this (Lambda developer guide, runtime environment variables)."""


class Environment:
    """Everything that is built once and used by every invocation; one shard at a time is held."""

    def __init__(self) -> None:
        self.cold = True
        self._s3: dict[tuple[str, str | None], Any] = {}
        self._redis: dict[str, Any] = {}
        self._models: dict[str, Any] = {}
        self._shard: tuple[tuple[str, int, int], records.Features, records.Labels] | None = None

    def initialise(self, variables: Mapping[str, str]) -> None:
        """Makes the clients that tasks will need, while the platform initialises the environment.

        Initialisation has a whole vCPU whatever the memory, is no part of the timeout, and is billed and
        reported as what it is (AWS Lambda developer guide, execution environment); a function of 256 MB
        would take seven times as long. A client that cannot be foreseen is made by the first task.

        Args:
            variables: The process's environment; nothing happens where Lambda does not run it.
        """
        region = variables.get("AWS_REGION")
        if _RUNTIME_API not in variables or not region:
            return
        self._client_of_s3(region, variables.get(S3_URL))
        if variables.get(REDIS_URL):
            self.redis(variables[REDIS_URL])

    def store(self, task: Task) -> ObjectStore:
        """The task's bucket, of which it may touch its run and its training set, as often as it may."""
        client = self._client_of_s3(task.region, task.s3_url)
        prefixes = task.prefix, task.dataset.prefix
        return ObjectStore(client, task.bucket, prefixes, task.s3_puts, task.s3_gets)

    def _client_of_s3(self, region: str, url: str | None) -> Any:
        if (region, url) not in self._s3:
            self._s3[region, url] = s3_client(region, url)
        return self._s3[region, url]

    def redis(self, url: str) -> Any:
        """A client of the cache.

        The task's URL counts. Where the function's configuration named another one, the log says so, once:
        its client was made for nothing (it never connected), and this one is made in the task's time.
        """
        if url not in self._redis:
            if self._redis:
                known = ", ".join(self._redis)
                _log.warning("the task's cache %s is used, not %s of %s: deploy again", url, known, REDIS_URL)
            self._redis[url] = redis_client(url)
        return self._redis[url]

    def model(self, task: Task) -> Any:
        """The workload's model.

        Raises:
            MessageError: It has another number of parameters than the task says.
        """
        key = json.dumps(task.model.to_json(), sort_keys=True)
        if key not in self._models:
            self._models[key] = build_model(task.model)
        model = self._models[key]
        size = sum(math.prod(shape) for shape in model.layout.values())
        if size != task.size:
            raise MessageError(
                f"the package's model has {size:,} parameters, the task's {task.size:,}: "
                "deploy the code package of this workload"
            )
        return model

    def shard(self, task: Task, store: ObjectStore) -> tuple[records.Features, records.Labels, int]:
        """(features, labels, rows that had to be read) of the task's shard, in stored order."""
        rows = min(task.samples, task.dataset.rows)
        key = task.dataset.prefix, task.first_row, rows
        if self._shard and self._shard[0] == key:
            return *self._shard[1:], 0
        self._shard = None  # its memory is needed for the next one
        features, labels = records.load(task.dataset, task.first_row, rows, store.get_range)
        self._shard = key, features, labels
        return features, labels, rows


def workload_file() -> Path:
    """The `model.py` of the code package."""
    folder = os.environ.get(WORKLOAD_DIR) or Path(__file__).resolve().parents[2] / "workload"
    return Path(folder) / "model.py"


def build_model(ref: ModelRef) -> Any:
    """The model of the package's `model.py`, as `siren.workloads.protocol.Model`.

    Raises:
        MessageError: There is no such file, or the package lacks what its adapter needs.
    """
    file = workload_file()
    if not file.is_file():
        raise MessageError(f"{file} is missing: build the code package with the workload in it")
    module = _load(file)
    settings = dict(ref.settings)
    if ref.adapter == "numpy":
        return module.Model(ref.feature_shape, ref.classes, **settings)
    try:
        from siren.workloads.torch_model import TorchModel
    except ImportError as error:
        raise MessageError(
            f"this environment cannot run a torch model ({error}): deploy the container image "
            "of deploy/Dockerfile, or train on the twin"
        ) from error
    return TorchModel(module.build, ref.feature_shape, ref.classes, settings, file)


def _load(file: Path) -> Any:
    """The module, whose siblings can be imported while it is executed."""
    spec = importlib.util.spec_from_file_location("siren_workload_model", file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    entry = str(file.parent)
    sys.path.insert(0, entry)
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(entry)
    return module
