"""What an epoch is expected to cost, what it may cost at most, and which timeout bounds it."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from siren.errors import ActionError, ChannelError
from siren.money.amounts import exact
from siren.money.billing import BYTES_PER_GB
from siren.money.price_book import load_price_book
from siren.money.pricer import EpochBounds, Pricer, RunTotals
from siren.types import Action, ChannelKind, UpdateRule
from siren.units import MB_PER_GB, SECONDS_PER_HOUR, SECONDS_PER_MONTH
from siren.worlds import laws, requests
from siren.worlds.expectation import ExpectedEpoch, expect_epoch
from siren.worlds.laws import Job
from siren.worlds.real import RERUNS, RealEpoch
from siren.worlds.requests import Requests
from siren.worlds.world import World

WORKER_MARGIN_S = 0.25
"""A worker stops itself so long before the platform's timeout would kill it."""

EVALUATOR_SLACK = 2.0
"""An evaluation function's timeout covers so many times its expected duration."""

LIFETIMES = 24
"""Functions of real platforms that go on with one share of an epoch after another, at most: 6 hours."""

PREPARATION_S = 600.0
"""Time that a real platform may take for what is no function's: storing the data, publishing a version."""

EXPECTATIONS_KEPT = 8
"""Answers of `Costing.expect` that are kept."""

Floats = NDArray[np.float64]
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Outlook:
    """What the platform knows before it launches an epoch.

    Attributes:
        elapsed_s: The run's clock.
        epoch: Number of the next epoch; 1 is the first.
        totals: What the run has been billed for.
        left_usd: What is left of the budget.
        idle_s: What the run has beyond that clock, see `Platform.idle_s`.
    """

    elapsed_s: float
    epoch: int
    totals: RunTotals
    left_usd: Decimal
    idle_s: float = 0.0

    @property
    def standing_s(self) -> float:
        """Since when there is a bill for what is paid by the hour, in seconds."""
        return self.elapsed_s + self.idle_s


@dataclass(frozen=True)
class EpochPlan:
    """An action with the timeout that bounds it.

    Attributes:
        action: What to launch.
        timeout_s: The platform's own timeout, one of the world's rungs.
        deadline_s: When a worker stops itself, from its handler's start.
        reserve_usd: The most that the epoch can bill.
        lifetimes: Functions that may follow one another on each share of the epoch, where it is expected
            to outlast the timeout; all are in the reservation.
        spares: Further invocations in the reservation: what fails can be run again while others still run.
    """

    action: Action
    timeout_s: int
    deadline_s: float
    reserve_usd: Decimal
    lifetimes: int = 1
    spares: int = 0


def _once(ask: Callable[[Costing, Action], Answer]) -> Callable[[Costing, Action], Answer]:
    """A method whose answer depends on nothing but the action: kept after the first time."""
    name = ask.__name__

    @functools.wraps(ask)
    def kept(self: Costing, action: Action) -> Answer:
        key = name, action
        if key not in self._answers:
            self._answers[key] = ask(self, action)
        answer: Answer = self._answers[key]
        return answer

    return kept


class Costing:
    """The laws of time joined to the prices, for one job in one world.

    Args:
        world: Where it runs.
        job: What runs.
        pricer: Its prices.
        lifetimes_max: How many functions may follow one another on one share of an epoch: 1 where the
            platform launches none again (the twin), `LIFETIMES` where it does.
    """

    def __init__(self, world: World, job: Job, pricer: Pricer, *, lifetimes_max: int = 1) -> None:
        self.world = world
        self.job = job
        self.pricer = pricer
        self.lifetimes_max = lifetimes_max
        self.setup_puts = math.ceil(job.dataset_samples * job.sample_bytes / laws.OBJECT_BYTES) + 1
        self.uses_cache = job.channel is ChannelKind.REDIS
        self._answers: dict[tuple[str, Action], Any] = {}
        self._expected: dict[tuple[tuple[tuple[int, ...], bytes], ...], ExpectedEpoch] = {}
        self._worst_usd: dict[tuple[Action, int, int, int, bool, Decimal], Decimal] = {}

    def stored_gb(self, functions: laws.Quantity) -> laws.Quantity:
        """GB in S3 during an epoch: the data, the model, and under `average` every function's copy."""
        copies = functions if self.job.update_rule is UpdateRule.AVERAGE else 1
        data = self.job.dataset_samples * self.job.sample_bytes + self.job.heldout_bytes
        return (data + (1 + copies) * self.job.model_bytes) / BYTES_PER_GB

    def expect(self, functions: Floats, memory_mb: Floats, cold: Floats, loading: Floats) -> ExpectedEpoch:
        """The expected times and requests of an epoch; see `siren.worlds.expectation`.

        The last few answers are kept: a policy asks the same of the same actions before every epoch.
        """
        arguments = tuple(np.asarray(x, np.float64) for x in (functions, memory_mb, cold, loading))
        key = tuple((x.shape, x.tobytes()) for x in arguments)
        if key not in self._expected:
            if len(self._expected) >= EXPECTATIONS_KEPT:
                del self._expected[next(iter(self._expected))]
            n, m, cold, loading = arguments
            self._expected[key] = expect_epoch(self.world, self.job, n, m, cold=cold, loading=loading)
        return self._expected[key]

    def marginal_usd(self, functions: Floats, memory_mb: Floats, expected: ExpectedEpoch) -> Floats:
        """The expected bill of an epoch without what is billed for the run as a whole.

        In floats: for choosing, never for settling.
        """
        pricer, calls = self.pricer, functions + (1 if self.job.evaluator_is_function else 0)
        gb = memory_mb / MB_PER_GB
        usd = gb * (functions * expected.billed_s + expected.evaluate_billed_s) * self.usd_per_gb_s
        log_gb = calls * self.world.billing.log_per_invocation / BYTES_PER_GB
        usd = usd + calls * float(pricer.request_usd) + log_gb * float(pricer.log_usd_per_gb)
        storage_gb_s = expected.duration_s * self.stored_gb(functions)
        usd = usd + storage_gb_s * float(pricer.s3_storage_usd_per_gb_month) / SECONDS_PER_MONTH
        egress_gb = laws.egress_bytes(self.job, functions) / BYTES_PER_GB
        usd = usd + egress_gb * float(pricer.egress_usd_per_gb)
        puts, gets = expected.s3_puts, expected.s3_gets
        return np.asarray(usd + puts * float(pricer.s3_put_usd) + gets * float(pricer.s3_get_usd))

    def standing_usd(self, duration_s: Floats, outlook: Outlook) -> Floats:
        """What the run as a whole is billed if it goes on so long: cache hours, storing the data."""
        setup = self.setup_puts * float(self.pricer.s3_put_usd) if outlook.epoch == 1 else 0.0
        usd = np.full(np.shape(duration_s), setup)
        if self.uses_cache:
            hours = np.ceil((outlook.standing_s + duration_s) / SECONDS_PER_HOUR) - outlook.totals.cache_hours
            usd += np.maximum(hours, 0.0) * float(self.pricer.cache_usd_per_h)
        return usd

    @property
    def usd_per_gb_s(self) -> float:
        """The dearest price of a GB-second."""
        return float(self.pricer.duration_tiers[0].usd)

    def rungs(self, upper_s: float, expected_s: float) -> Iterator[int]:
        """Timeouts worth trying: the rung that covers `upper_s`, then shorter ones above `expected_s`."""
        rungs = self.world.limits.timeout_rungs
        covering = next((rung for rung in rungs if rung >= upper_s + WORKER_MARGIN_S), rungs[-1])
        yield covering
        for rung in reversed(rungs):
            if rung < covering and rung >= expected_s + WORKER_MARGIN_S:
                yield rung

    @property
    def longest_work_s(self) -> float:
        """The most that one share of an epoch can take, over all its lifetimes."""
        return self.lifetimes_max * (self.world.limits.timeout_rungs[-1] - WORKER_MARGIN_S)

    def lifetimes(self, seconds: float) -> int:
        """Functions of the longest timeout that so much work of one share takes, as far as allowed."""
        longest_s = self.world.limits.timeout_rungs[-1] - WORKER_MARGIN_S
        return max(1, math.ceil(min(seconds / longest_s, self.lifetimes_max)))

    def terms(self, upper_s: float, expected_s: float) -> Iterator[tuple[int, int]]:
        """(timeout, lifetimes) worth trying, the most comfortable first; see `rungs`."""
        longest = self.world.limits.timeout_rungs[-1]
        for timeout_s in self.rungs(upper_s, expected_s):
            most, least = (
                (self.lifetimes(upper_s), self.lifetimes(expected_s)) if timeout_s == longest else (1, 1)
            )
            for lifetimes in range(most, least - 1, -1):
                yield timeout_s, lifetimes

    @_once
    def epoch_laws(self, action: Action) -> laws.EpochLaws:
        """The times of an epoch of one action, before noise; see `siren.worlds.laws`."""
        return laws.epoch_laws(self.world, self.job, action.functions, action.memory_mb)

    def plan(self, action: Action, upper_s: float, expected_s: float, outlook: Outlook) -> EpochPlan | None:
        """The action with the most comfortable timeout whose worst case fits what is left.

        Args:
            action: What is to run.
            upper_s: A high quantile of a function's time.
            expected_s: Its expected time; a shorter timeout is of no use.
            outlook: The state of the run.

        Returns:
            None if no useful timeout fits.
        """
        if self.job.evaluator_is_function:  # it runs in one of the epoch's environments, still warm
            evaluate_s = self._evaluation_s(action)
            upper_s = max(upper_s, EVALUATOR_SLACK * evaluate_s)
            expected_s = max(expected_s, evaluate_s)
        # Under `sync` nobody ends before the function that must run again, and a lost answer may have cost
        # all that it can: with one spare neither is the end of the epoch.
        spare = (1, 0) if self.lifetimes_max > 1 else (0,)
        for (timeout_s, lifetimes), spares in itertools.product(self.terms(upper_s, expected_s), spare):
            reserve = self.worst_case(action, timeout_s, outlook, lifetimes, spares)
            if reserve <= outlook.left_usd:
                return EpochPlan(action, timeout_s, timeout_s - WORKER_MARGIN_S, reserve, lifetimes, spares)
        return None

    def worst_case(
        self, action: Action, timeout_s: int, outlook: Outlook, lifetimes: int = 1, spares: int = 0
    ) -> Decimal:
        """The most that an epoch can bill when the platform itself ends functions at `timeout_s`."""
        totals, pricer = outlook.totals, self.pricer
        key = action, timeout_s, lifetimes, spares, outlook.epoch == 1, pricer.dearest_usd_per_gb_s(totals)
        if key not in self._worst_usd:
            bounds = replace(self.bounds(action, timeout_s, outlook, lifetimes, spares), cache_until_s=0.0)
            self._worst_usd[key] = pricer.worst_case(bounds, previous=totals)
        cache_usd = pricer.cache_usd(self._cache_until_s(action, timeout_s, outlook, lifetimes), totals)
        with exact():
            return self._worst_usd[key] + cache_usd

    def bounds(
        self, action: Action, timeout_s: int, outlook: Outlook, lifetimes: int = 1, spares: int = 0
    ) -> EpochBounds:
        """The most of everything that an epoch can use."""
        n, billing, limits = action.functions, self.world.billing, self.world.limits
        evaluations = 1 if self.job.evaluator_is_function else 0
        bounds = EpochBounds(
            functions=n,
            memory_mb=action.memory_mb,
            timeout_s=timeout_s,
            max_init_s=limits.init_max,
            reruns=lifetimes - 1,
            spares=spares,
            ephemeral_mb=billing.ephemeral_storage,
            s3_gb_s=self.stored_gb(n) * self.longest_s(action, timeout_s, lifetimes),
            log_bytes=(n + evaluations) * lifetimes * billing.log_per_invocation,
            egress_bytes=int(laws.egress_bytes(self.job, n)),
            cache_until_s=self._cache_until_s(action, timeout_s, outlook, lifetimes),
            evaluations=evaluations,
            evaluator_memory_mb=action.memory_mb if evaluations else 0,
            evaluator_timeout_s=timeout_s if evaluations else 0.0,
        )
        if self.lifetimes_max == 1:
            puts, gets = self._most_requests(action, first=outlook.epoch == 1)
            return replace(bounds, s3_puts=puts, s3_gets=gets)
        real = self.real_epoch(action, timeout_s, lifetimes)
        puts, gets = real.requests()
        return replace(
            bounds,
            retries=RERUNS,
            s3_puts=puts,
            s3_gets=gets,
            s3_gb_s=bounds.s3_gb_s + real.kept_gb_s(),
            log_bytes=(n + evaluations) * (lifetimes + RERUNS) * billing.log_per_invocation,
            egress_bytes=real.egress_bytes(),
        )

    def check_action(self, action: Action) -> None:
        """Refuses an action that no function could carry out.

        Raises:
            ActionError: The action is off the grid, above a limit, short of memory, or its
                evaluation would outlast the longest timeout.
        """
        self.world.check_action(action)
        refusal = self.refusal(action)
        if refusal:
            raise ActionError(refusal)

    @_once
    def refusal(self, action: Action) -> str:
        """Why an action of the grid cannot be carried out; empty if it can."""
        needed = float(laws.memory_needed_mb(self.job, action.functions))
        if needed > action.memory_mb:
            return (
                f"{action.memory_mb} MB are too little: a worker with 1/{action.functions} of the data "
                f"needs {math.ceil(needed)} MB; choose more memory or more functions"
            )
        longest = self.world.limits.timeout_rungs[-1]
        if self.job.evaluator_is_function:
            seconds = self._evaluation_s(action)
            if seconds + WORKER_MARGIN_S > longest:
                return (
                    f"the evaluation by a function of {action.memory_mb} MB would take {seconds:,.0f} s, "
                    f"and none lives longer than {longest} s; choose more memory, or evaluator `scheduler`"
                )
        return ""

    @_once
    def futility(self, action: Action) -> str:
        """Why an epoch of an action would be paid and not finished; empty if it would."""
        n, m = np.array([float(action.functions)]), np.array([float(action.memory_mb)])
        needed_s, longest = float(self.expect(n, m, n, n).handler_s[0]), self.world.limits.timeout_rungs[-1]
        if needed_s <= self.longest_work_s:
            return ""
        successors = (
            f", and at most {self.lifetimes_max} follow one another" if self.lifetimes_max > 1 else ""
        )
        return (
            f"an epoch on {action.functions} functions of {action.memory_mb} MB needs about "
            f"{needed_s:,.0f} s of each, and none lives longer than {longest} s{successors}; "
            "choose more functions or more memory"
        )

    def _evaluation_s(self, action: Action) -> float:
        """Time of the evaluation function, merging included where it merges."""
        epoch = self.epoch_laws(action)
        merge_s = float(epoch.merge_s) if self.job.update_rule is UpdateRule.AVERAGE else 0.0
        return float(epoch.evaluate_billed_s) + merge_s

    @_once
    def retry_limit(self, action: Action) -> int:
        """Compare-and-swap retries that one function may make in an epoch: every one is billed.

        With n writers about n/2 attempts precede a success; four times that, and eight, are
        allowed for every push.
        """
        if self.job.update_rule is not UpdateRule.CAS:
            return 0
        each = math.ceil(int(self.job.pushes(action.functions)) / action.functions)
        return each * (2 * action.functions + 8)

    def _cache_until_s(self, action: Action, timeout_s: int, outlook: Outlook, lifetimes: int) -> float:
        """The run's clock when an epoch may need its cache no longer; 0 without a cache."""
        return outlook.standing_s + self.longest_s(action, timeout_s, lifetimes) if self.uses_cache else 0.0

    def idle_usd(self, outlook: Outlook) -> Decimal:
        """What the cache has cost by now and is not billed yet: it also ran while nothing was trained."""
        return self.pricer.cache_usd(outlook.standing_s if self.uses_cache else 0.0, outlook.totals)

    def longest_s(self, action: Action, timeout_s: int, lifetimes: int = 1) -> float:
        """Seconds from launch to the end of the evaluation, if everything takes as long as it may."""
        n, start, epoch = action.functions, self.world.start, self.epoch_laws(action)
        launch_s = n / start.fan_out + n / start.scale_out_rate + start.warm + start.placement
        landed_s = launch_s + self.world.limits.init_max + timeout_s + n * epoch.service_s
        if self.lifetimes_max > 1:
            landed_s = (lifetimes + RERUNS) * landed_s + PREPARATION_S
        return float(landed_s + epoch.merge_s + epoch.evaluate_s)

    def real_epoch(self, action: Action, timeout_s: int, lifetimes: int) -> RealEpoch:
        """What an epoch of real functions may use where it is more than the laws count."""
        retries = action.functions * self.retry_limit(action)
        epoch, objects = self.epoch_laws(action), self.setup_puts - 1
        return RealEpoch(self.job, action.functions, epoch, timeout_s, lifetimes, retries, objects)

    def _most_requests(self, action: Action, *, first: bool) -> Requests:
        """S3 requests that an epoch on the twin cannot exceed."""
        n = action.functions
        most = requests.lawful(self.job, n, self.epoch_laws(action), n * self.retry_limit(action))
        return most.plus(Requests(self.setup_puts if first else 0, 0))


def make_costing(world: World, job: Job, *, lifetimes_max: int = 1) -> Costing:
    """The laws and prices of a job in a world; `lifetimes_max` as in `Costing`.

    Raises:
        ChannelError: The update rule and the channel do not go together.
        PriceError: The world names a region, architecture or cache node without a known price.
    """
    store = world.channels.get(job.channel)
    if store is None:
        raise ChannelError(
            f"world {world.name} has no channel {job.channel}: choose one of {', '.join(world.channels)}"
        )
    if job.update_rule not in laws.RULES_OF_CHANNEL[job.channel]:
        rules = ", ".join(sorted(laws.RULES_OF_CHANNEL[job.channel]))
        adds = UpdateRule.ADDITIVE in laws.RULES_OF_CHANNEL[job.channel]
        other = ChannelKind.S3 if adds else ChannelKind.REDIS
        why = "adds in place, so `additive` does the same in one request" if adds else "has no atomic add"
        raise ChannelError(
            f"update rule {job.update_rule} cannot run over channel {job.channel}, which {why}: "
            f"choose --channel {other}, or --update-rule {rules}"
        )
    if job.model_bytes > store.max_bytes:
        raise ChannelError(
            f"the model has {job.model_bytes:,} bytes, channel {job.channel} carries at most "
            f"{store.max_bytes:,}: choose another channel"
        )
    billing = world.billing
    pricer = Pricer(
        load_price_book(),
        region=billing.region,
        architecture=billing.architecture,
        granularity_ms=billing.granularity,
        init_billed=billing.init_billed,
        cache_node=store.node or None,
    )
    return Costing(world, job, pricer, lifetimes_max=lifetimes_max)
