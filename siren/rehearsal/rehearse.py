"""The course of a rehearsal: a short ladder, proposals, selection on fresh seeds, fall-back.

1. One short curve tells how fast the machine is, and so whether the job is rehearsed whole or on a
   sub-sample, whose target is the loss that it reaches in as many epochs as the whole job is
   expected to need.
2. A ladder of function counts is trained without a budget. Losses depend on n; what the laws
   expect of every (n, m) then gives the time and the dollars of every fixed action.
3. The best fixed ones are played with the budget enforced; the best becomes the reference
   (n_ref, m_ref) of the learned policies.
4. The shipped agents are played; where episodes are cheap, a CMA search proposes a linear policy
   as well.
5. The best fixed action and the best of each kind of proposal meet on fresh seeds. A proposal wins
   only if it is faster, failures counted twice, and does not fail more often.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from siren.errors import ActionError, BudgetError
from siren.policies.agent import agent_names
from siren.policies.reference import Reference
from siren.rehearsal.sampled import expected_epochs
from siren.rehearsal.search import search_linear
from siren.rehearsal.selection import Standing, choose, standings_of
from siren.rehearsal.stage import Candidate, Curve, Stage, Trial
from siren.rehearsal.workers import StageSettings, Workers, usual_count
from siren.simulator.job import ActionGrid, FixedRuns, fixed_runs, memory_grid
from siren.types import Action

Floats = NDArray[np.float64]
Report = Callable[[str], None]
"""Told what a rehearsal does, in a few words."""

EPISODES = 8
"""Whole episodes that there should be time for, else a sub-sample is taken: a ladder and a few trials.
Forty (facts/scheduling.md A4) let agents be judged too; with fewer the fall-back is the answer."""

EPOCHS = 10
"""Epochs that an unknown job is taken to need."""

MOST_EPOCHS = 60
"""A fixed action that does not reach the target in so many epochs is not considered."""

LADDER_SHARE, FIXED_SHARE, SEARCH_SHARE = 0.40, 0.60, 0.80
"""Shares of the time after which the ladder, the fixed actions and the proposals are done."""

LONGEST_LADDER, TRIALS_LEAST = 0.85, 12
"""Share of the time that the ladder takes where the rest would not do for so many trials."""

LADDER_RATIO = 2.0
"""Ratio of neighbouring counts on the ladder; one refinement around the best halves it on a log scale."""

STEPS, PROMISING = 3, 4
"""Rounds on the ladder, and counts that get another curve after each."""

FIXED_TRIED = 5
"""Fixed actions that are played."""

SLACK = 1.05
"""A fixed action is tried if so many times what it needs fits the budget."""

FIRST_SEED, FRESH_SEED = 10_000_000, 20_000_000
"""Seeds of proposals and of the final selection; runs use small ones, evaluations others."""

PROBE_PUSHES = (60, 300)
"""Pushes of the epochs that tell the machine's speed."""

PROBE_EPOCHS = 8
"""Epochs that are probed, of either length four."""


@dataclass(frozen=True)
class Rehearsal:
    """What a rehearsal found.

    Attributes:
        choice: The policy to use.
        why: Why, in a sentence.
        reference: The best fixed action and what it is expected to take.
        standings: The candidates that met on the fresh seeds, the best fixed one first.
        ladder: (functions, epochs to the target), 0 where it was not reached.
        share: Samples of a rehearsed epoch over those of a whole one.
        target_loss: The target that was rehearsed; the job's own unless it was a sub-sample.
        episodes, curves: How many were played.
        wall_s: Real seconds.
    """

    choice: Candidate
    why: str
    reference: Reference
    standings: tuple[Standing, ...]
    ladder: tuple[tuple[int, int], ...]
    share: float
    target_loss: float
    episodes: int
    curves: int
    wall_s: float


def rehearse(
    stage: Stage,
    settings: StageSettings | None,
    budget_usd: Decimal,
    seconds: float,
    *,
    target_loss: float | None = None,
    agents: Sequence[str] | None = None,
    report: Report = lambda text: None,
    workers: int | None = None,
) -> Rehearsal:
    """Finds a policy for a job and a budget by playing it in the twin; no money is spent.

    Args:
        stage: The whole job.
        settings: How another process makes it; None to work in this process alone.
        budget_usd: The budget.
        seconds: Real seconds that it may take, about.
        target_loss: Where the job is done; by default the workload's target.
        agents: Names or folders of the learned policies that may propose; by default all that ship.
        report: Told what happens.
        workers: Processes; by default one for each core.

    Raises:
        ActionError: No action can run the job.
        BudgetError: No fixed action was found to reach the target; the message says what was tried.
    """
    began = time.monotonic()
    target = stage.workload.spec.training.target_loss if target_loss is None else target_loss
    return _Course(stage, settings, budget_usd, began, seconds, target, agents, report, workers).run()


class _Course:
    """One rehearsal."""

    def __init__(
        self,
        stage: Stage,
        settings: StageSettings | None,
        budget_usd: Decimal,
        began: float,
        seconds: float,
        target_loss: float,
        agents: Sequence[str] | None,
        report: Report,
        workers: int | None,
    ) -> None:
        self._whole, self._settings, self._budget_usd = stage, settings, budget_usd
        self._asked_s = seconds
        self._began, self._seconds, self._workers = began, seconds, workers
        self._agents = agent_names() if agents is None else list(agents)
        self._report = report
        self._target = target_loss
        self._curves: dict[int, list[Curve]] = {}
        self._trials: list[Trial] = []
        self._epoch_s = 0.0
        self._usual = _usual_action(stage)
        self._memory_mb = self._usual.memory_mb

    def run(self) -> Rehearsal:
        """All steps."""
        began = self._began
        stage, settings = self._sized()
        self._seconds -= time.monotonic() - self._began
        self._began = time.monotonic()
        deadline = self._began + self._seconds
        pool = Workers(stage, settings, deadline, self._workers)
        try:
            if not stage.whole:
                self._target = self._relaxed_target(stage, pool)
            self._climb(stage, pool)
            grid, runs = self._fixed_runs(stage)
            best, reference = self._best_fixed(pool, grid, runs)
            proposals = self._proposals(stage, pool, reference)
            standings = self._final(pool, best, proposals, reference)
        finally:
            pool.close()
        choice, why = choose(standings)
        return Rehearsal(
            choice=choice,
            why=why,
            reference=reference,
            standings=standings,
            ladder=tuple((int(n), int(e)) for n, e in zip(grid.functions, runs.epochs, strict=True)),
            share=stage.share,
            target_loss=self._target,
            episodes=len(self._trials),
            curves=sum(len(curves) for curves in self._curves.values()),
            wall_s=time.monotonic() - began,
        )

    def _until(self, share: float) -> float:
        return self._began + share * self._seconds

    def _sized(self) -> tuple[Stage, StageSettings | None]:
        """The stage that the time allows: the whole job, or a sub-sample."""
        whole, settings = self._whole, self._settings
        pushes = int(whole.costing.job.pushes(self._usual.functions))
        few, more = (min(count, pushes) for count in PROBE_PUSHES)
        self._epoch_s = self._guess_epoch_s()
        if PROBE_EPOCHS * more / pushes * self._epoch_s > self._seconds:  # nothing can end a probe but itself
            return self._sampled(few / pushes)
        short_s, long_s = self._probe_s(few / pushes), self._probe_s(more / pushes)
        push_s = max(long_s - short_s, 0.0) / max(more - few, 1)
        epoch_s = long_s + (pushes - more) * push_s
        self._epoch_s = epoch_s
        count = 1 if settings is None else self._workers or usual_count()
        fraction = count * self._seconds * 0.8 / (EPISODES * EPOCHS * epoch_s)
        if fraction >= 0.7:
            return whole, settings
        return self._sampled(fraction)

    def _sampled(self, fraction: float) -> tuple[Stage, StageSettings | None]:
        sampled = Stage(self._whole.workload, self._whole.costing, fraction)
        self._epoch_s *= sampled.share
        return sampled, self._settings and dataclasses.replace(self._settings, fraction=fraction)

    def _guess_epoch_s(self) -> float:
        """Real seconds of a whole epoch, from one gradient."""
        workload = self._whole.workload
        size = min(workload.spec.training.batch_size, self._whole.costing.job.dataset_samples)
        params, rows = workload.init(FIRST_SEED), np.arange(size, dtype=np.int64)
        with np.errstate(all="ignore"):
            workload.loss_and_grad(params, rows)
            began = time.monotonic()
            workload.loss_and_grad(params, rows)
        return (time.monotonic() - began) * workload.samples / size

    def _probe_s(self, fraction: float) -> float:
        """Real seconds of an epoch of that share of the samples, compiled."""
        probe = Stage(self._whole.workload, self._whole.costing, fraction)
        n = min(self._usual.functions, probe.most_functions)
        # The first one compiles.
        walls = [probe.curve(n, self._memory_mb, e, -math.inf, FIRST_SEED).wall_s for e in (1, 1, 2)]
        return max(walls[2] - walls[1], walls[1] / 2)

    def _relaxed_target(self, stage: Stage, pool: Workers) -> float:
        """The loss that a sub-sample reaches in as many epochs as the whole job is expected to need."""
        self._report("a first curve on a sub-sample")
        n = min(self._usual.functions, stage.most_functions)
        until = self._until(LADDER_SHARE / 2)
        calls = [
            (n, self._memory_mb, 3 * EPOCHS, self._target, FIRST_SEED + k, until) for k in range(pool.count)
        ]
        curves = list(pool.each("curve", calls, until))
        if not curves:
            raise BudgetError(
                f"{self._asked_s:g} s are too short to rehearse one epoch of this job on this machine: "
                "give a rehearsal more seconds"
            )
        shortest = min(len(curve.losses) for curve in curves)
        losses = np.mean([curve.losses[:shortest] for curve in curves], axis=0)
        epochs = expected_epochs(losses, stage.share, self._target, 3 * EPOCHS)
        target = float(losses[min(max(epochs, 3), shortest - 1)])
        if shortest > 1 and not target < losses[0]:
            raise BudgetError(
                f"the loss does not fall on a sub-sample with {n} functions: give a smaller learning rate"
            )
        return target

    def _climb(self, stage: Stage, pool: Workers) -> None:
        """Trains the ladder of counts, from the middle outwards, then more around the best ones."""
        counts = _ladder(stage, self._memory_mb)
        for step in range(STEPS):
            if not counts or not self._time_for_curves(pool):
                break
            self._report(f"ladder of function counts: {', '.join(map(str, counts))}")
            calls = self._curve_calls(counts, FIRST_SEED + step, pool)
            for curve in pool.each("curve", calls, self._until(LONGEST_LADDER)):
                self._curves.setdefault(curve.functions, []).append(curve)
            counts = self._promising(stage)
        if not self._curves:
            raise BudgetError(
                f"{self._asked_s:g} s are too short to rehearse this job on this machine: "
                "give a rehearsal more seconds"
            )

    def _curve_calls(self, counts: Sequence[int], seed: int, pool: Workers) -> Iterator[tuple[Any, ...]]:
        """Curves to train, each decided on when its turn comes."""
        for n in counts:
            if n < self._ceiling() and self._time_for_curves(pool):
                until = self._until(LONGEST_LADDER if self._slow(pool) else LADDER_SHARE)
                yield n, self._memory_mb, self._worth_following(), self._target, seed, until

    def _time_for_curves(self, pool: Workers) -> bool:
        """Whether the ladder may go on: for its share of the time, or longer if trials would be too few."""
        return time.monotonic() < self._until(LONGEST_LADDER if self._slow(pool) else LADDER_SHARE)

    def _slow(self, pool: Workers) -> bool:
        """Whether what the ladder leaves of the time would not do for enough trials."""
        walls = [curve.wall_s for curves in self._curves.values() for curve in curves]
        episode_s = float(np.median(walls)) if walls else EPOCHS * self._epoch_s
        return (1 - LADDER_SHARE) * self._seconds * pool.count < TRIALS_LEAST * episode_s

    def _ceiling(self) -> float:
        """Counts above this are hopeless: a smaller one exploded."""
        exploded = [n for n, curves in self._curves.items() if _exploded(curves[0])]
        return min(exploded, default=math.inf)

    def _worth_following(self) -> int:
        reached = [len(c[0].losses) - 1 for c in self._curves.values() if c[0].losses[-1] <= self._target]
        return min(MOST_EPOCHS, 3 * min(reached) + 2) if reached else MOST_EPOCHS

    def _promising(self, stage: Stage) -> list[int]:
        """The best counts so far, for another curve, and counts between them and their neighbours."""
        try:
            grid, runs = self._fixed_runs(stage)
        except BudgetError:
            return []
        rows = list(dict.fromkeys(row for row, _ in self._ranked(grid, runs)))[:PROMISING]
        best = [int(grid.functions[row]) for row in rows]
        step = math.sqrt(LADDER_RATIO)
        near = {round(best[0] / step), round(best[0] * step)} - {*best}
        fit = [n for n in sorted(near) if 1 <= n <= stage.most_functions]
        return [*best, *(n for n in fit if not stage.costing.refusal(Action(n, self._memory_mb)))]

    def _fixed_runs(self, stage: Stage) -> tuple[ActionGrid, FixedRuns]:
        """What every count that was trained is expected to take at every memory size.

        Raises:
            BudgetError: None of them reached the target.
        """
        counts = sorted(self._curves)
        costing = stage.costing
        grid = ActionGrid(costing, np.array(counts, np.int64), memory_grid(costing.world))
        known = [c for curves in self._curves.values() for c in curves]
        most = MOST_EPOCHS + 1 if any(c.cut for c in known) else max(len(c.losses) for c in known)
        excess = np.full((len(counts), most), np.inf)
        for row, n in enumerate(counts):
            excess[row] = _mean_losses(self._curves[n], most, self._target)
        runs = fixed_runs(grid, excess, self._target)
        if most == 1 and (excess <= self._target).all():
            raise BudgetError("the initial model is at the target already: there is nothing to rehearse")
        if not runs.epochs.any():
            raise BudgetError(
                f"no fixed count of {', '.join(map(str, counts))} functions reached the loss "
                f"{self._target:.4g} within {most - 1} epochs of a rehearsal: give an easier target, "
                "or a smaller learning rate"
            )
        return grid, runs

    def _ranked(self, grid: ActionGrid, runs: FixedRuns) -> list[tuple[int, int]]:
        """(count, size) indices from the fastest that the budget pays; if none, the cheapest first."""
        fits = runs.needed_usd * SLACK <= float(self._budget_usd)
        usable = np.isfinite(runs.duration_s)
        if (fits & usable).any():
            score = np.where(fits & usable, runs.duration_s, np.inf)
        else:
            score = np.where(usable, runs.needed_usd, np.inf)
        order = np.argsort(score, axis=None, kind="stable")
        order = order[np.isfinite(score.ravel()[order])]
        rows, columns = np.unravel_index(order, score.shape)
        return list(zip(rows.tolist(), columns.tolist(), strict=True))

    def _best_fixed(self, pool: Workers, grid: ActionGrid, runs: FixedRuns) -> tuple[Candidate, Reference]:
        """The best fixed action by real episodes, and the reference that it makes."""
        ranked = self._ranked(grid, runs)
        chosen = _spread(ranked, runs, FIXED_TRIED)
        candidates = []
        for row, column in chosen:
            action = Action(int(grid.functions[row]), int(grid.memory_mb[column]))
            candidates.append(Candidate(f"fixed:{action}", action=action))
        self._report(f"fixed actions: {', '.join(c.name for c in candidates)}")
        standings = self._compete(pool, candidates, FIRST_SEED, 6, FIXED_SHARE)
        best = min(standings, key=lambda s: s.score_s) if standings else None
        at = chosen[candidates.index(best.candidate)] if best else chosen[0]
        action = Action(int(grid.functions[at[0]]), int(grid.memory_mb[at[1]]))
        seconds, usd = float(runs.duration_s[at]), float(runs.cost_usd[at])
        if best and best.duration_s:
            seconds, usd = best.duration_s, best.cost_usd
        reference = Reference(action.functions, action.memory_mb, seconds, usd)
        return Candidate(f"fixed:{action}", action=action), reference

    def _proposals(self, stage: Stage, pool: Workers, reference: Reference) -> list[Candidate]:
        """The best agent, and the best linear policy of a search where there is time for one."""
        proposals = []
        agents = [Candidate(name, agent=name, reference=reference) for name in self._agents]
        if agents:
            self._report(f"agents: {', '.join(self._agents)}")
            share = (FIXED_SHARE + SEARCH_SHARE) / 2
            standings = self._compete(pool, agents, FIRST_SEED + 500, 6, share)
            if standings:
                proposals.append(min(standings, key=lambda s: s.score_s).candidate)
        episode_s = float(np.median([trial.wall_s for trial in self._trials])) if self._trials else math.inf
        found = search_linear(pool, reference, self._play, episode_s, self._until(SEARCH_SHARE), self._report)
        return [*proposals, *([found] if found else [])]

    def _final(
        self, pool: Workers, best: Candidate, proposals: list[Candidate], reference: Reference
    ) -> tuple[Standing, ...]:
        """All finalists on the same fresh seeds, as many as time allows."""
        finalists = [best, *proposals]
        self._report(f"final selection: {', '.join(c.name for c in finalists)}")
        standings = self._compete(pool, finalists, FRESH_SEED, 48, 1.0)
        known = {standing.candidate.name: standing for standing in standings}
        if best.name not in known:  # time was up
            nothing = Standing(best, 0, 0, None, None, None, reference.cost_usd, reference.duration_s)
            return (nothing,)
        return (known[best.name], *(known[c.name] for c in proposals if c.name in known))

    def _play(
        self, candidates: Sequence[Candidate], seeds: Sequence[int], until: float, pool: Workers
    ) -> list[Trial]:
        """Episodes of every candidate on every seed, seed by seed, as far as time allows."""
        calls = ((c, self._budget_usd, self._target, seed) for seed in seeds for c in candidates)
        trials = list(pool.each("trial", calls, until))
        self._trials += trials
        return trials

    def _compete(
        self, pool: Workers, candidates: Sequence[Candidate], seed: int, most: int, share: float
    ) -> list[Standing]:
        """Standings on the seeds that every candidate played."""
        trials = self._play(candidates, range(seed, seed + most), self._until(share), pool)
        return standings_of(candidates, trials)


def _exploded(curve: Curve) -> bool:
    last = float(curve.losses[-1])
    return not math.isfinite(last) or last > curve.losses[0]


def _continued(losses: Floats, target: float, length: int) -> Floats:
    """A curve that was cut off, down to the target in as many epochs as it is expected to need."""
    last = len(losses) - 1
    if last < 2 or not losses[-1] < losses[0]:
        return losses
    more = max(expected_epochs(losses, 1.0, target, length - 1) - last, 1)
    rest = np.geomspace(losses[-1], target, more + 1)[1:]
    return np.concatenate([losses, rest])[:length]


def _mean_losses(curves: Sequence[Curve], length: int, target: float) -> Floats:
    """Mean losses after 0 to `length` - 1 epochs; a curve that reached the target stays there."""
    table = np.full((len(curves), length), np.inf)
    for row, curve in zip(table, curves, strict=True):
        losses = _continued(curve.losses, target, length) if curve.cut else curve.losses
        row[: len(losses)] = losses
        if losses[-1] <= target:
            row[len(losses) - 1 :] = target
    mean: Floats = table.mean(axis=0)
    return mean


def _usual_action(stage: Stage) -> Action:
    """Where losses are first looked at: about 4 functions of one vCPU, or more of what the job needs."""
    world, costing = stage.costing.world, stage.costing
    most, grid = stage.most_functions, world.limits.memory_grid
    sizes = [m for m in grid if m >= 0.9 * world.cpu.memory_per_vcpu] or [grid[-1]]
    counts = sorted({min(4 * 2**k, most) for k in range(most.bit_length())})
    usual = next((Action(n, m) for n in counts for m in sizes if not costing.refusal(Action(n, m))), None)
    if usual is None:
        raise ActionError(
            f"no memory size of world {world.name} holds the data of this job: use another world"
        )
    return usual


def _ladder(stage: Stage, memory_mb: int) -> list[int]:
    """Counts of ratio `LADDER_RATIO`, from 8 outwards."""
    counts, n = [], 1
    while n <= stage.most_functions:
        counts.append(n)
        n = max(n + 1, round(n * LADDER_RATIO))
    usable = [n for n in counts if not stage.costing.refusal(Action(n, memory_mb))]
    return sorted(usable, key=lambda n: abs(math.log(n / 8)))


def _spread(ranked: list[tuple[int, int]], runs: FixedRuns, count: int) -> list[tuple[int, int]]:
    """The fastest, then others that differ from those before in count, or are much cheaper."""
    chosen: list[tuple[int, int]] = []
    for at in ranked:
        alike = [other for other in chosen if other[0] == at[0]]
        if all(runs.cost_usd[at] < 0.8 * runs.cost_usd[other] for other in alike):
            chosen.append(at)
        if len(chosen) == count:
            break
    return chosen
