"""Execution environments that stay warm between epochs, and the shards that they hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from siren.worlds.world import Start

Version = tuple[int, int]
"""(memory_mb, timeout_s): what a published function version is made for."""

Shard = tuple[int, int]
"""(first row, rows) of the stored training set."""


@dataclass
class _Pool:
    """Warm environments of one version: the shard each holds, and when it was last used."""

    shards: list[Shard] = field(default_factory=list)
    used_s: list[float] = field(default_factory=list)


class Placement(NamedTuple):
    """Where the functions of an epoch run.

    Attributes:
        cold: (n,) Whether the function starts in a new environment.
        load: (n,) Whether its environment must load its shard.
        wait_s: (n,) How long a new environment waits for the scale-out allowance.
    """

    cold: NDArray[np.bool_]
    load: NDArray[np.bool_]
    wait_s: NDArray[np.float64]


class Environments:
    """The warm environments of a run's function versions.

    A function goes to an environment that holds its shard, else to any warm one, else to a new
    one. New environments draw on a token bucket: `scale_out_burst` at once, refilled at
    `scale_out_rate` (AWS Lambda developer guide, scaling).

    Args:
        start: The world's law of starting.
    """

    def __init__(self, start: Start) -> None:
        self._start = start
        self._pools: dict[Version, _Pool] = {}
        self._tokens = float(start.scale_out_burst)
        self._tokens_at_s = 0.0

    def warm(self, version: Version, now_s: float) -> list[Shard]:
        """The shards that warm environments of a version hold."""
        pool = self._pools.get(version)
        if pool is None:
            return []
        return [s for s, used in zip(pool.shards, pool.used_s, strict=True) if self._alive(used, now_s)]

    def place(self, version: Version, shards: list[Shard], now_s: float) -> Placement:
        """Assigns functions to environments and starts new ones.

        Args:
            version: The function version.
            shards: The shard of each function.
            now_s: The run's clock.
        """
        pool = self._pools.setdefault(version, _Pool())
        if pool.used_s and not self._alive(min(pool.used_s), now_s):
            alive = [k for k, used in enumerate(pool.used_s) if self._alive(used, now_s)]
            pool.shards, pool.used_s = [pool.shards[k] for k in alive], [pool.used_s[k] for k in alive]
        n = len(shards)
        cold, load = np.zeros(n, np.bool_), np.ones(n, np.bool_)
        holder = {shard: k for k, shard in enumerate(pool.shards)}
        if len(holder) == n and pool.shards == shards:  # as in the epoch before
            load[:] = False
            return Placement(cold, load, self._wait(cold, now_s))
        taken: set[int] = set()
        for i, shard in enumerate(shards):
            held = holder.get(shard, -1)
            if held >= 0 and held not in taken:
                taken.add(held)
                load[i] = False
        spare = [k for k in range(len(pool.shards)) if k not in taken]
        for i in np.flatnonzero(load).tolist():
            if spare:
                pool.shards[spare.pop()] = shards[i]
            else:
                cold[i] = True
                pool.shards.append(shards[i])
                pool.used_s.append(now_s)
        return Placement(cold, load, self._wait(cold, now_s))

    def release(self, version: Version, shards: list[Shard], ended_s: float, killed: set[Shard]) -> None:
        """Marks the epoch's environments as used until `ended_s`; killed ones are gone."""
        pool = self._pools[version]
        if not killed and pool.shards == shards:
            pool.used_s = [ended_s] * len(shards)
            return
        busy = set(shards)
        kept = [
            (shard, ended_s if shard in busy else used)
            for shard, used in zip(pool.shards, pool.used_s, strict=True)
            if shard not in killed
        ]
        pool.shards, pool.used_s = [shard for shard, _ in kept], [used for _, used in kept]

    def _wait(self, cold: NDArray[np.bool_], now_s: float) -> NDArray[np.float64]:
        refilled = self._tokens + (now_s - self._tokens_at_s) * self._start.scale_out_rate
        self._tokens = min(float(self._start.scale_out_burst), refilled)
        self._tokens_at_s = now_s
        if not cold.any():
            return np.full(len(cold), max(0.0, -self._tokens / self._start.scale_out_rate))
        order = np.cumsum(cold) * cold
        wait_s: NDArray[np.float64] = np.maximum(0.0, (order - self._tokens) / self._start.scale_out_rate)
        self._tokens -= float(cold.sum())
        return wait_s

    def _alive(self, used_s: float, now_s: float) -> bool:
        return now_s - used_s <= self._start.keep_alive

    def save(self) -> tuple[NDArray[np.float64], dict[str, float]]:
        """Everything as (rows of (memory_mb, timeout_s, first row, rows, used_s), scalars)."""
        rows = [
            (*version, *shard, used)
            for version, pool in sorted(self._pools.items())
            for shard, used in zip(pool.shards, pool.used_s, strict=True)
        ]
        table = np.array(rows, np.float64).reshape(len(rows), 5)
        return table, {"tokens": self._tokens, "tokens_at_s": self._tokens_at_s}

    def restore(self, table: NDArray[np.float64], scalars: Mapping[str, float]) -> None:
        """Takes over what `save` returned."""
        self._pools = {}
        for memory_mb, timeout_s, first, rows, used in table.tolist():
            pool = self._pools.setdefault((int(memory_mb), int(timeout_s)), _Pool())
            pool.shards.append((int(first), int(rows)))
            pool.used_s.append(used)
        self._tokens, self._tokens_at_s = scalars["tokens"], scalars["tokens_at_s"]
