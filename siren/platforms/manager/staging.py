"""What lies in the bucket before functions run, and what is removed after them.

Before: the training set, and the model that an epoch starts from. Nothing of an epoch is needed once its
model has been read: a run resumes from its own checkpoints.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

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
from siren.worker.messages import DataRef, Status, Task
from siren.workloads.workload import Workload
from siren.worlds.real import REMOVED_AT_ONCE

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


class Traffic(NamedTuple):
    """What the manager asked of the bucket.

    Attributes:
        puts, gets: Requests, by price.
        received_bytes: Of answers.
    """

    puts: int = 0
    gets: int = 0
    received_bytes: int = 0

    def since(self, earlier: Traffic) -> Traffic:
        """What came after."""
        return Traffic(*(now - then for now, then in zip(self, earlier, strict=True)))


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
        self._probed = False

    @property
    def traffic(self) -> Traffic:
        """So far."""
        return Traffic(self.store.puts, self.store.gets, self.store.received_bytes)

    def close(self) -> None:
        """Drops the connections."""
        self._client.close()

    def probe(self, rule: str, model_bytes: int) -> None:
        """Refuses a store that cannot keep the promises of an update rule; looked at once.

        Raises:
            ChannelError: Names what is missing.
        """
        if self._probed:
            return
        key = f"runs/{self._run}/probe"
        try:
            probe_store(self.store, key).require(rule, model_bytes)
        except StoreError as error:
            raise ChannelError(str(error)) from error
        finally:
            self.remove([key])
        self._probed = True

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

        try:
            with self.store.counted("gets"):
                self._client.head_object(Bucket=self._bucket, Key=key)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] in (403, 404):  # 403 without ListBucket
                return False
            raise
        return True

    def put_start(self, task: Task, params: NDArray[np.float32]) -> None:
        """Writes the model from which a launched epoch starts."""
        self.store.put(layout.start(task.folder), start_object(Origin.of(task), params))

    def remove(self, keys: Sequence[str]) -> bool:
        """Removes objects of this run; whether all of them are gone now."""
        from botocore.exceptions import BotoCoreError, ClientError

        gone = True
        for first in range(0, len(keys), REMOVED_AT_ONCE):
            some = keys[first : first + REMOVED_AT_ONCE]
            try:
                with self.store.counted("puts"):
                    answer = self._client.delete_objects(
                        Bucket=self._bucket, Delete={"Objects": [{"Key": key} for key in some], "Quiet": True}
                    )
            except (BotoCoreError, ClientError) as error:
                log.info("%d objects of %s stay: %s", len(some), self._run, error)
                return False
            if errors := answer.get("Errors"):
                log.info("%d objects of %s stay: %s", len(errors), self._run, errors[0].get("Code"))
                gone = False
        return gone


def objects_of(task: Task, statuses: Iterable[Status]) -> list[str]:
    """Keys of what a launched epoch can have put into the bucket; see `siren.worker.layout`.

    Args:
        task: Any task of the launch.
        statuses: All that its functions told. Where one told nothing, a model that it saved before its end
            may be missing here.
    """
    folder, n = task.folder, task.functions
    keys = {layout.start(folder)}
    keys |= {status.model_key for status in statuses if status.model_key.startswith(folder)}
    if task.channel == "s3" and task.rule == "average":
        whole, more = divmod(task.epoch_pushes, n)
        keys |= {layout.local_model(folder, i, whole + (i < more)) for i in range(n)}
    if task.channel == "s3" and task.rule == "sync":
        for step in range(-(-task.epoch_pushes // n)):
            keys.add(layout.after_step(folder, step))
            keys |= {layout.gradient(folder, step, i) for i in range(1, task.members(step))}
    return sorted(keys)
