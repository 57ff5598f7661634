"""The most S3 requests of an epoch: what the laws count, and what real functions and their manager add."""

from __future__ import annotations

import math
from typing import NamedTuple

from siren.types import ChannelKind, UpdateRule
from siren.worlds import laws
from siren.worlds.laws import EpochLaws, Job

PROBE = 5
"""Requests of each kind that show what a store can promise (`siren.channels.probe`)."""

POLLS_OF_STEP, POLLS_PER_S = 12, 4
"""A function that waits at a barrier asks so often until its pauses are the longest, then so often a second
(`siren.worker.loop`)."""


class Requests(NamedTuple):
    """S3 requests by their two prices."""

    puts: int
    gets: int

    def plus(self, other: Requests, times: int = 1) -> Requests:
        """With so many times the others."""
        return Requests(self.puts + times * other.puts, self.gets + times * other.gets)


def lawful(job: Job, n: int, epoch: EpochLaws, retries: int) -> Requests:
    """What the laws count at most, with so many compare-and-swap retries in all."""
    pushes = int(epoch.pushes)
    puts, gets = laws.s3_requests(
        job,
        n,
        attempts=pushes + retries,
        unanswered=n,
        steps=1 if job.update_rule is UpdateRule.AVERAGE else math.ceil(pushes / n),
        loads=n * int(epoch.load_requests),
    )
    return Requests(int(puts), int(gets))


def beside(job: Job, n: int, epoch: EpochLaws, timeout_s: int) -> Requests:
    """What real functions may add in one lifetime.

    Each may write a model once more (how far it is, or the one that leaves Redis), read one twice more,
    and read its shard from three objects more than its size tells (two ends, and the wrap). Under `sync`
    over S3 it polls for the next model, the first one for every gradient that is missing.
    """
    polls = 0
    if job.channel is ChannelKind.S3 and job.update_rule is UpdateRule.SYNC and n > 1:
        polls = 2 * n * (math.ceil(int(epoch.pushes) / n) * POLLS_OF_STEP + timeout_s * POLLS_PER_S)
    return Requests(n, 5 * n + polls)


def of_manager(job: Job, n: int, objects: int) -> Requests:
    """What the manager itself makes: probes, looks for the data and uploads it, the model there and back."""
    averages = job.channel is ChannelKind.S3 and job.update_rule is UpdateRule.AVERAGE
    return Requests(PROBE + objects + 1, PROBE + objects + (n if averages else 1))
