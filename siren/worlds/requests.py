"""The S3 requests of an epoch that the laws count at most; what real functions add: `siren.worlds.real`."""

from __future__ import annotations

import math
from typing import NamedTuple

from siren.types import UpdateRule
from siren.worlds import laws
from siren.worlds.laws import EpochLaws, Job


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
