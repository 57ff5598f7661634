"""What an epoch of real functions may use where it is more than the laws count: requests, objects, bytes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from siren.money.billing import BYTES_PER_GB
from siren.types import ChannelKind, UpdateRule
from siren.worlds import laws
from siren.worlds.laws import EpochLaws, Job
from siren.worlds.requests import Requests, lawful

RERUNS = 2
"""A real platform may repeat a function so often beyond its lifetimes, inside the same reservation, when it
is killed or its answer lost."""

PROBE = 5
"""Requests of each kind that show what a store can promise (`siren.channels.probe`)."""

POLLS_OF_STEP, POLLS_PER_S = 12, 4
"""A function that waits at a barrier asks so often until its pauses are the longest, then so often a second
(`siren.worker.loop`)."""

REPEATED_SHARE, REPEATED = 0.25, 4
"""Clients repeat what S3 refuses (503 SlowDown, 500): this share of a function's requests, and so many more,
are set aside for that. One that needs still more stops; it is a store that does not work."""

MANAGER_ATTEMPTS = 5
"""Tries of every request of the manager (`siren.platforms.manager.clients.ATTEMPTS`)."""

READ_ATTEMPTS = 4
"""Tries of a read whose body breaks off (`siren.channels.s3.READ_ATTEMPTS`), each with all of the above."""

REMOVED_AT_ONCE = 1000
"""Keys of one `DeleteObjects` (Amazon S3 API reference)."""

OBJECT_OVERHEAD_BYTES = 8192
"""Of a stored model beside its numbers, at most (`siren.channels.objects.OVERHEAD_BYTES`)."""

KEPT_S = 31 * 24 * 3600
"""The bucket forgets what a run left there after 30 days (`siren.deploy --run-days`), rounded up to the next
midnight (Amazon S3 user guide, lifecycle configuration)."""

ANSWER_BYTES = 16 * 1024
"""Of an invocation's answer: a status or an error, and 4 KB of its log in base64 (Lambda API, Invoke)."""


def _with_repeated(requests: Requests) -> Requests:
    """With what a client may repeat."""
    return Requests(*(count + math.ceil(REPEATED_SHARE * count) + REPEATED for count in requests))


class Shares(NamedTuple):
    """The most requests of one invocation, by the function.

    Attributes:
        first: Of function 0, which merges under `sync` over S3 and asks for every other's gradient.
        others: Of each of the others.
    """

    first: Requests
    others: Requests

    def of(self, worker: int) -> Requests:
        """Of one function."""
        return self.others if worker else self.first


@dataclass(frozen=True)
class RealEpoch:
    """The bounds of one epoch of real functions.

    Attributes:
        job: How it trains.
        functions: n.
        laws: Its times and pushes, before noise.
        timeout_s: The platform's own limit per invocation.
        lifetimes: Functions that may follow one another on each share.
        retries: Compare-and-swap retries that all functions of one lifetime may make.
        data_objects: Objects that the training set is stored in.
    """

    job: Job
    functions: int
    laws: EpochLaws
    timeout_s: int
    lifetimes: int
    retries: int
    data_objects: int

    @property
    def invocations(self) -> int:
        """The most invocations."""
        return self.functions * (self.lifetimes + RERUNS)

    @property
    def pushes(self) -> int:
        """Pushes of the epoch."""
        return int(self.laws.pushes)

    @property
    def merges(self) -> bool:
        """Whether function 0 gathers what the others put into the bucket."""
        job = self.job
        return job.channel is ChannelKind.S3 and job.update_rule is UpdateRule.SYNC and self.functions > 1

    def of_functions(self) -> Shares:
        """What an invocation asks of S3 without compare-and-swap retries: by the laws, and what it may add.

        Each may write a model once more (how far it is, or the one that leaves Redis), read one twice more,
        and read its shard from three objects more than its size tells (two ends, and the wrap). Where
        function 0 merges, every one polls for the next model, and function 0 for every gradient that is
        missing. Requests that the client repeats come on top.
        """
        n = self.functions
        if self.merges:
            steps = math.ceil(self.pushes / n)
            polls = steps * POLLS_OF_STEP + self.timeout_s * POLLS_PER_S
            own = Requests(steps + 2, steps + 1 + int(self.laws.load_requests) + 5)
            first, others = own.plus(Requests(0, n * (steps + polls))), own.plus(Requests(0, polls))
            return Shares(_with_repeated(first), _with_repeated(others))
        most = lawful(self.job, n, self.laws, 0).plus(Requests(n, 5 * n))
        each = _with_repeated(Requests(math.ceil(most.puts / n), math.ceil(most.gets / n)))
        return Shares(each, each)

    def of_manager(self) -> Requests:
        """What the manager itself asks of S3.

        It probes the store, looks for the data and uploads it, brings the model there and back, and removes
        what lies there. Deletions are free, but `DeleteObjects` is a POST, which has the price of a PUT.
        """
        averages = self.job.channel is ChannelKind.S3 and self.job.update_rule is UpdateRule.AVERAGE
        removals = math.ceil((1 + self.left(self.invocations)) / REMOVED_AT_ONCE)
        models = self.functions if averages else 1
        puts = PROBE + self.data_objects + 1 + removals
        gets = self.data_objects + READ_ATTEMPTS * (PROBE + models)
        return Requests(MANAGER_ATTEMPTS * puts, MANAGER_ATTEMPTS * gets)

    def requests(self) -> Requests:
        """S3 requests of functions and manager."""
        first, others = self.of_functions()
        each = first.plus(others, self.functions - 1)
        retries = Requests(self.retries, self.retries)
        return self.of_manager().plus(retries, self.lifetimes).plus(each, self.lifetimes + RERUNS)

    def left(self, invocations: int) -> int:
        """Objects that so many invocations and the manager put into the bucket (`siren.worker.layout`).

        The model that the epoch starts from, which `cas` and `overwrite` replace in place; where function 0
        merges, every gradient and the model after every step; else a model from each invocation at most.
        """
        if self.job.channel is ChannelKind.S3 and self.job.update_rule in (
            UpdateRule.CAS,
            UpdateRule.OVERWRITE,
        ):
            return 1
        if self.job.channel is ChannelKind.S3 and self.job.update_rule is UpdateRule.SYNC:
            return 1 + self.pushes + math.ceil(self.pushes / self.functions)
        return 1 + invocations

    @property
    def object_bytes(self) -> int:
        """The most bytes of one of them (`siren.channels.objects.Origin.bytes_max`)."""
        return self.job.model_bytes + 4 * self.functions + OBJECT_OVERHEAD_BYTES

    def left_gb_s(self, objects: int, seconds: float) -> float:
        """GB of so many of these objects times the seconds for which they lie there."""
        return objects * self.object_bytes / BYTES_PER_GB * seconds

    def kept_gb_s(self) -> float:
        """The same if nobody removes them: the bucket forgets them after a while."""
        return self.left_gb_s(self.left(self.invocations), KEPT_S)

    def egress_bytes(self) -> int:
        """Bytes that leave the region: models, with what is stored around them, and answers."""
        models = math.ceil(int(laws.egress_bytes(self.job, self.functions)) / self.job.model_bytes)
        return models * self.object_bytes + self.invocations * ANSWER_BYTES
