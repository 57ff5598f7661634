import numpy as np
import pytest

from siren.simulator import fitted
from siren.simulator.fitted import RESNET110, SpotDnn


def test_epochs_at_one_count_follow_the_published_curve():
    n, batch, pushes = np.array([1.0, 4.0, 16.0]), np.full(3, 1024.0), 390.0
    start = RESNET110.loss(n, batch, np.zeros(3))
    progress = RESNET110.progress(n, batch, np.full(3, pushes))
    for k in range(3):
        run = fitted.mean_excess(float(start[k] - RESNET110.lowest), progress[[k]], 20)[0]
        curve = RESNET110.loss(n[k], batch[k], pushes * np.arange(21)) - RESNET110.lowest
        np.testing.assert_allclose(run, curve, rtol=1e-12)


@pytest.mark.parametrize(("functions", "updates"), [(1, 6.8e3), (4, 14.5e3), (16, 29.8e3)])
def test_published_updates_to_loss_0_8_are_reproduced(functions, updates):
    found = RESNET110.strength(np.array([functions]), np.array([1024.0])) / 0.3 - RESNET110.offset
    assert found[0] == pytest.approx(updates, rel=0.01)


def test_free_communication_gives_time_as_inverse_root_and_cost_as_root_of_n():
    law = SpotDnn(offset=0.0, per_sample=0.0, scale=50.0, heterogeneity=1.0, lowest=0.2)
    n = np.array([1.0, 4.0, 16.0, 64.0, 256.0])
    progress = law.progress(n, np.full(5, 32.0), np.full(5, 1000.0))
    epochs = (1 / 0.01 - 1 / 2.0) / progress
    time = epochs / n  # an epoch's fixed work, divided
    cost = n * time
    np.testing.assert_allclose(np.diff(np.log(time)) / np.diff(np.log(n)), -0.5, atol=1e-12)
    np.testing.assert_allclose(np.diff(np.log(cost)) / np.diff(np.log(n)), 0.5, atol=1e-12)


def test_an_epoch_without_noise_is_the_mean_run():
    rng = np.random.default_rng(0)
    assert fitted.advance(0.7, 0.4, 0.0, rng) == pytest.approx(
        fitted.mean_excess(0.7, np.array([0.4]), 1)[0, 1]
    )


def test_noise_multiplies_the_excess():
    rng = np.random.default_rng(0)
    logs = np.log([fitted.advance(1.0, 0.0, 0.1, rng) for _ in range(4000)])
    assert logs.mean() == pytest.approx(0.0, abs=0.01)
    assert logs.std() == pytest.approx(0.1, rel=0.05)
