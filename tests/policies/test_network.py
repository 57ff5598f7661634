"""The files of a policy; what it decides is tested with the agent that uses it."""

from pathlib import Path

import numpy as np
import pytest

from siren.policies.network import META, WEIGHTS, Network, Spaces, load_network, save_network
from siren.simulator.observation import NAMES


def constant(action) -> Network:
    return Network(
        {
            "mlp.0.weight": np.zeros((2, len(NAMES)), np.float32),
            "mlp.0.bias": np.array(action, np.float32),
            "hold": np.array([0.06, 0.2], np.float32),
        }
    )


def test_a_network_that_cannot_be_written_leaves_the_old_one_whole(tmp_path, monkeypatch):
    save_network(tmp_path, constant((0.5, -0.5)), Spaces(), {"seed": 1})

    def refuse(self, target):
        raise OSError("full")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", refuse)
        with pytest.raises(OSError, match="full"):
            save_network(tmp_path, constant((0.0, 0.0)), Spaces(), {"seed": 2})
    network, meta = load_network(tmp_path)
    np.testing.assert_array_equal(network.tensors["mlp.0.bias"], np.array([0.5, -0.5], np.float32))
    assert meta["seed"] == 1
    assert {path.name for path in tmp_path.iterdir()} == {WEIGHTS, META}


def test_a_network_tells_its_shape():
    network = constant((0.0, 0.0))
    assert network.hidden == ()
    assert network.hold == (0.06, 0.2)
