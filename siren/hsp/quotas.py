"""How an epoch's samples are divided over functions: fixed quotas (docs/explanation/hsp.md)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from siren.errors import ActionError
from siren.types import BatchRule
from siren.worlds.laws import Job


@dataclass(frozen=True)
class Quotas:
    """Who pushes what in one epoch.

    Attributes:
        first_push: int64, (n + 1,). Function i makes pushes first_push[i] to first_push[i+1] - 1.
        first_sample: int64, (pushes + 1,). Push p uses samples first_sample[p] to
            first_sample[p+1] - 1 of the epoch.
    """

    first_push: NDArray[np.int64]
    first_sample: NDArray[np.int64]

    @property
    def shards(self) -> NDArray[np.int64]:
        """int64, (n + 1,): function i's samples are shards[i] to shards[i+1] - 1."""
        return self.first_sample[self.first_push]

    @property
    def pushes(self) -> int:
        """Pushes of the whole epoch."""
        return len(self.first_sample) - 1


def check(job: Job, functions: int) -> None:
    """Refuses more functions than an epoch has work for.

    Raises:
        ActionError: There are more functions than pushes (`constant`), or than samples to push
            (`split`).
    """
    if functions > job.functions_max:
        share = (
            f"K = {job.samples:,}/{job.batch_size:,} = {job.functions_max:,} mini-batches"
            if job.batch_rule is BatchRule.CONSTANT
            else f"S/k = {job.samples:,}/{job.pushes_per_function} = {job.functions_max:,}"
        )
        raise ActionError(
            f"{functions:,} functions are more than an epoch has work for ({share}): "
            f"choose at most {job.functions_max:,}"
        )


def divide(job: Job, functions: int) -> Quotas:
    """The quotas of `functions` functions: floor and ceiling of an even share.

    Raises:
        ActionError: See `check`.
    """
    check(job, functions)
    if job.batch_rule is BatchRule.CONSTANT:
        pushes = job.samples // job.batch_size
        first_push = np.arange(functions + 1, dtype=np.int64) * (pushes // functions)
        first_push += np.minimum(np.arange(functions + 1), pushes % functions)
        return Quotas(first_push, np.arange(pushes + 1, dtype=np.int64) * job.batch_size)
    pushes = functions * job.pushes_per_function
    first_push = np.arange(functions + 1, dtype=np.int64) * job.pushes_per_function
    return Quotas(first_push, np.arange(pushes + 1, dtype=np.int64) * job.samples // pushes)


def first_shard(job: Job, functions: int) -> int:
    """Samples of the first function's shard, without dividing the whole epoch."""
    if job.batch_rule is BatchRule.CONSTANT:
        return -(-(job.samples // job.batch_size) // functions) * job.batch_size
    return job.samples // functions
