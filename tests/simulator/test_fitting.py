from __future__ import annotations

import numpy as np
import pytest

from siren.errors import UsageError
from siren.simulator import fitting, quadratic
from siren.simulator.fitted import SpotDnn
from siren.simulator.fitting import ExponentialLaw, Setting, SpotDnnLaw, fixed_trace
from siren.simulator.quadratic import Quadratic
from siren.types import BatchRule, UpdateRule
from siren.worlds import load_world
from tests.twin.jobs import job_of, small_workload

COUNTS = (1, 4, 12, 40)
LOWEST = 0.3


@pytest.fixture(params=["constant", "split"])
def setting(request):
    workload = small_workload(
        samples=2400, batch_size=10, batch_rule=BatchRule(request.param), pushes_per_function=5
    )
    world = load_world("aws-2026")
    return Setting.of(world, job_of(workload), workload.spec.training, COUNTS, 1769)


def truth(setting, **changed):
    numbers = {"rate": 0.02, "spectrum": 1.0, "energy": 1.0, "noise": 1.0, "excess": 1.0}
    return Quadratic(**{**numbers, **changed}, reference_batch=setting.reference_batch)


def mean_traces(setting, model, epochs=20, lowest=LOWEST):
    n = setting.functions.astype(float)
    maps = quadratic.responses(model, setting.rule, n, setting.pushes, setting.batch, setting.delay)
    excess = quadratic.mean_excess(model, maps, epochs)
    return [fixed_trace(int(k), lowest + e) for k, e in zip(setting.functions, excess, strict=True)]


def test_a_fitted_quadratic_predicts_counts_that_it_has_not_seen(setting):
    traces = mean_traces(setting, truth(setting))
    found = fitting.fit_quadratic([traces[0], traces[2], traces[3]], setting)
    lowest = traces[0].losses[0] - found.excess
    for real, told in zip(traces, mean_traces(setting, found, lowest=lowest), strict=True):
        np.testing.assert_allclose(told.losses, real.losses, atol=0.02)


def test_runs_whose_functions_change_are_followed(setting):
    levels = np.array([3, 3, 1, 0, 2])
    law, model = fitting.QuadraticLaw(setting), truth(setting)
    x = np.array([np.log(model.rate), 1.0, 1.0, np.log(model.noise / setting.reference_batch), -1.0])
    n = setting.functions.astype(float)
    maps = quadratic.responses(model, setting.rule, n, setting.pushes, setting.batch, setting.delay)
    energy, wanted = model.amplitudes**2 / 2, [1.0]
    for level in levels:
        energy = maps.gain[level] ** 2 * energy + maps.spread[level] ** 2 / 2
        wanted.append(energy.sum())
    np.testing.assert_allclose(law.whole(x, 1.0, levels), wanted)
    assert law.steps(x, np.array(wanted), levels)[0] == pytest.approx(wanted[1])


def test_the_batch_exponent_can_be_fitted():
    workload = small_workload(samples=2400, batch_size=10, batch_rule=BatchRule.SPLIT, pushes_per_function=5)
    setting = Setting.of(load_world("aws-2026"), job_of(workload), workload.spec.training, COUNTS, 1769)
    traces = mean_traces(setting, truth(setting, batch_exponent=0.5))
    wrong = []
    for free in (False, True):
        law = fitting.QuadraticLaw(setting, free_batch=free)
        x = fitting.fit(law, setting, traces)
        gaps = []
        for trace in traces:
            observed = fitting.excess_of(trace, fitting.lowest_loss(x, traces))
            gaps.append(fitting.predict(law, x, observed, setting.levels(trace)) - observed)
        wrong.append(max(np.abs(gap).max() for gap in gaps))
    assert wrong[1] < 0.8 * wrong[0]
    assert x[4] > 0.2


def test_a_fitted_spotdnn_law_is_the_law_that_made_the_traces(setting):
    law, epochs = SpotDnn(0.0, -0.5, 300.0, 1.0, LOWEST), 20
    n, rng = setting.functions.astype(float), np.random.default_rng(0)
    progress = law.progress(n, setting.batch, setting.pushes.astype(float))
    traces = []
    for k, gained in zip(setting.functions, progress, strict=True):
        excess = 1 / (1 + gained * np.arange(epochs + 1))
        excess[1:] *= np.exp(0.02 * rng.standard_normal(epochs))
        traces.append(fixed_trace(int(k), LOWEST + excess))
    found = fitting.fit_spotdnn(traces, setting)
    strength = found.strength(n, setting.batch) / law.strength(n, setting.batch)
    np.testing.assert_allclose(strength, 1, rtol=0.15)
    assert found.lowest == pytest.approx(LOWEST, abs=0.03)
    assert 0.01 < found.noise < 0.06


def test_an_exponential_does_not_know_n(setting):
    traces = [fixed_trace(n, LOWEST + np.exp(-0.3 * np.arange(16))) for n in COUNTS]
    law = ExponentialLaw()
    x = fitting.fit(law, setting, traces)
    assert np.exp(x[0]) == pytest.approx(0.3, rel=0.1)
    steps = law.steps(x, np.array([1.0, 0.5]), np.array([0]))
    assert steps[0] == law.steps(x, np.array([1.0, 0.5]), np.array([3]))[0]


def test_what_rises_beyond_all_law_is_left_out(setting):
    trace = fixed_trace(4, np.array([1.0, 0.8, np.nan, 0.7]))
    assert len(fitting.excess_of(trace, LOWEST)) == 2
    x = fitting.fit(SpotDnnLaw(setting), setting, [trace])
    assert np.isfinite(x).all()


def test_faults_are_refused(setting):
    with pytest.raises(UsageError, match="setting lacks"):
        fitting.fit_spotdnn([fixed_trace(5, np.array([1.0, 0.9]))], setting)
    with pytest.raises(UsageError, match="no trace has an epoch"):
        fitting.fit_quadratic([fixed_trace(4, np.array([1.0]))], setting)


def test_the_setting_is_that_of_the_laws():
    workload = small_workload(
        samples=2400, batch_size=10, update_rule=UpdateRule.STALENESS, staleness_scale=7
    )
    job, world = job_of(workload), load_world("aws-2026")
    setting = Setting.of(world, job, workload.spec.training, (12, 1, 12), 1769)
    assert setting.functions.tolist() == [1, 12]
    assert setting.pushes.tolist() == [240, 240]
    assert setting.batch.tolist() == [10, 10]
    assert setting.staleness_scale == 7
    assert setting.delay[0] == 0 < setting.delay[1]
