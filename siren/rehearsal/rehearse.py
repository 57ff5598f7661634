"""The course of a rehearsal: a short ladder, races, a search, selection on fresh seeds, fall-back.

1. One short curve tells how fast the machine is, and so whether the job is rehearsed whole or on a
   sub-sample, whose target is the loss that it reaches in as many epochs as the whole job is
   expected to need.
2. A ladder of function counts is trained without a budget. Losses depend mostly on n; what the laws
   expect of every (n, m) then gives roughly the time and the dollars of every fixed action.
3. The promising ones race with the budget enforced, and the winner moves on to its best neighbour
   while there is one. It becomes the reference (n_ref, m_ref) of the learned policies.
4. The shipped agents are played. Shapes of linear policies race, and CMA-ES goes on from their winner
   where episodes are cheap.
5. The best fixed action and the best of each kind of proposal meet on fresh seeds. A proposal wins
   only if it is faster, failures counted twice, and does not fail more often.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

import numpy as np

from siren.evaluation.baseline import near
from siren.policies.agent import agent_names
from siren.policies.reference import Reference
from siren.rehearsal.ladder import Ladder, Report
from siren.rehearsal.racing import race
from siren.rehearsal.sampled_ladder import SampledLadder
from siren.rehearsal.schedule import AGENT_SHARE, FIXED_SHARE, SEARCH_SHARE, Schedule
from siren.rehearsal.search import search_linear
from siren.rehearsal.selection import Standing, choose, standings_of
from siren.rehearsal.sizing import sized, usual_action
from siren.rehearsal.stage import FIRST_SEED, FRESH_SEED, Candidate, Stage, Trial
from siren.rehearsal.workers import StageSettings, Workers
from siren.simulator.job import ActionGrid, FixedRuns
from siren.types import Action

CLIMBS = 5
"""Times that the best fixed action moves on to its best neighbour."""

REFERENCES = 2
"""Of these, so many serve learned policies as what they act relative to."""


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
        wall_s: Seconds that it took, on the stage's clock.
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
        seconds: Seconds that it may take on the stage's clock, about.
        target_loss: Where the job is done; by default the workload's target.
        agents: Names or folders of the learned policies that may propose; by default all that ship.
        report: Told what happens.
        workers: Processes; by default one for each core.

    Raises:
        ActionError: No action can run the job.
        BudgetError: No fixed action was found to reach the target; the message says what was tried.
    """
    began = stage.clock()
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
        self._clock = stage.clock
        self._began_s, self._seconds, self._workers = began, seconds, workers
        self._agents = agent_names() if agents is None else list(agents)
        self._report = report
        self._target = target_loss
        self._trials: list[Trial] = []

    def run(self) -> Rehearsal:
        """All steps."""
        usual = usual_action(self._whole)
        stage, settings, epoch_s = sized(self._whole, self._settings, usual, self._seconds, self._workers)
        left_s = self._seconds - (self._clock() - self._began_s)
        self._schedule = Schedule(self._clock(), left_s, epoch_s, self._seconds)
        pool = Workers(stage, settings, self._schedule.until(1.0), self._workers)
        try:
            ladder = self._ladder(stage, usual)
            ladder.climb(pool, self._report)
            if isinstance(ladder, SampledLadder):
                self._target = ladder.trial_target
            grid, runs = ladder.fixed_runs()
            best, references = self._best_fixed(pool, ladder, grid, runs)
            reference = references[0]
            proposals = self._proposals(pool, references)
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
            curves=ladder.trained,
            wall_s=self._clock() - self._began_s,
        )

    def _ladder(self, stage: Stage, usual: Action) -> Ladder:
        budget_usd = float(self._budget_usd)
        if stage.whole:
            return Ladder(stage, usual.memory_mb, self._target, budget_usd, self._schedule)
        return SampledLadder(stage, usual, self._target, budget_usd, self._schedule)

    def _best_fixed(
        self, pool: Workers, ladder: Ladder, grid: ActionGrid, runs: FixedRuns
    ) -> tuple[Candidate, list[Reference]]:
        """The best fixed action, and the references that the best ones make: by real episodes.

        A sub-sample is not played: its episodes would tell no more than its curves.
        """
        sampled = isinstance(ladder, SampledLadder)
        chosen = ladder.ranked(runs)[:1] if sampled else ladder.worth_racing(runs)
        standings = [] if sampled else self._race(pool, [_fixed(_action(grid, at)) for at in chosen])
        expected = {
            _action(grid, at): (float(runs.duration_s[at]), float(runs.cost_usd[at])) for at in chosen
        }
        for climb in range(CLIMBS if standings else 0):
            standings, improved = self._around(pool, standings, climb + 1)
            if not improved:
                break
        best = [s.candidate.action for s in standings if s.candidate.action] or [_action(grid, chosen[0])]
        references = [
            _reference(action, standing, expected)
            for action, standing in itertools.zip_longest(best, standings)
        ]
        return _fixed(references[0].action), references

    def _around(self, pool: Workers, standings: list[Standing], climb: int) -> tuple[list[Standing], bool]:
        """Races the best against its neighbours; whether one of them won."""
        best = standings[0].candidate
        assert best.action is not None
        refined = self._race(pool, [best, *map(_fixed, near(self._whole.costing, best.action))], climb)
        known = {s.candidate.name for s in refined}
        merged = refined + [s for s in standings if s.candidate.name not in known]
        return merged, bool(refined) and refined[0].candidate.name != best.name

    def _race(self, pool: Workers, candidates: list[Candidate], climb: int = 0) -> list[Standing]:
        """Every race has seeds of its own: the winner of the one before may have been lucky."""
        self._report(f"race of {', '.join(c.name for c in candidates)}")
        until = self._schedule.until(FIXED_SHARE)
        return race(candidates, self._play, FIRST_SEED + 1000 * climb, until, pool)

    def _proposals(self, pool: Workers, references: list[Reference]) -> list[Candidate]:
        """The best agent, and what a search for a linear policy found where there is time for one."""
        proposals = []
        agents = [
            Candidate(f"{name}@{reference.action}" if k else name, agent=name, reference=reference)
            for name in self._agents
            for k, reference in enumerate(references[:REFERENCES])
        ]
        if agents:
            self._report(f"agents: {', '.join(self._agents)}")
            standings = self._compete(pool, agents, FIRST_SEED + 500, 6, AGENT_SHARE)
            if standings:
                proposals.append(min(standings, key=lambda s: s.score_s).candidate)
        episode_s = float(np.median([trial.wall_s for trial in self._trials])) if self._trials else math.inf
        until = self._schedule.until(SEARCH_SHARE)
        found = search_linear(pool, references[0], self._play, episode_s, until, self._report)
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
        trials = self._play(candidates, range(seed, seed + most), self._schedule.until(share), pool)
        return standings_of(candidates, trials)


def _action(grid: ActionGrid, at: tuple[int, int]) -> Action:
    return Action(int(grid.functions[at[0]]), int(grid.memory_mb[at[1]]))


def _fixed(action: Action) -> Candidate:
    return Candidate(f"fixed:{action}", action=action)


def _reference(
    action: Action, standing: Standing | None, expected: Mapping[Action, tuple[float, float]]
) -> Reference:
    """A fixed action with what it took, or else with what it is expected to take."""
    if standing and standing.duration_s:
        return Reference(action.functions, action.memory_mb, standing.duration_s, standing.cost_usd)
    seconds, usd = expected.get(action) or next(iter(expected.values()))
    return Reference(action.functions, action.memory_mb, seconds, usd)
