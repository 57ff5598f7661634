from __future__ import annotations

import builtins
import sys
from pathlib import Path

import numpy as np
import pytest

from siren.errors import MissingExtraError, WorkloadError

torch = pytest.importorskip("torch", reason="torch is not installed")

from siren.workloads.registry import load_workload  # noqa: E402
from siren.workloads.torch_model import TorchModel  # noqa: E402

FILE = Path("model.py")


def build(feature_shape, classes, width=5):
    return torch.nn.Sequential(
        torch.nn.Linear(feature_shape[0], width), torch.nn.Tanh(), torch.nn.Linear(width, classes)
    )


@pytest.fixture
def model():
    return TorchModel(build, (4,), 3, {"width": 6}, FILE)


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    return rng.normal(size=(7, 4)).astype(np.float32), rng.integers(0, 3, 7)


def fresh_loss(params, features, labels, width=6):
    """Loss, gradient and scores of a module of its own, by the usual calls of torch."""
    module = build((4,), 3, width)
    torch.nn.utils.vector_to_parameters(torch.from_numpy(params.copy()), module.parameters())
    scores = module(torch.from_numpy(features))
    loss = torch.nn.functional.cross_entropy(scores, torch.from_numpy(labels))
    gradients = torch.autograd.grad(loss, list(module.parameters()))
    return loss.item(), torch.cat([part.ravel() for part in gradients]).numpy(), scores.detach().numpy()


def test_gradient_equals_that_of_a_fresh_module(model, batch):
    for seed in range(3):  # parameters change on every call, and nothing is left from the call before
        params = model.init(np.random.default_rng(seed))
        loss, gradient = model.loss_and_grad(params, *batch)
        expected_loss, expected, _ = fresh_loss(params, *batch)
        assert loss == pytest.approx(expected_loss, rel=1e-6)
        np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-7)
        assert gradient.dtype == np.float32


def test_evaluation_counts_the_largest_score(model, batch):
    params = model.init(np.random.default_rng(0))
    loss, accuracy = model.evaluate(params, *batch)
    expected_loss, _, scores = fresh_loss(params, *batch)
    assert loss == pytest.approx(expected_loss, rel=1e-6)
    assert accuracy == pytest.approx((scores.argmax(axis=1) == batch[1]).mean())


def test_gradients_are_arrays_of_their_own_and_arguments_stay(model, batch):
    params = model.init(np.random.default_rng(0))
    before = params.copy()
    _, first = model.loss_and_grad(params, *batch)
    kept = first.copy()
    model.loss_and_grad(2 * params, *batch)
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_array_equal(params, before)


def test_layout_and_initial_parameters_follow_the_module(model):
    assert dict(model.layout) == {"0.weight": (6, 4), "0.bias": (6,), "2.weight": (3, 6), "2.bias": (3,)}
    state = torch.random.get_rng_state()
    first = model.init(np.random.default_rng(1))
    torch.manual_seed(99)
    np.testing.assert_array_equal(first, model.init(np.random.default_rng(1)))
    assert not np.array_equal(first, model.init(np.random.default_rng(2)))
    torch.random.set_rng_state(state)


def test_read_only_rows_are_accepted(model, batch):
    features, labels = batch
    features.flags.writeable = labels.flags.writeable = False
    params = model.init(np.random.default_rng(0))
    assert np.isfinite(model.loss_and_grad(params, features, labels)[0])


def test_shared_parameters_are_held_once(batch):
    def tied(feature_shape, classes):
        layer = torch.nn.Linear(4, 4)
        return torch.nn.Sequential(layer, layer, torch.nn.Linear(4, classes))

    model = TorchModel(tied, (4,), 3, {}, FILE)
    params = model.init(np.random.default_rng(0))
    assert params.shape == (20 + 15,)
    assert model.loss_and_grad(params, *batch)[1].shape == (35,)


def frozen(*_):
    module = torch.nn.Linear(4, 3)
    module.bias.requires_grad = False
    return module


@pytest.mark.parametrize(
    ("maker", "says"),
    [
        (lambda *_: torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Dropout(0.5)), "1 is dropout"),
        (
            lambda *_: torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3)),
            "running statistics",
        ),
        (lambda *_: torch.nn.Linear(4, 3).double(), "must be float32 and trainable; not so: weight, bias"),
        (frozen, "not so: bias"),
        (lambda *_: "a network", "must return a torch.nn.Module, not str"),
        (lambda *_: 1 / 0, "build raised ZeroDivisionError"),
    ],
)
def test_modules_that_cannot_be_trained_so_are_refused(maker, says):
    with pytest.raises(WorkloadError, match=says):
        TorchModel(maker, (4,), 3, {}, FILE)


TORCH_MODEL = """
import numpy as np
import torch


def load_dataset(samples):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(samples + 20, 3)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.float32)
    return x[:samples], y[:samples], x[samples:], y[samples:]


def build(feature_shape, classes):
    return torch.nn.Linear(feature_shape[0], classes)
"""


@pytest.fixture
def torch_user(user):
    user.model(TORCH_MODEL)
    user.change("workload.toml", "[training]", '[model]\nadapter = "torch"\n\n[training]')
    return user


def test_a_users_torch_folder_trains(torch_user):
    workload = load_workload(str(torch_user))
    workload.check()
    params = workload.init(0)
    before, _ = workload.evaluate(params)
    for _ in range(50):
        params = params - 0.5 * workload.loss_and_grad(params, np.arange(60))[1]
    assert workload.evaluate(params)[0] < 0.7 * before


def test_a_torch_model_that_raises_names_the_line(torch_user):
    torch_user.change("model.py", "feature_shape[0], classes", "feature_shape[0] + 1, classes")
    with pytest.raises(WorkloadError, match=r"loss_and_grad raised RuntimeError: mat1 and mat2"):
        load_workload(str(torch_user)).check()


def test_a_torch_folder_without_build_is_refused(torch_user):
    torch_user.change("model.py", "def build(", "def make(")
    with pytest.raises(WorkloadError, match="defines no build"):
        load_workload(str(torch_user))


def test_without_torch_the_extra_is_named(torch_user, monkeypatch):
    original = builtins.__import__

    def without_torch(name, *args, **kwargs):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_torch)
    with pytest.raises(MissingExtraError, match=r"siren-scheduler\[torch\]"):
        load_workload(str(torch_user))
    torch_user.change("model.py", "import torch\n", "")
    monkeypatch.delitem(sys.modules, "siren.workloads.torch_model")
    with pytest.raises(MissingExtraError, match=r"siren-scheduler\[torch\]"):
        load_workload(str(torch_user))
