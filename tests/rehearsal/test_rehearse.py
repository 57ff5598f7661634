"""The course of a rehearsal: ladder, trials, proposals, selection, fall-back; by a clock that tests turn."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from siren.errors import ActionError, BudgetError
from siren.policies import FixedPolicy
from siren.policies.network import Network, Spaces, save_network
from siren.policies.reference import Reference
from siren.rehearsal.ladder import counts_of
from siren.rehearsal.rehearse import Rehearsal, rehearse
from siren.rehearsal.search import INPUTS, linear, search_linear
from siren.rehearsal.sizing import usual_action
from siren.rehearsal.stage import Candidate, Stage, Trial
from siren.simulator.observation import NAMES
from siren.testing.tiny import tiny_costing, tiny_workload
from siren.types import Action, UpdateRule
from siren.worlds.laws import RULES_OF_CHANNEL
from tests.rehearsal.clock import Clock

FIXED = Candidate("fixed:8x1769", action=Action(8, 1769))
AGENT = Candidate("agent", agent="agent", reference=Reference(8, 1769, 10.0, 0.1))
OTHER = Candidate("search", agent="search", reference=Reference(8, 1769, 10.0, 0.1))
HEAVY = {"seconds_per_sample": 0.05}
"""Gradients that are worth sharing out."""

TARGET = 0.6
"""A loss that takes about six epochs."""


def trial(candidate: Candidate, seed: int, duration_s: float, *, success: bool = True) -> Trial:
    return Trial(candidate.name, seed, success, duration_s, 0.01 * seed, 0.0)


def stage_of(fraction: float = 1.0, clock: Callable[[], float] = time.monotonic, **sections) -> Stage:
    training = {"target_loss": TARGET, **sections.pop("training", {})}
    workload = tiny_workload(training=training, **sections)
    return Stage(workload, tiny_costing(workload), fraction, clock)


def rehearsed(stage: Stage, budget: str = "0.50", seconds: float = 3.0, agents=()) -> Rehearsal:
    """A rehearsal in this process alone."""
    return rehearse(stage, None, Decimal(budget), seconds, agents=agents)


def agent_of(folder: Path, functions: float, memory: float = 0.0) -> str:
    """An agent that always takes the same step from its reference."""
    weight, bias = np.zeros((2, len(NAMES)), np.float32), np.array([functions, memory], np.float32)
    save_network(folder, Network({"mlp.0.weight": weight, "mlp.0.bias": bias}), Spaces(), {})
    return str(folder)


def test_the_ladder_begins_in_the_middle_and_doubles():
    stage = stage_of(training={"batch_size": 1})
    ladder = counts_of(stage, 1769)
    assert ladder[0] == 8
    assert sorted(ladder) == [1, 2, 4, 8, 16, 32, 64, 128]
    assert stage.most_functions == 240


def test_the_ladder_leaves_out_what_has_too_little_memory():
    stage = stage_of(cost={"sample_bytes": 40_000_000})  # 9.6 GB in all
    assert min(counts_of(stage, 1769)) == 8
    usual = usual_action(stage)
    assert not stage.costing.refusal(usual)
    assert usual.functions == 4
    assert usual.memory_mb > 1769


def test_a_job_that_needs_many_functions_is_looked_at_with_many():
    stage = stage_of(clock=Clock(0.02), cost={"sample_bytes": 400_000_000})  # 96 GB in all
    usual = usual_action(stage)
    assert not stage.costing.refusal(usual)
    assert usual.functions > 8
    found = rehearsed(stage, "500", seconds=2.0)
    assert not stage.costing.refusal(found.reference.action)
    assert min(n for n, _ in found.ladder) > 8


def test_a_job_that_no_memory_holds_is_refused():
    with pytest.raises(ActionError, match="no memory size of world aws-2026 holds the data"):
        rehearsed(stage_of(cost={"sample_bytes": 20_000_000_000}))


def test_a_rehearsal_finds_a_sane_count_where_the_count_matters():
    """Twelve seconds of gradients an epoch, 1 to 24 functions: about that many are best."""
    clock = Clock(0.01)
    stage = stage_of(clock=clock, cost=HEAVY)
    found = rehearsed(stage)
    assert found.reference.functions >= 8
    best = Candidate(f"fixed:{found.reference.action}", action=found.reference.action)
    assert found.standings[0].candidate == best
    assert found.choice in [standing.candidate for standing in found.standings]
    alone = [
        stage.trial(Candidate("1", action=Action(1, 1769)), Decimal("0.50"), TARGET, seed)
        for seed in range(6)
    ]
    assert found.standings[0].successes == found.standings[0].episodes > 3
    assert found.standings[0].score_s < np.mean([t.duration_s for t in alone]) / 3
    assert dict(found.ladder)[8] >= 1
    assert found.share == 1
    assert found.target_loss == TARGET
    assert found.wall_s <= 3.0 + 60 * clock.step_s
    assert found.episodes > 10
    assert found.curves >= 5
    assert "fresh seeds" in found.why


def test_a_small_budget_takes_a_cheaper_action():
    stage = stage_of(clock=Clock(0.01), cost=HEAVY, training={"channel": "memory"})
    rich = rehearsed(stage, "0.50")
    poor = rehearsed(stage, f"{rich.standings[0].cost_usd * 0.8:.6f}")
    assert poor.standings[0].successes > 0
    assert poor.standings[0].cost_usd < rich.standings[0].cost_usd
    assert poor.reference.duration_s > rich.reference.duration_s


def test_a_budget_too_small_for_every_fixed_action_still_finds_the_cheapest():
    found = rehearsed(stage_of(clock=Clock(0.01), cost=HEAVY, training={"target_loss": 0.3}), "0.0333")
    assert found.choice.action == found.reference.action
    assert found.standings[0].successes == 0
    assert math.isfinite(found.reference.duration_s)


def test_the_same_clock_gives_the_same_rehearsal():
    found = []
    for _ in range(2):
        found.append(rehearsed(stage_of(clock=Clock(0.01), cost=HEAVY)))
    assert found[0] == found[1]


def test_it_falls_back_when_proposals_are_worse(tmp_path):
    agents = [agent_of(tmp_path / "few", -1.0, 0.0), agent_of(tmp_path / "small", -0.5, -1.0)]
    found = rehearsed(stage_of(clock=Clock(0.01), cost=HEAVY), agents=agents)
    proposed = {s.candidate.agent: s.score_s for s in found.standings[1:] if s.candidate.agent}
    assert proposed
    assert min(proposed.values()) > found.standings[0].score_s
    assert found.choice.agent == ""


class Alone:
    """One process."""

    count = 1

    def __init__(self, clock: Clock) -> None:
        self.clock = clock


@pytest.mark.parametrize("seconds", [0.1, 2.0])
def test_a_search_proposes_where_there_is_time_for_it(seconds):
    clock, told = Clock(0.01), []
    reference, deadline = Reference(8, 1769, 10.0, 0.1), clock.now_s + seconds

    def play(candidates, seeds, until, pool) -> list[Trial]:
        """Episodes that are the faster the nearer the bias of n is to .5."""
        assert until in (math.inf, deadline)
        trials = []
        for seed in seeds:
            for candidate in candidates:
                duration_s = 10.0 + (candidate.weights[0][-1] - 0.5) ** 2
                trials.append(Trial(candidate.name, seed, True, duration_s, 0.1, 0.01))
        return trials

    found = search_linear(Alone(clock), reference, play, 0.01, deadline, told.append)
    if seconds < 1:
        assert (found, told) == (None, [])
        return
    assert found is not None
    assert found.name == "search"
    assert found.reference == reference
    assert found.weights[0][-1] == pytest.approx(0.5, abs=0.2)
    assert Candidate.from_json(found.to_json()) == found
    assert told[-1].endswith(" episodes")


def test_large_jobs_are_rehearsed_on_a_part_down_to_another_loss():
    stage = stage_of(clock=Clock(0.08), cost=HEAVY, training={"batch_size": 1, "learning_rate": 0.005})
    found = rehearsed(stage, "2", seconds=6.0)
    assert found.share < 0.7
    assert found.share == pytest.approx(round(found.share * 240) / 240)
    initial = stage.workload.evaluate(stage.workload.init(0))[0]
    assert 0.4 < found.target_loss < initial
    assert found.reference.functions >= 4


def test_a_job_too_slow_for_one_epoch_is_told_at_once():
    clock = Clock(5.0)
    with pytest.raises(BudgetError, match="3 s are too short to rehearse this job"):
        rehearsed(stage_of(clock=clock, training={"batch_size": 1}))
    assert clock.now_s < 100 + 20 * clock.step_s


def test_a_job_that_diverges_is_told():
    with pytest.raises(BudgetError, match=r"no fixed count of .* reached the loss 0.1"):
        rehearsed(stage_of(clock=Clock(0.01), training={"learning_rate": 1e6, "target_loss": 0.1}))


def test_a_part_that_diverges_is_told():
    stage = stage_of(clock=Clock(0.08), training={"learning_rate": 1e6, "batch_size": 1, "target_loss": 0.1})
    with pytest.raises(BudgetError, match="does not fall on a sub-sample"):
        rehearsed(stage, seconds=12.0)


def test_a_job_that_is_done_already_is_told():
    with pytest.raises(BudgetError, match="at the target already"):
        rehearsed(stage_of(clock=Clock(0.01), training={"target_loss": 5.0}))


PAIRS = [("redis", rule) for rule in sorted(RULES_OF_CHANNEL["redis"])] + [("s3", UpdateRule.AVERAGE)]


@pytest.mark.parametrize(("channel", "rule"), PAIRS)
@pytest.mark.parametrize("batch_rule", ["constant", "split"])
def test_every_rule_is_rehearsed(channel, rule, batch_rule):
    training = {"channel": channel, "update_rule": rule, "batch_rule": batch_rule, "target_loss": 0.62}
    evaluator = "function" if batch_rule == "split" else "scheduler"
    stage = stage_of(clock=Clock(0.01), training={**training, "evaluator": evaluator})
    found = rehearsed(stage, seconds=1.5)
    assert isinstance(found.choice.policy(), FixedPolicy) or found.choice.weights
    assert not stage.costing.refusal(found.reference.action)
    assert found.standings[0].successes > 0


def test_a_linear_candidate_weighs_what_it_says():
    reference = Reference(8, 1769, 10.0, 0.1)
    weights = [float(k + 1) for k in range(len(INPUTS) + 3)]
    candidate = linear("search", weights, reference)
    table = np.array(candidate.weights)
    assert table.shape == (2, len(NAMES) + 1)
    for k, name in enumerate(INPUTS):
        assert table[0, NAMES.index(name)] == k + 1
    assert table[0, -1] == len(INPUTS) + 1
    assert table[1, NAMES.index("log_gap")] == len(INPUTS) + 2
    assert table[1, -1] == len(INPUTS) + 3
    assert np.count_nonzero(table) == len(weights)
    seen = np.zeros(len(NAMES), np.float32)
    zero = linear("search", [0.0] * len(weights), reference)
    network = zero._linear()
    assert network.act(seen).tolist() == [0.0, 0.0]


def test_a_candidate_is_one_of_three_kinds():
    for candidate in (FIXED, AGENT, linear("search", [0.1] * 8, Reference(8, 1769, 10.0, 0.1))):
        assert Candidate.from_json(candidate.to_json()) == candidate
    assert dataclasses.asdict(FIXED)["weights"] == ()
