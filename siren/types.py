"""Values that cross Siren's interfaces. All are frozen; units are in the names."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal


class UpdateRule(enum.StrEnum):
    """What a push does to the shared model."""

    OVERWRITE = "overwrite"
    ADDITIVE = "additive"
    STALENESS = "staleness"
    CAS = "cas"
    AVERAGE = "average"
    SYNC = "sync"


class BatchRule(enum.StrEnum):
    """How the samples of an epoch become mini-batches."""

    CONSTANT = "constant"
    SPLIT = "split"


class ChannelKind(enum.StrEnum):
    """Where parameters travel."""

    MEMORY = "memory"
    S3 = "s3"
    REDIS = "redis"


class StopReason(enum.StrEnum):
    """Why a run ended."""

    TARGET_REACHED = "target_reached"
    INTERNAL_ERROR = "internal_error"
    USAGE_ERROR = "usage_error"
    BUDGET_EXHAUSTED = "budget_exhausted"
    PLATFORM_FAILURE = "platform_failure"
    DIVERGED = "diverged"
    LIMIT_REACHED = "limit_reached"
    INTERRUPTED = "interrupted"

    @property
    def exit_code(self) -> int:
        """The documented exit code of a command that stopped for this reason."""
        return _EXIT_CODES[self]


_EXIT_CODES = {
    StopReason.TARGET_REACHED: 0,
    StopReason.INTERNAL_ERROR: 1,
    StopReason.USAGE_ERROR: 2,
    StopReason.BUDGET_EXHAUSTED: 3,
    StopReason.PLATFORM_FAILURE: 4,
    StopReason.DIVERGED: 5,
    StopReason.LIMIT_REACHED: 6,
    StopReason.INTERRUPTED: 130,
}


@dataclass(frozen=True, order=True)
class Action:
    """What one epoch runs on: `functions` functions of `memory_mb` MB each."""

    functions: int
    memory_mb: int

    def __str__(self) -> str:
        return f"{self.functions}x{self.memory_mb}"


@dataclass(frozen=True)
class Usage:
    """Everything an epoch did that a provider bills for; counts and quantities, no dollars.

    Attributes:
        memory_mb: Memory size of the training functions.
        billed_ms: Sum over invocations of the billed milliseconds, after rounding.
        requests: Function invocations.
        ephemeral_mb: /tmp size of the functions (512 is free).
        evaluator_billed_ms: The same for evaluation functions, where a function evaluates.
        evaluator_memory_mb: Their memory size.
        s3_puts: PUT, COPY, POST and LIST requests.
        s3_gets: GET and other requests.
        s3_gb_s: GB stored in S3 times seconds, the training set included.
        log_bytes: Bytes ingested by the log service.
        egress_bytes: Bytes that left the region for the scheduler's machine.
        cache_s: Seconds since the start of the run up to which the cache node was needed
            (0 without a cache); started hours are billed.
    """

    memory_mb: int
    billed_ms: int
    requests: int
    ephemeral_mb: int = 512
    evaluator_billed_ms: int = 0
    evaluator_memory_mb: int = 0
    s3_puts: int = 0
    s3_gets: int = 0
    s3_gb_s: float = 0.0
    log_bytes: int = 0
    egress_bytes: int = 0
    cache_s: float = 0.0


@dataclass(frozen=True)
class GradientStatistics:
    """What the pushes of an epoch tell about the loss surface, free of charge.

    Attributes:
        mean_square_norm: Mean over pushes of |g|^2 of their mini-batch gradient.
        square_norm_of_mean: |mean over pushes of g|^2. With the former and the batch size the
            gradient noise scale follows (McCandlish et al. 2018).
        secant_curvature: dg.dw/|dw|^2 between the first and second half of the epoch's pushes;
            NaN where the epoch has fewer than two pushes.
    """

    mean_square_norm: float
    square_norm_of_mean: float
    secant_curvature: float


@dataclass(frozen=True)
class EpochReport:
    """What a platform knows after an epoch; `EpochStatus` adds the money.

    Attributes:
        epoch: 1 for the first epoch.
        action: What ran.
        loss: Held-out loss at the barrier.
        accuracy: Held-out accuracy in [0, 1], NaN where the workload has none.
        duration_s: P, from launch to the end of the evaluation.
        start_s, load_s, fetch_s, compute_s, update_s, wait_s: Means over functions, adding up to
            the time to the barrier: start (fan-out, placement, cold start), loading the
            shard, fetching parameters, computing gradients, updating, waiting for the last.
        evaluate_s: Merging and evaluating the model after the barrier.
        cold_starts: Functions that started cold.
        memory_utilization: u, memory needed over memory given, in [0, 1].
        cpu_utilization: w, mean share of the handlers' time spent computing, in [0, 1].
        pushes, pushes_planned: Updates pushed, and updates that the quotas asked for.
        mean_staleness: Mean over pushes of the updates applied between fetch and push.
        updates_lost: Pushes that the final model does not contain (`overwrite`).
        update_retries: Compare-and-swap retries.
        unfinished: Functions that stopped at their deadline before their quota was done.
        throttles, retries: Throttled and repeated invocations.
        gradients: Statistics of the gradients.
        usage: What will be billed.
        init_s: Mean initialisation of the functions that started cold, as Lambda reports it; 0 without any.
    """

    epoch: int
    action: Action
    loss: float
    accuracy: float
    duration_s: float
    start_s: float
    load_s: float
    fetch_s: float
    compute_s: float
    update_s: float
    wait_s: float
    evaluate_s: float
    cold_starts: int
    memory_utilization: float
    cpu_utilization: float
    pushes: int
    pushes_planned: int
    mean_staleness: float
    updates_lost: int
    update_retries: int
    unfinished: int
    gradients: GradientStatistics
    usage: Usage
    throttles: int = 0
    retries: int = 0
    init_s: float = 0.0


@dataclass(frozen=True)
class EpochStatus:
    """An epoch after its bill is settled: Siren's state and what is free to know beside it.

    Attributes:
        report: What the platform measured.
        cost_usd: What the epoch was billed.
        bill: Dollars by item; adds up to `cost_usd`.
        budget_left_usd: b, after this epoch.
        elapsed_s: Time of the run up to and including this epoch.
    """

    report: EpochReport
    cost_usd: Decimal
    bill: Mapping[str, Decimal]
    budget_left_usd: Decimal
    elapsed_s: float

    @property
    def siren_state(self) -> tuple[float, ...]:
        """(t, l, P, P_F, P_C, P_U, u, w, b) of Siren (Wang et al., INFOCOM 2019, slides)."""
        r = self.report
        return (
            float(r.epoch),
            r.loss,
            r.duration_s,
            r.fetch_s,
            r.compute_s,
            r.update_s,
            r.memory_utilization,
            r.cpu_utilization,
            float(self.budget_left_usd),
        )


@dataclass(frozen=True)
class Forecast:
    """What a policy expects of an action for the next epoch.

    Attributes:
        action: The action.
        duration_s: Expected epoch time.
        cost_usd: Expected bill of the epoch.
        loss: Expected held-out loss after it; NaN where the policy does not predict it.
        fits: Whether its worst case fits the budget that is left.
        note: Why it was ruled out, or empty.
    """

    action: Action
    duration_s: float
    cost_usd: float
    loss: float
    fits: bool
    note: str = ""


@dataclass(frozen=True)
class Decision:
    """A policy's answer: the action, what was predicted for it and its neighbours, and why."""

    action: Action
    reason: str
    forecast: Forecast | None = None
    neighbours: tuple[Forecast, ...] = field(default=())


@dataclass(frozen=True)
class EpochRecord:
    """One epoch from decision to settled bill: a line of `events.jsonl`.

    Attributes:
        decision: What the policy chose and what it expected.
        timeout_s: The platform's own timeout that bounded the bill, whole seconds.
        reserved_usd: The worst case that was reserved before launch.
        status: What happened.
    """

    decision: Decision
    timeout_s: int
    reserved_usd: Decimal
    status: EpochStatus


@dataclass(frozen=True)
class RunHeader:
    """What a run is, for whoever shows it; nothing here changes while the run goes on.

    Attributes:
        workload: Name of the workload that runs.
        title: Its title.
        dataset: One line on the data and its licence.
        world, platform, policy: Names.
        batch_rule, update_rule, channel: The resolved rules.
        seed: Seed of the run.
        budget_usd: The budget.
        target_loss: Held-out loss at which the job is done.
        max_epochs: Limit on epochs.
        spends_money: False on the twin.
        folder: The run folder.
        notes: Lines the user must see, e.g. that a fallback workload runs.
    """

    workload: str
    title: str
    dataset: str
    world: str
    platform: str
    policy: str
    batch_rule: BatchRule
    update_rule: UpdateRule
    channel: ChannelKind
    seed: int
    budget_usd: Decimal
    target_loss: float
    max_epochs: int
    spends_money: bool
    folder: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """How a run compares with what hindsight would have done with the same job and budget.

    Attributes:
        functions, memory_mb: The best fixed action that was found.
        tried: Actions that were played to find it.
        first_seed, seeds: The seeds that chose it: so many from the first on.
        success_rate: Of its episodes on these seeds.
        fixed_reached: Whether it reached the target with the run's own seed, too.
        fixed_s, fixed_usd: What that took and cost; NaN and 0 if it never did.
        time_ratio, cost_ratio: The run's over these; NaN if one of both did not reach the target.
        bound_s: A time that no policy beats on the model that `curves` losses were fitted to: an estimate, no
            bound is known on real gradients. NaN without one.
        bound_ratio: The run's time over it; NaN likewise.
        curves: Fixed actions whose losses were followed.
    """

    functions: int
    memory_mb: int
    tried: int
    first_seed: int
    seeds: int
    success_rate: float
    fixed_reached: bool
    fixed_s: float
    fixed_usd: Decimal
    time_ratio: float
    cost_ratio: float
    bound_s: float
    bound_ratio: float
    curves: int


@dataclass(frozen=True)
class RunSummary:
    """How a run ended; `summary.json` and `--json` hold it flat, with the header's names.

    Attributes:
        header: What ran.
        stop_reason: Why it ended.
        stop_detail: The same in a sentence that says what to do next.
        cost_usd: Dollars settled.
        bill: Dollars by item; adds up to `cost_usd`.
        initial_loss: Held-out loss before the first epoch.
        final_loss, final_accuracy: Of the model after the last epoch.
        best_loss, best_epoch: Of the saved model; epoch 0 is the initial one.
        epochs: Epochs completed.
        duration_s: Time of the run on the platform's clock.
        wall_s: Real seconds that this process and its predecessors took.
        comparison: With what hindsight would have done, if that was asked for.
    """

    header: RunHeader
    stop_reason: StopReason
    stop_detail: str
    cost_usd: Decimal
    bill: Mapping[str, Decimal]
    initial_loss: float
    final_loss: float
    final_accuracy: float
    best_loss: float
    best_epoch: int
    epochs: int
    duration_s: float
    wall_s: float
    comparison: Comparison | None = None

    @property
    def target_reached(self) -> bool:
        """Whether the held-out loss reached the target."""
        return self.stop_reason is StopReason.TARGET_REACHED


class RunObserver:
    """Told what a run does, as it happens. Subclass and override what is needed."""

    def started(self, header: RunHeader, past: tuple[EpochRecord, ...], initial_loss: float) -> None:
        """The run begins, or goes on after the `past` epochs."""

    def epoch_started(self, epoch: int, decision: Decision) -> None:
        """An epoch was reserved and is launched."""

    def epoch_ended(self, record: EpochRecord) -> None:
        """An epoch ended and its bill is settled."""

    def note(self, text: str) -> None:
        """Something that the user should know now."""

    def finished(self, summary: RunSummary) -> None:
        """The run ended."""

    def close(self) -> None:
        """Gives back what is held, e.g. the terminal; may be called more than once."""
