"""What lies in the bucket before functions run: the training set, and the model that an epoch starts from."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from siren.channels.base import StoreError
from siren.channels.objects import Origin, start_object
from siren.channels.probe import probe_store
from siren.channels.s3 import ObjectStore
from siren.errors import ChannelError, WorkloadError
from siren.platforms.backend import Backend
from siren.platforms.manager.clients import s3_client
from siren.worker import layout, records
from siren.worker.messages import DataRef, Task
from siren.workloads.workload import Workload

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

log = logging.getLogger(__name__)


def describe_data(workload: Workload) -> DataRef:
    """How the training set is stored.

    Raises:
        WorkloadError: `workload.toml` states another size of a stored sample, and with it other costs.
    """
    dataset = workload.dataset
    found = records.describe(dataset.train_features, dataset.train_labels)
    stated = workload.spec.cost.sample_bytes
    if found.record_bytes != stated:
        raise WorkloadError(
            f"{workload.folder}/workload.toml: a stored sample has {found.record_bytes} bytes, not {stated}: "
            f"write sample_bytes = {found.record_bytes} under [cost]"
        )
    return found


class Staging:
    """The manager's side of the bucket; counts its requests as they are billed.

    Args:
        backend: Names the bucket.
        run: Identity of the run; beside the data only its prefix is touched.
        client: Of S3; made from the backend if None.
    """

    def __init__(self, backend: Backend, run: str, client: S3Client | None = None) -> None:
        self._client = client or s3_client(backend)
        self._bucket = backend.bucket
        self.store = ObjectStore(self._client, backend.bucket, (f"runs/{run}/", "data/"))
        self._run = run

    def close(self) -> None:
        """Drops the connections."""
        self._client.close()

    def probe(self, rule: str, model_bytes: int) -> None:
        """Refuses a store that cannot keep the promises of an update rule.

        Raises:
            ChannelError: Names what is missing.
        """
        try:
            probe_store(self.store, f"runs/{self._run}/").require(rule, model_bytes)
        except StoreError as error:
            raise ChannelError(str(error)) from error

    def put_data(self, data: DataRef, workload: Workload) -> None:
        """Uploads what is not there yet of the training set; its name is the hash of its content."""
        features, labels = workload.dataset.train_features, workload.dataset.train_labels
        count = -(-data.rows // data.rows_per_object)
        if all(self._holds(records.object_key(data, index)) for index in range(count)):
            return
        for key, body in records.objects(data, features, labels):
            log.info("uploading %s, %d bytes", key, len(body))
            self.store.put(key, body)

    def _holds(self, key: str) -> bool:
        from botocore.exceptions import ClientError

        self.store.gets += 1
        try:
            self._client.head_object(Bucket=self._bucket, Key=key)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] in (403, 404):  # 403 without ListBucket
                return False
            raise
        return True

    def put_start(self, task: Task, params: NDArray[np.float32]) -> None:
        """Writes the model from which a launched epoch starts."""
        self.store.put(layout.start(task.folder), start_object(origin_of(task), params))


def origin_of(task: Task) -> Origin:
    """Whose model a task's epoch has."""
    return Origin(task.run, task.epoch, task.launch, task.size, task.functions)
