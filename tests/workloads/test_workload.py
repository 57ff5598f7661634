from __future__ import annotations

import numpy as np
import pytest

from siren.errors import SirenError, WorkloadError
from siren.workloads.registry import load_workload

ROWS = np.arange(5)


def test_gradient_is_the_models_own_on_the_rows(user):
    workload = load_workload(str(user))
    params = np.array([1, 2, 3], dtype=np.float32)
    rows = np.array([7, 3, 3, 59])
    loss, gradient = workload.loss_and_grad(params, rows)
    data = workload.dataset
    expected = workload.model.loss_and_grad(params, data.train_features[rows], data.train_labels[rows])
    assert loss == expected[0]
    np.testing.assert_array_equal(gradient, expected[1])
    assert (workload.size, workload.samples, workload.name) == (3, 60, "line")
    assert "3 parameters" in repr(workload)


def test_check_passes_a_sound_model(user):
    load_workload(str(user)).check()


def test_evaluation_in_chunks_equals_evaluation_at_once(user, monkeypatch):
    workload = load_workload(str(user))
    params = np.array([0.5, -0.5, 0.1], dtype=np.float32)
    whole = workload.model.evaluate(
        params, workload.dataset.heldout_features, workload.dataset.heldout_labels
    )
    monkeypatch.setattr("siren.workloads.workload._MIN_CHUNK_ROWS", 3)
    monkeypatch.setattr("siren.workloads.workload._CHUNK_VALUES", 9)
    loss, accuracy = workload.evaluate(params)
    assert loss == pytest.approx(whole[0], rel=1e-6)
    assert np.isnan(accuracy)


INIT = "return np.zeros(3, dtype=np.float32)"
GRADIENT = "return float((error**2).mean()), 2 * features.T @ error / np.float32(len(labels))"
EVALUATE = 'return float(((features @ params - labels) ** 2).mean()), float("nan")'


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (INIT, "raise RuntimeError('no luck')", r"model\.py:\d+: Model\.init raised RuntimeError: no luck"),
        (INIT, "return np.zeros(3)", "init returned dtype float64"),
        (INIT, "return np.zeros((3, 1), dtype=np.float32)", r"init returned shape \(3, 1\)"),
        (INIT, "return [0.0, 0.0, 0.0]", "init must return a numpy array, not list"),
        (INIT, "return np.full(3, np.nan, dtype=np.float32)", "init returned parameters with NaN"),
        (GRADIENT, "return 1 / 0, params", r"model\.py:\d+: Model\.loss_and_grad raised ZeroDivisionError"),
        (GRADIENT, "return float('nan'), params.copy()", "loss_and_grad returned the loss nan"),
        (GRADIENT, "return 0.0, params + np.inf", "loss_and_grad returned a gradient with NaN or infinite"),
        (GRADIENT, "return 0.0, params[:2]", r"loss_and_grad returned shape \(2,\)"),
        (GRADIENT, "return 0.0, params.astype(np.float64)", "loss_and_grad returned dtype float64"),
        (GRADIENT, "return 0.0, [1.0, 2.0, 3.0]", "AttributeError"),
        (GRADIENT, "return 0.0", "loss_and_grad raised TypeError"),
        (GRADIENT, "return 0.0, params", "returned the same array twice"),
        (GRADIENT, "params += 1; return 0.0, features[0] + 0", "changed the parameters"),
        (GRADIENT, "return 0.0, np.random.default_rng().random(3, np.float32)", "gave two answers"),
        (EVALUATE, "raise KeyError('x')", r"model\.py:\d+: Model\.evaluate raised KeyError: 'x'"),
        (EVALUATE, "return float('inf'), 0.5", "evaluate returned the loss inf"),
        (EVALUATE, "return 0.5, 7.0", "accuracy 7, which is not in"),
        (EVALUATE, "return 0.5", "evaluate raised TypeError"),
        ("loss += error * error", "loss += error", "kernel disagrees with loss_and_grad"),
        ("gradient[i] += 2", "gradient[i] += 3", "kernel disagrees with loss_and_grad"),
        ("gradient[:] = 0", "gradient[:2] = 0", "kernel disagrees with loss_and_grad"),
        ("loss = 0.0", "loss = undefined", r"model\.py:\d+: Model\.kernel raised NameError"),
    ],
)
def test_check_refuses_a_model_that_breaks_its_contract_in_one_line(user, old, new, says):
    user.change("model.py", old, new)
    with pytest.raises(WorkloadError, match=says) as caught:
        load_workload(str(user)).check()
    assert "\n" not in str(caught.value)
    if "raised" in says:
        assert caught.value.__cause__ is not None


def test_a_model_that_raises_during_training_is_a_workload_error(user):
    user.change("model.py", GRADIENT, "raise MemoryError('too large')")
    workload = load_workload(str(user))
    with pytest.raises(
        WorkloadError, match=r"model\.py:\d+: Model\.loss_and_grad raised MemoryError: too large"
    ):
        workload.loss_and_grad(workload.init(0), ROWS)


def test_a_wrong_shape_during_training_is_a_workload_error(user):
    user.change("model.py", GRADIENT, "return 0.0, np.zeros(4, dtype=np.float32)")
    workload = load_workload(str(user))
    with pytest.raises(WorkloadError, match="returned shape"):
        workload.loss_and_grad(workload.init(0), ROWS)


def test_nan_during_training_is_left_to_the_trainer(user):
    workload = load_workload(str(user))
    loss, gradient = workload.loss_and_grad(np.full(3, np.nan, dtype=np.float32), ROWS)
    assert np.isnan(loss)
    assert np.isnan(gradient).all()


def test_sirens_own_errors_pass_through_a_model(user):
    user.change("model.py", "import numpy as np", "import numpy as np\nfrom siren.errors import SirenError")
    user.change("model.py", EVALUATE, "raise SirenError('mine')")
    workload = load_workload(str(user))
    with pytest.raises(SirenError, match=r"^mine$"):
        workload.evaluate(workload.init(0))


@pytest.mark.parametrize("layout", ["None", "{'weight': 'wide'}", "{}", "[3]"])
def test_a_layout_that_is_none_is_refused(user, layout):
    user.change("model.py", 'self.layout = {"weight": feature_shape}', f"self.layout = {layout}")
    with pytest.raises(WorkloadError, match="layout"):
        load_workload(str(user))


def test_a_model_without_a_kernel_has_none(user):
    user.change("model.py", "def kernel(", "def other(")
    workload = load_workload(str(user))
    assert workload.kernel is None
    workload.check()
