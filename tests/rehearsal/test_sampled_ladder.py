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
    """Curves by a formula of count, length and seed, in this process."""

    def __init__(self, losses_of: Callable[..., np.ndarray], easier: float = 1.0, count: int = 1) -> None:
        self.losses_of, self.easier, self.count = losses_of, easier, count
        self.asked: list[tuple[int, int, bool]] = []
        self.until: list[float] = []

    def each(self, method: str, calls: Iterable[tuple[Any, ...]], until: float) -> Iterator[Curve]:
        assert method == "curve"
        waiting, running = iter(calls), []
        while True:
            while len(running) < self.count and (call := next(waiting, None)):
                running.append(call)
            if not running:
                return
            n, _, _, _, seed, ends, whole = running.pop(0)
            self.asked.append((n, seed - FIRST_SEED, whole))
            self.until.append(ends)
            losses = self.losses_of(n, LENGTH if whole else LENGTH // 2, seed - FIRST_SEED)
            whole_loss = losses[-1] / self.easier if whole else math.nan
            yield Curve(n, losses, True, 1.0, whole_loss, seed)


def power(pace: Callable[..., float]) -> Callable[..., np.ndarray]:
    """A loss that falls as a power of the samples seen, after `pace(n, seed)` times as many."""

    def losses_of(n: int, length: int, seed: int = 0) -> np.ndarray:
        seen = np.arange(1, length + 1) * SHARE / pace(n, seed)
        return np.concatenate([[3.0], 0.5 * seen**EXPONENT])

    return losses_of


def ladder_of(
    budget_usd: float = 100.0, usual: int = 4, target: float = TARGET, sample_s: float | None = None
) -> SampledLadder:
    cost = {} if sample_s is None else {"seconds_per_sample": sample_s}
    workload = tiny_workload(training={"target_loss": 0.6, "batch_size": 2}, cost=cost)
    stage = Stage(workload, tiny_costing(workload), SHARE, lambda: 0.0)
    stage.share = SHARE
    return SampledLadder(stage, Action(usual, 1769), target, budget_usd, Schedule(0.0, 10.0, 1.0, 10.0))


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
    pool = Pool(power(lambda n, _: 1.0))
    epochs = epochs_of(climbed(pool))
    assert pool.asked[0] == (4, 0, True)
    assert epochs[4] == pytest.approx(NEEDED, rel=1e-6)
    others = {n: NEEDED * DOUBLING ** max(math.log2(n / 4), 0) for n in epochs}
    assert epochs == pytest.approx(others, rel=1e-3)
    assert len(epochs) > 1


def test_a_count_that_needs_more_sub_epochs_needs_more_epochs_by_less_than_a_whole_one():
    """A tenth more, on curves of a handful of sub-epochs."""
    epochs = epochs_of(climbed(Pool(power(lambda n, _: 1.1 if n > 4 else 1.0))))
    more = [n for n in epochs if n > 4]
    assert more
    for n in more:
        assert epochs[n] / epochs[4] == pytest.approx(1.1 * DOUBLING ** math.log2(n / 4), rel=0.05)


def test_counts_are_compared_on_the_same_data_and_seeds_averaged():
    """Whatever a seed's data does to all counts alike says nothing of the counts."""
    data, own = (1.0, 1.6, 0.7), (1.0, 1.24, 1.12)
    pool = Pool(power(lambda n, seed: data[seed] * (own[seed] if n > 4 else 1.0)))
    epochs = epochs_of(climbed(pool))
    repeated = [n for n in epochs if n > 4 and (n, 1, False) in pool.asked]
    assert repeated
    for n in repeated:
        more = np.mean([own[seed] for asked, seed, _ in pool.asked if asked == n])
        assert epochs[n] / epochs[4] == pytest.approx(more * DOUBLING ** math.log2(n / 4), rel=0.03)


@pytest.mark.parametrize("count", [1, 2])
def test_curves_take_their_share_of_all_processes_time(count):
    pool = Pool(power(lambda n, _: 1.0), count=count)
    climbed(pool)
    assert pool.until[:2] == pytest.approx([3.5 * count, 1.2 * count])


def test_no_count_is_tried_that_is_far_from_all_that_were():
    """Gradients worth sharing out among as many functions as there are."""
    pool = Pool(power(lambda n, _: 1.0))
    climbed(pool, sample_s=5.0)
    counts = [n for n, _, _ in pool.asked]
    assert counts[0] == 4
    assert max(counts) > 4 * 4
    for k in range(1, len(counts)):
        assert counts[k] <= 4 * max(counts[:k])


def test_counts_that_the_budget_does_not_pay_are_not_tried():
    rich = Pool(power(lambda n, _: 1.0))
    grid, found = climbed(rich, sample_s=5.0).fixed_runs()
    needed = dict(zip(grid.functions.tolist(), found.needed_usd.min(axis=1).tolist(), strict=True))
    most = max(n for n, _, _ in rich.asked)
    assert needed[4] < needed[most]
    poor = Pool(power(lambda n, _: 1.0))
    climbed(poor, sample_s=5.0, budget_usd=(needed[4] + needed[most]) / 2)
    assert 4 <= max(n for n, _, _ in poor.asked) < most


def test_what_few_held_out_samples_make_easier_or_harder_is_seen():
    harder = epochs_of(climbed(Pool(power(lambda n, _: 1.0), easier=1.25)))
    assert harder[4] == pytest.approx((1.25 * TARGET / 0.5) ** (1 / EXPONENT), rel=1e-6)


@pytest.mark.parametrize("count", [1, 2, 8])
def test_counts_that_explode_are_left_and_smaller_ones_tried(count):
    def losses_of(n: int, length: int, _: int) -> np.ndarray:
        return power(lambda n, _: 1.0)(n, length) if n < 4 else np.array([3.0, 9.5])

    pool = Pool(losses_of, count=count)
    epochs = epochs_of(climbed(pool))
    assert set(epochs) <= {1, 2, 3}
    assert (3, 0, True) in pool.asked
    assert len(set(pool.asked)) == len(pool.asked)
    assert count > 1 or max(n for n, _, _ in pool.asked) == 4


@pytest.mark.parametrize("last", [9.5, math.nan])
def test_a_count_that_explodes_once_is_not_chosen(last):
    def losses_of(n: int, length: int, seed: int) -> np.ndarray:
        return np.array([3.0, last]) if (n, seed) == (4, 1) else power(lambda n, _: 1.0)(n, length)

    ladder = climbed(Pool(losses_of))
    epochs = epochs_of(ladder)
    assert epochs
    assert 4 not in epochs
    assert min(epochs.values()) > 0.9 * NEEDED
    assert ladder.trial_target == losses_of(4, LENGTH, 0)[math.ceil(NEEDED)]


def test_the_count_whose_model_saw_all_samples_is_compared_with_even_if_another_takes_longer():
    """A curve ends at the target: of two that get there the worse one is the longer."""

    def losses_of(n: int, length: int, _: int) -> np.ndarray:
        return np.geomspace(3.0, TARGET, 5 if n == 4 else 7)

    ladder = climbed(Pool(losses_of, easier=0.5))
    assert ladder._longest() == 4


def test_a_loss_that_rises_first_is_no_target():
    losses = np.array([1.0, 2.0, 1.8, 1.4, 1.2, 0.9, 0.6, 0.4, 0.3])
    ladder = climbed(Pool(lambda *_: losses), target=0.6)
    assert ladder.trial_target < 1.0


def test_a_job_that_is_done_already_is_told():
    with pytest.raises(BudgetError, match="at the target already"):
        climbed(Pool(lambda *_: np.array([TARGET / 2])))


def test_a_run_takes_a_whole_epoch_at_least():
    ladder = climbed(Pool(power(lambda n, _: 1.0)), target=1.5)
    assert epochs_of(ladder)[4] == pytest.approx(1 - UNTIL_HALF)


def test_counts_that_could_not_be_faster_are_not_trained():
    """Fewer functions need no fewer epochs, and each takes them longer."""
    pool = Pool(power(lambda n, _: 1.0))
    ladder = climbed(pool)
    tried = {n for n, _, _ in pool.asked}
    assert min(ladder._counts) < 4 == min(tried)
    assert len(tried) < len([n for n in ladder._counts if n >= 4])


def test_the_target_of_trials_is_reached_in_as_many_sub_epochs_as_the_whole_job_needs_epochs():
    pool = Pool(power(lambda n, _: 1.0))
    ladder = climbed(pool)
    losses = pool.losses_of(4, LENGTH)
    assert ladder.trial_target == losses[math.ceil(NEEDED)]


def test_a_trial_takes_some_sub_epochs_where_the_whole_job_takes_one_epoch():
    pool = Pool(power(lambda n, _: 1.0))
    ladder = climbed(pool, target=0.5)
    assert epochs_of(ladder)[4] == pytest.approx(1.0)
    assert ladder.trial_target == pool.losses_of(4, LENGTH)[3]


def test_a_loss_that_does_not_fall_is_told():
    ladder = climbed(Pool(lambda *_: np.array([1.0, 2.0, 4.0])))
    with pytest.raises(BudgetError, match="does not fall on a sub-sample with 1 functions"):
        _ = ladder.trial_target


def test_no_time_for_a_curve_is_told():
    nothing = SimpleNamespace(count=1, each=lambda *_: iter(()))
    with pytest.raises(BudgetError, match="10 s are too short to rehearse this job"):
        climbed(nothing)


def test_the_grid_has_what_was_trained_and_counts_between():
    pool = Pool(power(lambda n, _: 1.1 if n > 4 else 1.0))
    ladder = climbed(pool)
    grid, found = ladder.fixed_runs()
    trained = {n for n, _, _ in pool.asked}
    assert trained < {*grid.functions.tolist()}
    assert min(trained) == grid.functions[0]
    assert max(trained) == grid.functions[-1]
    epochs = list(epochs_of(ladder).values())
    assert epochs == sorted(epochs)
    costing = tiny_costing(tiny_workload(training={"batch_size": 2}))
    assert grid.memory_mb.tolist() == memory_grid(costing.world).tolist()
    assert isinstance(grid, ActionGrid)
    assert found.duration_s.shape == (len(grid.functions), len(grid.memory_mb))
    assert ladder.trained >= len(grid.functions)
