"""The models under `workloads/`: gradients, kernels, and that a short run learns."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from siren.errors import DatasetError
from siren.twin.compiled import Compiled
from siren.workloads.registry import load_workload
from siren.workloads.workload import Workload

NUMPY = ["linear-ctr", "logreg-higgs", "mlp-mnist", "softmax-digits", "textcnn-spam"]
SIZES = {
    "lenet-mnist": (44_426, 60_000),
    "linear-ctr": (8_193, 200_000),
    "logreg-higgs": (29, 192_000),
    "mlp-mnist": (50_890, 60_000),
    "softmax-digits": (650, 1_500),
    "textcnn-spam": (67_169, 5_000),
}


@pytest.fixture(scope="module")
def shipped():
    """Loads shipped workloads once; where their data cannot be had, the test is skipped."""
    loaded: dict[str, Workload] = {}

    def load(name: str) -> Workload:
        if name == "lenet-mnist":
            pytest.importorskip("torch", reason="torch is not installed")
        if name not in loaded:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("siren.workloads.datasets.mnist.MIRRORS", ())
                try:
                    loaded[name] = load_workload(name)
                except DatasetError as error:
                    pytest.skip(f"real data cannot be had here: {error}")
        return loaded[name]

    return load


def moved(workload: Workload) -> np.ndarray:
    """Parameters away from the initial ones, where mistakes show."""
    return workload.init(1) + np.random.default_rng(1).normal(0, 0.05, workload.size).astype(np.float32)


@pytest.mark.parametrize("name", SIZES)
def test_it_passes_its_check_and_has_the_stated_size(shipped, name):
    workload = shipped(name)
    workload.check()
    assert (workload.size, workload.samples) == SIZES[name]
    assert workload.samples % workload.spec.training.batch_size == 0


@pytest.mark.parametrize("name", SIZES)
def test_sample_bytes_are_those_of_a_row_and_its_label(shipped, name):
    workload = shipped(name)
    row = workload.dataset.train_features[0].nbytes
    label = 1 if workload.dataset.classes > 2 else workload.dataset.train_labels.itemsize
    assert workload.spec.cost.sample_bytes == row + label


@pytest.mark.parametrize("name", NUMPY)
def test_the_gradient_is_the_slope_of_the_loss(shipped, name):
    workload = shipped(name)
    data, rng = workload.dataset, np.random.default_rng(2)
    rows = rng.integers(0, workload.samples, 16)
    features, labels = data.train_features[rows], data.train_labels[rows]
    params = moved(workload).astype(np.float64)  # the models compute in the precision they are given
    _, gradient = workload.model.loss_and_grad(params, features, labels)
    for _ in range(5):
        direction = rng.normal(size=workload.size)
        direction /= np.linalg.norm(direction)
        step = 1e-5 * direction
        above, _ = workload.model.loss_and_grad(params + step, features, labels)
        below, _ = workload.model.loss_and_grad(params - step, features, labels)
        assert (above - below) / 2e-5 == pytest.approx(gradient @ direction, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("name", ["linear-ctr", "logreg-higgs", "softmax-digits", "textcnn-spam"])
@pytest.mark.parametrize("scale", [0.0, 0.05, 30.0])
def test_the_kernel_agrees_with_numpy(shipped, name, scale):
    workload = shipped(name)
    data, rng = workload.dataset, np.random.default_rng(3)
    params = (scale * rng.normal(size=workload.size)).astype(np.float32)
    rows = rng.integers(0, workload.samples, 4)
    loss, gradient = workload.loss_and_grad(params, rows)
    found = np.full(workload.size, np.nan, dtype=np.float32)
    kernel_loss = workload.kernel(params, data.train_features, data.train_labels, rows, found)
    assert kernel_loss == pytest.approx(loss, rel=1e-4)
    np.testing.assert_allclose(found, gradient, rtol=1e-3, atol=2e-6 * max(1.0, np.abs(gradient).max()))


def test_the_compiled_kernel_agrees_with_numpy(shipped):
    import numba

    workload = shipped("logreg-higgs")
    kernel = numba.njit(fastmath={"reassoc", "contract", "arcp", "nsz"})(workload.kernel)
    params, rows = moved(workload), np.arange(64)
    loss, gradient = workload.loss_and_grad(params, rows)
    found = np.empty_like(params)
    data = workload.dataset
    assert kernel(params, data.train_features, data.train_labels, rows, found) == pytest.approx(
        loss, rel=1e-5
    )
    np.testing.assert_allclose(found, gradient, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", ["mlp-mnist", "lenet-mnist", "textcnn-spam"])
def test_initial_parameters_follow_the_seed(shipped, name):
    workload = shipped(name)
    np.testing.assert_array_equal(workload.init(4), workload.init(4))
    assert not np.array_equal(workload.init(4), workload.init(5))


def test_the_compiled_text_cnn_agrees_with_numpy_and_with_the_slope_of_its_loss(shipped):
    workload = shipped("textcnn-spam")
    data, params = workload.dataset, moved(workload)
    compiled = Compiled(workload.kernel, data.train_features, data.train_labels)
    rows = np.random.default_rng(4).integers(0, workload.samples, 10)
    gradient = compiled.gradient(params, rows)
    np.testing.assert_allclose(gradient, workload.loss_and_grad(params, rows)[1], rtol=1e-3, atol=1e-6)
    features, labels, exact = data.train_features[rows], data.train_labels[rows], params.astype(np.float64)
    ends = np.cumsum([0, *(np.prod(shape) for shape in workload.model.layout.values())])
    for start, end in pairwise(ends):  # each tensor by itself
        step = np.zeros(workload.size)
        step[start:end] = 1e-5 * np.sign(gradient[start:end])
        above, _ = workload.model.loss_and_grad(exact + step, features, labels)
        below, _ = workload.model.loss_and_grad(exact - step, features, labels)
        assert (above - below) / 2e-5 == pytest.approx(np.abs(gradient[start:end]).sum(), rel=2e-3)


def test_two_passes_of_sgd_teach_the_text_cnn(shipped):
    workload = shipped("textcnn-spam")
    data, training = workload.dataset, workload.spec.training
    compiled = Compiled(workload.kernel, data.train_features, data.train_labels)
    params, rng = workload.init(0), np.random.default_rng(0)
    always = data.heldout_labels.mean()
    guess = -(always * np.log(always) + (1 - always) * np.log(1 - always))
    for _ in range(2):
        for rows in rng.permutation(workload.samples).reshape(-1, training.batch_size):
            params = params - np.float32(training.learning_rate) * compiled.gradient(params, rows)
    loss, accuracy = workload.evaluate(params)
    assert loss < 0.7 * guess
    assert accuracy > 0.8 > 1 - always


def test_one_pass_of_sgd_takes_mlp_mnist_most_of_the_way(shipped):
    workload = shipped("mlp-mnist")
    training = workload.spec.training
    params = workload.init(0)
    for rows in np.random.default_rng(0).permutation(workload.samples).reshape(-1, training.batch_size):
        _, gradient = workload.loss_and_grad(params, rows)
        params -= np.float32(training.learning_rate) * gradient
    loss, accuracy = workload.evaluate(params)
    assert loss < 0.32
    assert accuracy > 0.9


def test_softmax_digits_reaches_its_target_by_plain_sgd(shipped):
    workload = shipped("softmax-digits")
    training = workload.spec.training
    params, rng = workload.init(0), np.random.default_rng(0)
    loss = np.inf
    for epoch in range(12):
        for rows in rng.permutation(workload.samples).reshape(-1, training.batch_size):
            params -= (
                np.float32(training.rate(epoch + 1, len(rows))) * workload.loss_and_grad(params, rows)[1]
            )
        loss, accuracy = workload.evaluate(params)
        if loss <= training.target_loss:
            break
    assert loss <= training.target_loss
    assert epoch >= 5
    assert accuracy > 0.93
