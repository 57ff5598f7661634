"""Epochs on real functions: the same code for a Lambda endpoint on this machine and for AWS."""

from __future__ import annotations

import contextlib
import logging
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from siren.channels.base import StoreError
from siren.channels.objects import NotFiniteError
from siren.errors import ActionError, ChannelError, PlatformError, SirenError
from siren.hsp import quotas
from siren.money.pricer import RunTotals
from siren.platforms.backend import Backend
from siren.platforms.base import State, Tensors
from siren.platforms.manager.crew import Crew, Outcome, Terms
from siren.platforms.manager.epoch_report import Course, report, usage_of
from siren.platforms.manager.invoker import Invoker
from siren.platforms.manager.purse import Charge, Purse
from siren.platforms.manager.site import Site
from siren.platforms.manager.staging import Staging, Traffic, describe_data, objects_of
from siren.platforms.manager.tasks import Epoch, tasks_of
from siren.platforms.manager.versions import Versions
from siren.types import Action, ChannelKind, EpochReport, Usage
from siren.worker.messages import DataRef, MessageError, Task
from siren.worker.outcome import Outcome as Model
from siren.worker.outcome import epoch_outcome
from siren.workloads.workload import Workload
from siren.worlds.costing import Costing, EpochPlan, Outlook
from siren.worlds.real import ANSWER_BYTES, KEPT_S

log = logging.getLogger(__name__)

ANSWER_SLACK_S = 60.0
"""An answer is waited for so long beyond what the function may take."""
_RUN_LENGTH = 48

Params = NDArray[np.float32]


@dataclass(frozen=True)
class _Connected:
    """What is open while epochs run."""

    backend: Backend
    invoker: Invoker
    staging: Staging
    versions: Versions


class FunctionPlatform:
    """Runs a job's epochs as functions of a site.

    Nothing is started and nothing spent before `connect`, which the first epoch calls if nobody has.

    Args:
        workload: What to train.
        costing: Laws and prices of the job in its world.
        seed: Seed of the run; the course of an epoch also depends on who comes first.
        site: Where functions run; closed with the platform.
        run_name: What the run is called in the bucket; letters, digits and hyphens of it are kept.

    Attributes:
        tell: Told what the user should know now.
    """

    replays = False

    def __init__(
        self,
        workload: Workload,
        costing: Costing,
        seed: int,
        site: Site,
        run_name: str,
    ) -> None:
        self.name, self.spends_money = site.name, site.spends_money
        self._workload, self._costing, self._seed, self._site = workload, costing, seed, site
        # What an earlier process of the same run left behind must not be taken for this one's.
        slug = re.sub(r"[^a-z0-9]+", "-", run_name.lower()).strip("-")[:_RUN_LENGTH] or "run"
        self._run = f"{slug}-{secrets.token_hex(6)}"
        self.tell: Callable[[str], None] = log.info
        self._params: Params = workload.init(seed)
        self._clock_s, self._epoch, self._launches = 0.0, 0, 0
        self._began_unix: float | None = None
        self._data: DataRef | None = None
        self._open: _Connected | None = None
        self._warm: dict[tuple[int, int], tuple[int, float]] = {}
        self._told_what_stays = False

    def start(self) -> tuple[float, float]:
        """See `Platform.start`; also refuses what only real functions cannot do.

        Raises:
            ActionError: A function is to evaluate.
        """
        if self._costing.job.channel is ChannelKind.MEMORY:
            raise ChannelError(
                f"the channel memory exists on the twin alone: on platform {self.name} choose --channel s3 "
                "or redis"
            )
        if self._costing.job.evaluator_is_function:
            raise ActionError(
                f'evaluator = "function" is not there yet on platform {self.name}: write evaluator = '
                '"scheduler" in workload.toml, or use --platform twin'
            )
        self._site.check()
        self._workload.check()
        self._data = describe_data(self._workload)
        return self._workload.evaluate(self._params)

    def connect(self) -> None:
        """Makes the site ready; asks nothing of it that is billed.

        Raises:
            UsageError, PlatformError: It is not to be had.
        """
        if self._open is not None:
            return
        grounds = self._site.open()
        backend, job = grounds.backend, self._costing.job
        if job.channel is ChannelKind.REDIS and backend.redis_url is None:
            raise ChannelError(
                f"platform {self.name} has no cache, which --channel redis needs: deploy one with `python -m "
                "siren.deploy --channel redis`, or use --channel s3 with --update-rule average, sync or cas"
            )
        versions = Versions(backend, grounds.code_sha256)
        self._open = _Connected(backend, Invoker(backend), Staging(backend, self._run), versions)
        self._began_unix = self._began_unix or time.time()

    @property
    def facts(self) -> Mapping[str, Any]:
        """What a run folder should say of where functions run; asked once connected."""
        return self._site.facts()

    def check_action(self, action: Action) -> None:
        """See `Platform.check_action`."""
        self._costing.check_action(action)
        quotas.check(self._costing.job, action.functions)

    def expect_starts(self, action: Action, timeout_s: int) -> tuple[int, int]:
        """See `Platform.expect_starts`; which environment gets which shard is not the manager's to choose."""
        count, used_s = self._warm.get((action.memory_mb, timeout_s), (0, 0.0))
        if time.monotonic() - used_s > self._costing.world.start.keep_alive:
            count = 0
        cold = max(0, action.functions - count)
        whole = self._costing.job.samples == self._costing.job.dataset_samples
        return cold, cold if action.functions == 1 and whole else action.functions

    def run_epoch(self, plan: EpochPlan) -> EpochReport:
        """See `Platform.run_epoch`."""
        self.check_action(plan.action)
        began, began_unix = time.monotonic(), time.time()
        self.connect()
        assert self._open is not None
        assert self._data is not None
        staging = self._open.staging
        before = staging.traffic
        self._launches += 1
        epoch = Epoch(self._run, self._epoch + 1, self._launches, self._seed)
        split, tasks = tasks_of(
            self._workload, self._costing.job, self._data, self._open.backend, plan, epoch
        )
        crew = self._crew(plan)
        within_s = self._costing.longest_s(plan.action, plan.timeout_s, plan.lifetimes)
        try:
            outcome = self._launch(crew, tasks, within_s)
        except SirenError as error:
            if not crew.launched:
                error.unlaunched = self._unlaunched(plan, staging.traffic.since(before), began)
            raise
        barrier_s = time.monotonic() - began
        model = self._model(crew, tasks[0], outcome, within_s)
        loss, accuracy = self._evaluate(model.params)
        duration_s = time.monotonic() - began
        removed = self._remove(tasks[0], outcome)
        course = Course(
            epoch=epoch.number,
            began_unix=began_unix,
            barrier_s=barrier_s,
            duration_s=duration_s,
            plan=plan,
            split=split,
            outcome=replace(outcome, members=outcome.members[: len(tasks)]),
            before=self._params,
            model=model,
            loss=loss,
            accuracy=accuracy,
            traffic=staging.traffic.since(before),
            left_s=time.monotonic() - began if removed else KEPT_S,
            # This machine's clock may be behind that of the one where the run began.
            standing_s=max(self._standing_s, self._clock_s + duration_s),
        )
        return self._advance(course)

    def _launch(self, crew: Crew, tasks: list[Task], within_s: float) -> Outcome:
        """Sees that the store keeps its promises, puts there what functions read, and runs them.

        Raises:
            ChannelError: The store does not.
            WorkloadError, PlatformError: See `Crew.run`, `_storage`.
        """
        assert self._open is not None
        assert self._data is not None
        staging, job = self._open.staging, self._costing.job
        with _storage():
            if job.channel is ChannelKind.S3:
                staging.probe(job.update_rule.value, job.model_bytes)
            staging.put_data(self._data, self._workload)
            staging.put_start(tasks[0], self._params)
        return self._open.invoker.run(crew.run(tasks, within_s))

    def _remove(self, task: Task, outcome: Outcome) -> bool:
        """Removes what an epoch put into the bucket; whether nothing of it can be there any more.

        A function whose answer was lost may still run and put something there; one that failed may have put
        there what it did not tell of.
        """
        assert self._open is not None
        statuses = [status for member in outcome.members for status in member.statuses]
        gone = self._open.staging.remove(objects_of(task, statuses))
        if not gone and not self._told_what_stays:
            self._told_what_stays = True
            self.tell(
                f"S3 did not remove what epoch {task.epoch} left in the bucket, and it is charged for 31 "
                "days: see whether you have s3:DeleteObject, as `python -m siren.deploy --print-policy` says"
            )
        return gone and len(statuses) == outcome.used.requests

    def _unlaunched(self, plan: EpochPlan, traffic: Traffic, began: float) -> Usage:
        """What an epoch is billed for of which no function ran: what the manager asked and stored."""
        costing, action = self._costing, plan.action
        real = costing.real_epoch(action, plan.timeout_s, plan.lifetimes)
        stored_gb_s = float(costing.stored_gb(action.functions)) * (time.monotonic() - began)
        stored_gb_s += real.left_gb_s(1, KEPT_S)  # the model that functions would have read
        return usage_of(costing, action, Charge(), traffic, stored_gb_s, self._standing_s)

    def _advance(self, course: Course) -> EpochReport:
        """Moves the job on by an epoch that has ended; its report."""
        told = report(self._costing, course)
        for note in course.outcome.notes:
            self.tell(note)
        action = course.plan.action
        alive = sum(member.done for member in course.outcome.members)
        self._warm[action.memory_mb, course.plan.timeout_s] = alive, time.monotonic()
        self._params, self._epoch = course.model.params, course.epoch
        self._clock_s += told.duration_s
        return told

    def _crew(self, plan: EpochPlan) -> Crew:
        """The crew of an epoch, with what its reservation holds for functions."""
        assert self._open is not None
        costing, memory_mb = self._costing, plan.action.memory_mb
        limits, billing = costing.world.limits, costing.world.billing
        outlook = Outlook(self._clock_s, self._epoch + 1, RunTotals(), plan.reserve_usd)
        bounds = costing.bounds(plan.action, plan.timeout_s, outlook, plan.lifetimes, plan.spares)
        real = costing.real_epoch(plan.action, plan.timeout_s, plan.lifetimes)
        most, own = costing.pricer.worst_usage(bounds), real.of_manager()
        larger = [mb for mb in limits.memory_grid if mb > memory_mb]
        terms = Terms(
            longest_ms=costing.pricer.longest_ms(plan.timeout_s, limits.init_max),
            granularity_ms=billing.granularity,
            shares=real.of_functions(),
            retries=costing.retry_limit(plan.action),
            answer_s=plan.timeout_s + limits.init_max + ANSWER_SLACK_S,
            larger_mb=larger[0] if larger else None,
        )
        for_functions = most.s3_puts - own.puts, most.s3_gets - own.gets
        answer_bytes = real.invocations * ANSWER_BYTES
        purse = Purse(Charge(most.billed_ms * memory_mb, most.requests, *for_functions, answer_bytes))
        versions = self._open.versions
        return Crew(self._open.invoker, lambda mb: versions.arn(mb, plan.timeout_s), purse, terms, memory_mb)

    def _model(self, crew: Crew, task: Task, outcome: Outcome, within_s: float) -> Model:
        """The model that the epoch led to; all NaN where training diverged."""
        assert self._open is not None
        lost = Model(np.full(self._workload.size, np.nan, np.float32), 0, 0)
        if any(member.diverged for member in outcome.members):
            return lost
        store = self._open.staging.store
        try:
            with _storage():
                told = [member.last for member in outcome.members if member.last]
                found = epoch_outcome(store, task, told)
                if found is None:
                    collecting = replace(task, kind="collect", attempt=len(outcome.members))
                    outcome = self._open.invoker.run(crew.run([collecting], within_s))
                    told = [member.last for member in outcome.members if member.last]
                    found = epoch_outcome(store, task, told)
        except NotFiniteError:
            return lost
        if found is None:
            raise PlatformError(
                "the model did not leave the cache: look at the function's log, and resume the run"
            )
        return found

    def _evaluate(self, params: Params) -> tuple[float, float]:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            return self._workload.evaluate(params)

    @property
    def params(self) -> Params:
        """See `Platform.params`."""
        return self._params

    def set_params(self, params: Params) -> None:
        """See `Platform.set_params`."""
        self._params = params.copy()

    @property
    def clock_s(self) -> float:
        """See `Platform.clock_s`."""
        return self._clock_s

    @property
    def _standing_s(self) -> float:
        """Seconds since the run first began, whatever process it was in."""
        return max(self._clock_s, time.time() - self._began_unix) if self._began_unix else self._clock_s

    @property
    def idle_s(self) -> float:
        """See `Platform.idle_s`."""
        return self._standing_s - self._clock_s

    def save(self) -> tuple[Tensors, State]:
        """See `Platform.save`."""
        state = {"epoch": self._epoch, "clock_s": self._clock_s, "began_unix": self._began_unix}
        return {"params": self._params}, state

    def restore(self, tensors: Tensors, state: State) -> None:
        """See `Platform.restore`."""
        self._params = np.array(tensors["params"], np.float32)
        self._epoch, self._clock_s = int(state["epoch"]), float(state["clock_s"])
        if "began_unix" in state:
            self._began_unix = state["began_unix"] or self._began_unix
        else:  # a run folder from before this was kept: it is as long ago as its clock says, at least
            now = time.time()
            self._began_unix = min(self._began_unix or now, now - self._clock_s)

    def close(self) -> None:
        """See `Platform.close`."""
        if self._open is not None:
            self._open.invoker.close()
            self._open.staging.close()
            self._open = None
        self._site.close()


@contextlib.contextmanager
def _storage() -> Iterator[None]:
    """Errors of the bucket and of what lies in it, as the run's.

    Raises:
        PlatformError: Says what to look at.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except NotFiniteError:
        raise
    except (BotoCoreError, ClientError, StoreError, MessageError) as error:
        said = " ".join(str(error).split())
        raise PlatformError(f"the bucket does not work: {said}; look at it, and resume the run") from error
