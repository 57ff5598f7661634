"""The ladder of a sub-sample: counts compared between sub-epochs, and what the whole job is taken to need."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from siren.errors import BudgetError
from siren.rehearsal.sampled_ladder import DOUBLING, UNTIL_HALF, SampledLadder
from siren.rehearsal.schedule import Schedule
from siren.rehearsal.stage import FIRST_SEED, Curve, Stage
from siren.simulator.job import ActionGrid, fixed_runs, memory_grid
from siren.testing.tiny import tiny_costing, tiny_workload
from siren.types import Action

SHARE, LENGTH, EXPONENT, TARGET = 0.25, 12, -0.8, 0.1


class Pool:
    """Curves by a formula, in this process."""

    count = 1

    def __init__(self, losses_of: Callable[[int, int], np.ndarray], easier: float = 1.0) -> None:
        self.losses_of, self.easier = losses_of, easier
        self.asked: list[tuple[int, int, bool]] = []

    def each(self, method: str, calls: Iterable[tuple[Any, ...]], until: float) -> Iterator[Curve]:
        assert method == "curve"
        for n, _, _, _, seed, _, whole in calls:
            self.asked.append((n, seed - FIRST_SEED, whole))
            losses = self.losses_of(n, LENGTH if whole else LENGTH // 2)
            yield Curve(n, losses, True, 1.0, losses[-1] / self.easier if whole else math.nan)


def power(pace: Callable[[int], float]) -> Callable[[int, int], np.ndarray]:
    """A loss that falls as a power of the samples seen, after `pace(n)` times as many at n functions."""

    def losses_of(n: int, length: int) -> np.ndarray:
        seen = np.arange(1, length + 1) * SHARE / pace(n)
        return np.concatenate([[3.0], 0.5 * seen**EXPONENT])

    return losses_of


def ladder_of(budget_usd: float = 100.0, usual: int = 4, **training) -> SampledLadder:
    workload = tiny_workload(training={"target_loss": 0.6, "batch_size": 2, **training})
    stage = Stage(workload, tiny_costing(workload), SHARE, lambda: 0.0)
    stage.share = SHARE
    return SampledLadder(stage, Action(usual, 1769), TARGET, budget_usd, Schedule(0.0, 10.0, 1.0, 10.0))


def climbed(pool: Pool, **settings) -> SampledLadder:
    ladder = ladder_of(**settings)
    ladder.climb(pool, lambda text: None)
    return ladder


NEEDED = (TARGET / 0.5) ** (1 / EXPONENT)
"""Epochs of the whole job at pace 1."""


def epochs_of(ladder: SampledLadder) -> dict[int, float]:
    """Epochs by count, from the time of runs, which is linear in them."""
    grid, found = ladder.fixed_runs()
    ones = fixed_runs(grid, np.tile([1.0, 0.0], (len(grid.functions), 1)), 0.0).duration_s[:, -1]
    twos = fixed_runs(grid, np.tile([1.0, 1.0, 0.0], (len(grid.functions), 1)), 0.0).duration_s[:, -1]
    epochs = 1 + (found.duration_s[:, -1] - ones) / (twos - ones)
    return dict(zip(grid.functions.tolist(), (epochs - UNTIL_HALF).tolist(), strict=True))


def test_the_whole_job_needs_what_the_power_law_of_the_first_curve_says():
    pool = Pool(power(lambda n: 1.0))
    epochs = epochs_of(climbed(pool))
    assert pool.asked[0] == (4, 0, True)
    assert epochs[4] == pytest.approx(NEEDED, rel=1e-6)
    others = {n: NEEDED * DOUBLING ** max(math.log2(n / 4), 0) for n in epochs}
    assert epochs == pytest.approx(others, rel=1e-3)
    assert len(epochs) > 1


def test_a_count_that_needs_more_sub_epochs_needs_more_epochs_by_less_than_a_whole_one():
    """A tenth more, on curves of a handful of sub-epochs."""
    epochs = epochs_of(climbed(Pool(power(lambda n: 1.1 if n > 4 else 1.0))))
    more = [n for n in epochs if n > 4]
    assert more
    for n in more:
        assert epochs[n] / epochs[4] == pytest.approx(1.1 * DOUBLING ** math.log2(n / 4), rel=0.05)


def test_what_few_held_out_samples_make_easier_or_harder_is_seen():
    harder = epochs_of(climbed(Pool(power(lambda n: 1.0), easier=1.25)))
    assert harder[4] == pytest.approx((1.25 * TARGET / 0.5) ** (1 / EXPONENT), rel=1e-6)


def test_counts_that_explode_are_left_and_smaller_ones_tried():
    def losses_of(n: int, length: int) -> np.ndarray:
        return power(lambda n: 1.0)(n, length) if n < 4 else np.array([3.0, 9.5])

    pool = Pool(losses_of)
    epochs = epochs_of(climbed(pool))
    assert max(n for n, _, _ in pool.asked) == 4
    assert set(epochs) <= {1, 2, 3}
    assert (3, 0, True) in pool.asked


def test_counts_that_could_not_be_faster_are_not_trained():
    """Where the budget is what the least functions need, others could not be paid."""
    ample = Pool(power(lambda n: 1.0))
    climbed(ample)
    slow = Pool(power(lambda n: 1.0 if n == 4 else 50.0))
    climbed(slow)
    assert {n for n, _, _ in slow.asked} <= {n for n, _, _ in ample.asked} | set(range(1, 17))
    assert len({n for n, _, _ in ample.asked}) < len(ladder_of()._counts)


def test_the_target_of_trials_is_reached_in_as_many_sub_epochs_as_the_whole_job_needs_epochs():
    pool = Pool(power(lambda n: 1.0))
    ladder = climbed(pool)
    losses = pool.losses_of(4, LENGTH)
    assert ladder.trial_target == losses[math.ceil(NEEDED)]


def test_a_loss_that_does_not_fall_is_told():
    ladder = climbed(Pool(lambda n, length: np.array([1.0, 2.0, 4.0])))
    with pytest.raises(BudgetError, match="does not fall on a sub-sample with 1 functions"):
        _ = ladder.trial_target


def test_no_time_for_a_curve_is_told():
    nothing = SimpleNamespace(count=1, each=lambda *_: iter(()))
    with pytest.raises(BudgetError, match="10 s are too short to rehearse this job"):
        climbed(nothing)


def test_the_grid_has_what_was_trained():
    ladder = climbed(Pool(power(lambda n: 1.0)))
    grid, found = ladder.fixed_runs()
    costing = tiny_costing(tiny_workload(training={"batch_size": 2}))
    assert grid.memory_mb.tolist() == memory_grid(costing.world).tolist()
    assert isinstance(grid, ActionGrid)
    assert found.duration_s.shape == (len(grid.functions), len(grid.memory_mb))
    assert ladder.trained >= len(grid.functions)
