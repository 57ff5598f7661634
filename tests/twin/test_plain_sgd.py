"""A single function is plain SGD bit for bit, under every rule and on both engines."""

from __future__ import annotations

import numpy as np
import pytest

from siren.hsp import quotas
from siren.twin import replay
from siren.twin.twin import Twin
from siren.types import Action, BatchRule, ChannelKind, UpdateRule
from siren.workloads.registry import load_workload
from siren.workloads.workload import Workload
from siren.worlds.laws import RULES_OF_CHANNEL
from tests.twin.jobs import make_twin, plan_of, rules_of, small_workload

EPOCHS = 4
STEPS = ((3, 0.5),)
"""The rate is halved from the third epoch on."""


def plain_sgd(twin: Twin, gradient, epochs: int) -> np.ndarray:
    """An independent loop over the rows that the twin's single function sees."""
    spec, job = twin.workload.spec.training, twin.job
    params = twin.workload.init(twin.seed)
    split = quotas.divide(job, 1)
    for epoch in range(1, epochs + 1):
        order = np.random.default_rng([twin.seed, epoch, 1])
        window = (epoch - 1) * job.samples % job.dataset_samples
        rows = replay.shuffle_shards(split.shards, window, job.dataset_samples, order)
        rate = spec.learning_rate * (0.5 if epoch >= 3 else 1.0)
        for low, high in zip(split.first_sample[:-1], split.first_sample[1:], strict=True):
            params = params - np.float32(rate) * gradient(params, rows[low:high])
    return params


def gradient_of(workload: Workload):
    return lambda params, rows: workload.loss_and_grad(params, rows)[1]


def after(twin: Twin, functions: int = 1, epochs: int = EPOCHS) -> np.ndarray:
    for _ in range(epochs):
        twin.run_epoch(plan_of(Action(functions, 512)))
    return twin.params


@pytest.mark.parametrize("batch_rule", BatchRule)
@pytest.mark.parametrize("update_rule", UpdateRule)
def test_one_function_is_plain_sgd_on_the_interpreted_engine(update_rule, batch_rule):
    workload = small_workload(**rules_of(batch_rule, update_rule), learning_rate_steps=STEPS)
    twin = make_twin(workload)
    wanted = plain_sgd(twin, gradient_of(workload), EPOCHS)
    np.testing.assert_array_equal(after(twin), wanted)
    assert not np.array_equal(wanted, workload.init(0))


@pytest.mark.parametrize("batch_rule", BatchRule)
@pytest.mark.parametrize("update_rule", UpdateRule)
def test_one_function_is_plain_sgd_on_the_compiled_engine(update_rule, batch_rule):
    workload = small_workload(**rules_of(batch_rule, update_rule), learning_rate_steps=STEPS, kernel=True)
    twin = make_twin(workload)
    wanted = plain_sgd(twin, twin._engine.gradient, EPOCHS)
    np.testing.assert_array_equal(after(twin), wanted)


@pytest.mark.parametrize("channel", ChannelKind)
def test_one_function_is_plain_sgd_over_every_channel(channel):
    for rule in sorted(RULES_OF_CHANNEL[channel]):
        workload = small_workload(update_rule=rule, channel=channel, learning_rate_steps=STEPS)
        twin = make_twin(workload)
        wanted = plain_sgd(twin, gradient_of(workload), 3)
        np.testing.assert_array_equal(after(twin, epochs=3), wanted)


def test_one_function_is_plain_sgd_when_epochs_are_windows_of_a_larger_set():
    workload = small_workload(samples_per_epoch=100, learning_rate_steps=STEPS)  # 240 rows: wraps around
    twin = make_twin(workload)
    wanted = plain_sgd(twin, gradient_of(workload), EPOCHS)
    np.testing.assert_array_equal(after(twin), wanted)


@pytest.mark.parametrize("update_rule", UpdateRule)
def test_both_engines_agree_to_float32_rounding(update_rule):
    params = []
    for kernel in (False, True):
        workload = small_workload(update_rule=update_rule, kernel=kernel, learning_rate=0.1)
        params.append(after(make_twin(workload, seed=3), functions=7))
    np.testing.assert_allclose(params[0], params[1], rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", ["logreg-higgs"])
def test_the_kernel_of_a_shipped_workload_agrees_with_its_own_gradient_in_the_twin(name):
    workload = load_workload(name, overrides={"update_rule": "additive", "channel": "redis"})
    params = []
    for kernel in (False, True):
        twin = make_twin(workload)
        if not kernel:
            twin._engine = replay.Interpreted(workload.loss_and_grad)
        twin.run_epoch(plan_of(Action(20, 512)))
        params.append(twin.params)
    np.testing.assert_allclose(params[0], params[1], rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("kernel", [False, True])
def test_gradient_statistics_of_one_function_equal_those_of_its_pushes(kernel):
    workload = small_workload(kernel=kernel)
    twin = make_twin(workload)
    seen: list[tuple[np.ndarray, np.ndarray]] = []

    def gradient(params, rows):
        g = twin._engine.gradient(params, rows)
        seen.append((params.astype(np.float64), g.astype(np.float64)))
        return g

    plain_sgd(twin, gradient, 1)
    told = twin.run_epoch(plan_of(Action(1, 512))).gradients
    points, gradients = (np.array(column) for column in zip(*seen, strict=True))
    half = len(gradients) // 2
    moved = points[half:].mean(axis=0) - points[:half].mean(axis=0)
    turned = gradients[half:].mean(axis=0) - gradients[:half].mean(axis=0)
    assert told.mean_square_norm == pytest.approx((gradients**2).sum(axis=1).mean(), rel=1e-4)
    assert told.square_norm_of_mean == pytest.approx((gradients.mean(axis=0) ** 2).sum(), rel=1e-3)
    assert told.secant_curvature == pytest.approx(turned @ moved / (moved @ moved), rel=1e-3)
