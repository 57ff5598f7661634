"""A profile recovers what is true where that differs from what was assumed."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from siren.errors import ActionError, BudgetError
from siren.platforms.select import Selected
from siren.platforms.twin import TwinPlatform
from siren.profiling.fit import empty_init_s, expected_parts, fit, fit_compute, fit_imports
from siren.profiling.measure import (
    FIRST_SHARE,
    Measured,
    actions_of,
    measure,
    prepare,
    with_larger_batches,
)
from siren.testing.tiny import tiny_costing, tiny_workload
from siren.types import Action, BatchRule, ChannelKind, UpdateRule
from siren.workloads.profile import Profile, with_profile
from siren.workloads.workload import Workload
from siren.worlds import World, load_world

WORLD = load_world("aws-2026")
BUDGET = Decimal("0.05")
TRUTH = {
    "seconds_per_sample": 2.0,
    "seconds_per_push": 0.5,
    "import_s": 3.0,
    "read_median": 1.6,
    "write": 0.7,
}
"""True constants over those that are assumed."""


def made_of(workload: Workload, world: World, seed: int) -> Selected:
    """A twin whose constants are not those that it is told."""
    costing = tiny_costing(workload, world)
    cost = workload.spec.cost
    changed = cost.model_copy(
        update={
            name: getattr(cost, name) * TRUTH[name]
            for name in ("seconds_per_sample", "seconds_per_push", "import_s")
        }
    )
    channel = costing.job.channel
    store = costing.world.channels[channel]
    store = store.model_copy(
        update={
            "read_median": store.read_median * TRUTH["read_median"],
            "write_median": store.write_median * TRUTH["write"],
        }
    )
    world = world.model_copy(update={"channels": {**world.channels, channel: store}})
    spec = workload.spec.model_copy(update={"cost": changed})
    true = Workload(workload.name, spec, workload.model, workload.dataset, workload.folder)
    return Selected(TwinPlatform(true, tiny_costing(true, world), seed), costing)


def measured(workload: Workload, budget: Decimal = BUDGET, seed: int = 1, world: World = WORLD) -> Measured:
    with prepare(workload, world, made_of, budget, seed) as tours:
        return measure(tours, budget)


@pytest.fixture(scope="module")
def workload() -> Workload:
    return tiny_workload()


@pytest.fixture(scope="module")
def found(workload) -> Measured:
    return measured(workload)


def test_the_truth_is_within_the_intervals_and_they_are_narrow(workload, found):
    constants = fit(found, tiny_costing(workload))
    for name in ("seconds_per_sample", "seconds_per_push", "import_s", "read_median"):
        constant = constants[name]
        true = constant.assumed * TRUTH[name]
        assert constant.low <= true <= constant.high, name
        if name != "seconds_per_push":  # a fortieth of a push, which noise hides
            assert constant.high - constant.low < 0.35 * true, name
            assert not constant.low <= constant.assumed <= constant.high, name


def test_under_split_one_tour_tells_a_sample_from_a_push():
    split = tiny_workload(training={"batch_rule": "split"})
    constants = fit(measured(split), tiny_costing(split))
    for name in ("seconds_per_sample", "seconds_per_push"):
        assert constants[name].low <= constants[name].assumed * TRUTH[name] <= constants[name].high


def test_the_fitted_laws_expect_what_was_measured(workload, found):
    constants = fit(found, tiny_costing(workload))
    profile = Profile(
        workload=workload.name,
        world=WORLD.name,
        platform="twin",
        channel=ChannelKind.REDIS,
        seed=1,
        budget_usd="0.05",
        spent_usd="0.04",
        constants=constants,
        points=(),
        cold_starts=1,
    )
    known, world = with_profile(workload, WORLD, profile)
    costing = tiny_costing(known, world)
    alone = [e.report for e in found.warm() if e.report.action == Action(1, 1769) and e.costing.uses_cache]
    told = [
        sum(getattr(r, part) for r in alone) / len(alone) for part in ("fetch_s", "compute_s", "update_s")
    ]
    assert expected_parts(costing, 1, 1769) == pytest.approx(told, rel=0.05)
    assert known.spec.cost.measured.startswith("twin")
    assert workload.spec.cost.seconds_per_sample == 1e-3  # the job itself stays as it was


def test_the_budget_is_never_exceeded_and_is_spent_on_the_most_telling_first(workload):
    for budget in ("0.034", "0.04", "0.20"):
        some = measured(workload, Decimal(budget))
        assert some.spent_usd <= Decimal(budget)
        first = some.epochs[0].costing.job
        assert (first.update_rule, first.channel) == (UpdateRule.AVERAGE, ChannelKind.S3)
        own = [e for e in some.epochs if not e.costing.uses_cache]
        assert len(own) >= 2
    with pytest.raises(BudgetError, match="give more"):
        measured(workload, Decimal("0.00001"))


def test_warm_epochs_lose_their_fastest_and_slowest(found):
    groups: dict[tuple[object, Action], list[float]] = {}
    for epoch in found.epochs:
        if not epoch.cold:
            key = epoch.costing.job.channel, epoch.report.action
            groups.setdefault(key, []).append(epoch.report.duration_s)
    kept = [e.report.duration_s for e in found.warm()]
    for times in groups.values():
        if len(times) >= 5:
            assert min(times) not in kept
            assert max(times) not in kept


def test_the_first_tour_takes_larger_mini_batches_of_the_same_samples(workload):
    larger = with_larger_batches(workload)
    training = larger.spec.training
    assert training.batch_rule is BatchRule.CONSTANT
    assert training.batch_size == 40
    assert larger.samples % training.batch_size == 0
    assert 0 < FIRST_SHARE < 1


def test_actions_go_from_one_vcpu_to_functions_that_contend(workload):
    own = actions_of(tiny_costing(workload), own=True)
    assert own == [Action(1, 1769), Action(1, 768), Action(4, 768), Action(16, 768)]
    huge = tiny_workload(cost={"runtime_mb": 4000.0})
    with pytest.raises(ActionError, match="MB"):
        actions_of(tiny_costing(huge), own=True)
    few = actions_of(tiny_costing(workload), own=True, functions_max=2)
    assert few == [Action(1, 1769), Action(1, 768), Action(2, 768)]
    heavy = tiny_workload(cost={"seconds_per_sample": 2.0})
    assert min(a.functions for a in actions_of(tiny_costing(heavy), own=True)) > 8


def test_a_world_without_the_channels_noise_is_told_exactly():
    quiet: World = WORLD.model_copy(
        update={"cpu": WORLD.cpu.model_copy(update={"push_noise": 0.0, "function_noise": 0.0})}
    )
    workload = tiny_workload()
    told = measured(workload, BUDGET, 0, quiet)
    constants = fit(told, tiny_costing(workload, quiet))
    assert constants["seconds_per_sample"].value == pytest.approx(2e-3, rel=1e-3)
    assert constants["seconds_per_push"].value == pytest.approx(0.5e-3, rel=1e-2)


def test_a_sample_too_small_to_be_told_from_a_push_scales_with_it(workload, found):
    """Functions so quick that the requests around them hide what a sample takes."""
    noisy = []
    for epoch in found.warm():
        pushes = epoch.report.pushes / epoch.report.action.functions
        quicker = 0.5 if epoch.costing.uses_cache else 0.4  # larger mini-batches seem to take less
        noisy.append(replace(epoch, report=replace(epoch.report, compute_s=1e-4 * pushes * quicker)))
    constants = fit_compute(noisy)
    factors = [constant.value / constant.assumed for constant in constants.values()]
    assert set(constants) == {"seconds_per_sample", "seconds_per_push"}
    assert factors[0] == pytest.approx(factors[1])
    job = tiny_costing(workload).job
    told = sum(epoch.report.compute_s * epoch.report.action.functions for epoch in noisy)
    fitted = sum(
        epoch.costing.job.samples * constants["seconds_per_sample"].value
        + epoch.report.pushes * constants["seconds_per_push"].value
        for epoch in noisy
    )
    assert 0.3 < fitted / told < 1.5
    assert constants["seconds_per_sample"].value < 0.3 * job.seconds_per_sample


def test_imports_are_fitted_to_what_initialisations_took(found):
    cold = [epoch for epoch in found.epochs if epoch.cold]
    told = [
        replace(epoch, report=replace(epoch.report, init_s=0.5 + empty_init_s(epoch.costing)))
        for epoch in cold
    ]
    constant = fit_imports(told)
    assert constant.value == pytest.approx(0.5)
    assert constant.low < 0.5 < constant.high
    slow = [replace(epoch, report=replace(epoch.report, start_s=99.0)) for epoch in told]
    assert fit_imports(slow) == constant  # publishing versions and fanning out are no part of it
    ahead = replace(cold[0], report=replace(cold[0].report, init_s=0.0))
    assert fit_imports([*told, ahead]) == constant  # initialised ahead of time: nothing was reported
    assert fit_imports([*found.warm(), ahead]) is None
