"""What a parameter channel promises, and the values that cross it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Params = NDArray[np.float32]
Counts = NDArray[np.int32]


class StoreError(RuntimeError):
    """A store that cannot do what was asked, or lost what it held."""


class StoreBusyError(StoreError):
    """A store that was not ready while the caller had time; what it refused was not carried out."""


@dataclass(frozen=True)
class ChannelProperties:
    """What a channel can promise.

    Attributes:
        atomic_add: Whether it adds an update in place, whoever else writes.
        compare_and_swap: Whether it refuses a write that was made from an older version.
        max_bytes: Largest model.
    """

    atomic_add: bool
    compare_and_swap: bool
    max_bytes: int

    def require(self, rule: str, model_bytes: int) -> None:
        """Refuses an update rule or a model that the channel cannot carry.

        Raises:
            StoreError: Names what is missing and what to choose.
        """
        if rule in {"additive", "staleness"} and not self.atomic_add:
            raise StoreError(
                f"this store cannot add in place, which {rule!r} needs: choose the channel redis, or "
                "the rule cas, average or sync"
            )
        if rule == "cas" and not self.compare_and_swap:
            raise StoreError(
                "this store accepts a write whose If-Match names an older version, so updates under 'cas' "
                "would be lost: use a store with conditional writes, or the rule average or sync"
            )
        if model_bytes > self.max_bytes:
            raise StoreError(
                f"the model has {model_bytes:,} bytes and this channel holds {self.max_bytes:,}: "
                "choose another channel or a smaller model"
            )


class Snapshot(NamedTuple):
    """The shared model as it was read.

    Attributes:
        version: Updates applied so far; writes under `overwrite`.
        params: float32, (size,); read-only.
        contained: Updates that `params` contains; fewer than `version` under `overwrite`.
        applied: int32, (n,). Of worker i, pushes 0 to applied[i] - 1 were applied.
        token: What a conditional write must match.
    """

    version: int
    params: Params
    contained: int
    applied: Counts
    token: str


class Push(NamedTuple):
    """What became of a push.

    Attributes:
        applied: Whether it changed the model; False if it had been applied before, or met a conflict.
        conflict: Whether somebody wrote since the read, under compare-and-swap.
        version: Of the model afterwards.
        staleness: Updates applied between its read and itself; None where that cannot be known.
    """

    applied: bool
    conflict: bool
    version: int
    staleness: int | None


class SharedModel(Protocol):
    """The model of one launched epoch, in a store that all workers reach."""

    properties: ChannelProperties

    def get(self) -> Snapshot:
        """The model now.

        Raises:
            MessageError: What is stored is not this epoch's model.
            StoreError: There is none.
        """
        ...

    def write(self, worker: int, index: int, read: Snapshot, params: Params) -> Push:
        """Replaces the model, whoever wrote since the read.

        Args:
            worker, index: Which push this is.
            read: What `params` was made from.
            params: The new model.
        """
        ...


class Barrier(Protocol):
    """Steps of `sync`: every member's gradient is in before anybody goes on."""

    def poll(self, step: int) -> tuple[int, Params] | None:
        """(steps, the model after them) with steps >= `step`; None if it is not there yet."""
        ...

    def contribute(self, step: int, gradient: Params, samples: int) -> None:
        """Hands in this worker's mean gradient of a step, over so many samples; once is enough."""
        ...
