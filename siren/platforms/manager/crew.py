"""One epoch's functions: launched together, run again where that is needed and paid for, until all ended."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from siren.errors import PlatformError, WorkloadError
from siren.platforms.manager.failures import Cause, Failure, failure_of
from siren.platforms.manager.invoker import Answer, Fate
from siren.platforms.manager.purse import Charge, Purse
from siren.platforms.manager.report_line import Report
from siren.worker.messages import MessageError, Status, Task
from siren.worlds.real import ANSWER_BYTES, RERUNS, Shares

log = logging.getLogger(__name__)

BACKOFF_S, BACKOFF_MAX_S = 0.1, 5.0
"""Wait before an invocation that was refused is tried again: doubled each time, with full jitter
(AWS Architecture Blog, "Exponential Backoff And Jitter", 2015)."""

UNREACHABLE_S = 60.0
"""When a function gets no connection for so long, and no other an answer, the epoch is given up."""

STALLED = 2
"""A function that returns so often in a row without a single push more is not run again."""


class Invokes(Protocol):
    """What a crew needs of an `Invoker`."""

    async def invoke(
        self, function: str, payload: bytes, *, longest_s: float, on_sent: Callable[[], None]
    ) -> Answer:
        """See `Invoker.invoke`."""
        ...


@dataclass
class Member:
    """One function of an epoch, over all its invocations.

    Attributes:
        task: What it was last told.
        statuses: What came back, in order.
        reports: Of the invocations that Lambda reported on.
        memory_mb: What it last ran on.
        ended: Why it was not run again though its quota is not done; empty while it is, or when it is done.
    """

    task: Task
    memory_mb: int
    statuses: list[Status] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)
    ended: str = ""

    @property
    def position(self) -> int:
        """Pushes of its quota that are known to be done."""
        return max((status.position for status in self.statuses), default=0)

    @property
    def done(self) -> bool:
        """Whether its task is done."""
        return any(status.state == "done" for status in self.statuses)

    @property
    def diverged(self) -> bool:
        """Whether it saw a gradient or a model that is not finite."""
        return any(status.state == "diverged" for status in self.statuses)

    @property
    def last(self) -> Status | None:
        """What it told last."""
        return self.statuses[-1] if self.statuses else None


@dataclass
class Outcome:
    """How an epoch's functions ended.

    Attributes:
        members: Every function.
        used: What they used, lost answers at their worst case.
        throttles: Invocations refused for their rate or number.
        retries: Invocations beyond the first of each function.
        lost: Invocations whose answer never came.
        notes: Lines that the user should see.
    """

    members: list[Member]
    used: Charge = field(default_factory=Charge)
    throttles: int = 0
    retries: int = 0
    lost: int = 0
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Terms:
    """What one invocation may take.

    Attributes:
        longest_ms: Its most billed milliseconds.
        granularity_ms: Billed milliseconds are rounded up to a multiple of this, as the world says.
        shares: Its most requests to S3 without compare-and-swap retries; it is told, and stops there.
        retries: Such retries that come on top, but not where the attempt before told nothing: all that was
            set aside for that one counts as used.
        answer_s: Silence after which its answer counts as lost.
        larger_mb: The next memory size of the world; None at the largest.
    """

    longest_ms: int
    granularity_ms: int
    shares: Shares
    retries: int
    answer_s: float
    larger_mb: int | None


class Crew:
    """Runs the functions of one epoch. Belongs to one event loop.

    Args:
        invoker: Carries the invocations.
        version: ARN of the published version with so much memory; may block.
        purse: What the reservation holds.
        terms: What an invocation may take.
        memory_mb: Memory of the epoch's action.

    Attributes:
        launched: Invocations that ran, or may have: what was refused, or never sent, is not among them.
    """

    def __init__(
        self, invoker: Invokes, version: Callable[[int], str], purse: Purse, terms: Terms, memory_mb: int
    ) -> None:
        self._invoker, self._version, self._purse, self._terms = invoker, version, purse, terms
        self._memory_mb = memory_mb
        self._outcome = Outcome([])
        self._random = random.Random()
        self._arns: dict[int, str] = {}
        self._publishing = asyncio.Lock()
        self._answered = 0.0
        self.launched = 0

    async def run(self, tasks: list[Task], within_s: float) -> Outcome:
        """Runs every task to its end.

        Args:
            tasks: One for each function.
            within_s: The whole epoch's time.

        Raises:
            WorkloadError: The model raised inside a function.
            PlatformError: A function failed in a way that no repetition cures, none could do anything,
                Lambda cannot be reached, or the time is over.
        """
        members = [Member(task, self._memory_mb) for task in tasks]
        self._outcome.members += members
        try:
            async with asyncio.timeout(within_s), asyncio.TaskGroup() as group:
                for member in members:
                    group.create_task(self._work(member))
        except TimeoutError as error:
            raise PlatformError(
                f"the epoch's functions had not ended after {within_s:,.0f} s: look at the function's log, "
                "and resume the run"
            ) from error
        except BaseExceptionGroup as group_error:
            raise _first(group_error) from group_error
        if not any(member.statuses for member in members):
            raise PlatformError(
                f"no function of the epoch returned: {members[0].ended}; look at the function's log, and "
                "resume the run"
            )
        self._outcome.used = self._purse.used
        return self._outcome

    async def _work(self, member: Member) -> None:
        """Invokes one function until its quota is done or nothing more fits."""
        failures, stalled, silent = 0, 0, False
        while not member.ended:
            worst = self._worst(member, 0 if silent else self._terms.retries)
            if not await self._purse.take(worst):
                member.ended = member.ended or "what is left of the reservation does not cover another try"
                return
            member.task = replace(member.task, s3_puts=worst.s3_puts, s3_gets=worst.s3_gets)
            before = member.position
            answer, status, failure = await self._invoke(member)
            await self._purse.put_back(worst, self._used(answer, status, member.memory_mb, worst))
            silent = status is None
            if status is not None:
                if member.done or member.diverged:
                    return
                stalled = stalled + 1 if member.position == before else 0
                if stalled == STALLED:
                    member.ended = "it makes no push within its time"
                    return
            elif failure is not None and failure.cause is Cause.MEMORY:
                self._enlarge(member, failure)
            else:
                failures += 1
                detail = failure.detail if failure else answer.detail
                log.info("function %d of epoch %d: %s", member.task.worker, member.task.epoch, detail)
                if failures > RERUNS:
                    member.ended = detail
                    return
            self._outcome.retries += 1
            member.task = replace(member.task, attempt=member.task.attempt + 1, position=member.position)

    def _worst(self, member: Member, retries: int) -> Charge:
        """What the next invocation of a function may use, with so many compare-and-swap retries."""
        puts, gets = self._terms.shares.of(member.task.worker)
        mb_ms = member.memory_mb * self._terms.longest_ms
        return Charge(mb_ms, 1, puts + retries, gets + retries, ANSWER_BYTES)

    async def _invoke(self, member: Member) -> tuple[Answer, Status | None, Failure | None]:
        """One invocation that Lambda took: its answer, and what it means."""
        arn = await self._arn(member.memory_mb)
        payload = json.dumps(member.task.to_json()).encode()
        wait_s = BACKOFF_S
        unreachable_since = None
        while True:
            answer = await self._send(arn, payload)
            unreachable_since = self._unreachable_since(answer, unreachable_since)
            if answer.fate is not Fate.REFUSED:
                break
            self._outcome.throttles += answer.throttled
            await asyncio.sleep(max(answer.wait_s, self._random.random() * wait_s))
            wait_s = min(2 * wait_s, BACKOFF_MAX_S)
        if answer.fate is Fate.LOST:
            self._outcome.lost += 1
            return answer, None, None
        if answer.report is not None:
            member.reports.append(answer.report)
        if answer.failed:
            return answer, None, self._failure(member, answer)
        status = _status(member.task, answer.payload)
        member.statuses.append(status)
        return answer, status, None

    async def _send(self, arn: str, payload: bytes) -> Answer:
        """One request; it counts as launched from when it leaves, until Lambda says that it did not run."""
        sent = False

        def leaves() -> None:
            nonlocal sent
            self.launched += not sent
            sent = True

        try:
            answer = await self._invoker.invoke(arn, payload, longest_s=self._terms.answer_s, on_sent=leaves)
        except PlatformError:
            self.launched -= sent
            raise
        if answer.fate is Fate.REFUSED:
            self.launched -= sent
        return answer

    def _unreachable_since(self, answer: Answer, since: float | None) -> float | None:
        """Since when a function has been refused nothing but connections; None if it reached Lambda.

        Args:
            answer: What it just got.
            since: What this returned before.

        Raises:
            PlatformError: For `UNREACHABLE_S`, in which no other function got an answer either.
        """
        now = time.monotonic()
        if not answer.unreachable:
            self._answered = now
            return None
        since = now if since is None else max(since, self._answered)
        if now - since >= UNREACHABLE_S:
            raise PlatformError(
                f"Lambda could not be reached for {now - since:.0f} s ({answer.detail}): check the network, "
                "HTTPS_PROXY and NO_PROXY, and that `ulimit -n` is above the number of functions, and resume "
                "the run"
            )
        return since

    async def _arn(self, memory_mb: int) -> str:
        """ARN of the version with so much memory; a larger one is published when it is first needed."""
        async with self._publishing:
            if memory_mb not in self._arns:
                self._arns[memory_mb] = await asyncio.to_thread(self._version, memory_mb)
            return self._arns[memory_mb]

    def _failure(self, member: Member, answer: Answer) -> Failure:
        """Why the function failed, if it may be run again.

        Raises:
            WorkloadError: Its model raised.
            PlatformError: It would fail again.
        """
        failure = failure_of(answer.payload, answer.report, member.memory_mb)
        if failure.cause is Cause.MODEL:
            raise WorkloadError(
                f"model.py raised inside a function: {failure.detail}; correct it there and resume"
            )
        if failure.cause is Cause.WORKER:
            raise PlatformError(f"a function failed: {failure.detail}; look at its log, and resume the run")
        return failure

    def _used(self, answer: Answer, status: Status | None, memory_mb: int, worst: Charge) -> Charge:
        """What an invocation used: what its report bills; its worst case where nobody tells."""
        mb_ms, step_ms = worst.mb_ms, self._terms.granularity_ms
        if answer.report is not None:
            mb_ms = -(-answer.report.billed_ms // step_ms) * step_ms * memory_mb
        if status is None:
            return replace(worst, mb_ms=mb_ms, answer_bytes=max(worst.answer_bytes, answer.received_bytes))
        return Charge(mb_ms, 1, status.s3_puts, status.s3_gets, answer.received_bytes)

    def _enlarge(self, member: Member, failure: Failure) -> None:
        """Gives a function that ran out of memory the next size, once."""
        larger_mb = self._terms.larger_mb
        if larger_mb is None or member.memory_mb >= larger_mb:
            raise PlatformError(
                f"a function ran out of {member.memory_mb} MB ({failure.detail}): choose more memory or more "
                "functions, and resume the run"
            )
        who = f"function {member.task.worker} of epoch {member.task.epoch}"
        self._outcome.notes.append(
            f"{who} ran out of {member.memory_mb} MB and is run again with {larger_mb} MB"
        )
        member.memory_mb = larger_mb


def _status(task: Task, payload: bytes) -> Status:
    try:
        status = Status.from_json(json.loads(payload))
        status.check_answers(task)
    except (MessageError, ValueError) as error:
        raise PlatformError(f"a function answered with what is no status: {error}") from error
    return status


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error in a group of groups."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
