import numpy as np
import pytest

from siren.learning.wrappers import FailureReturn, HeldActions, ScaledState, scaled
from siren.policies.network import Network, held
from siren.simulator.observation import NAMES, OBSERVATION_SIZE, SIREN_HIGH
from siren.simulator.vector import HspVecEnv

HOLD = np.array([0.06, 0.2], np.float32)


def ends(env, action, steps=60):
    """(infos of ended episodes, their returns) of an action that is always the same."""
    env.reset()
    returns, found = np.zeros(env.num_envs), []
    for _ in range(steps):
        _, rewards, done, infos = env.step(np.tile(np.float32(action), (env.num_envs, 1)))
        returns += rewards
        for i in np.flatnonzero(done):
            found.append((infos[i], returns[i]))
            returns[i] = 0.0
    return found


def test_an_episode_returns_its_failure_counted_time(pool):
    found = ends(FailureReturn(HspVecEnv(pool, 16, seed=1), 2.0), (0.5, 0.5))
    failures = [value for info, value in found if not info["is_success"]]
    successes = [(1 - info["time_ratio"], value) for info, value in found if info["is_success"]]
    assert failures
    assert successes
    np.testing.assert_allclose(failures, -1.0, atol=1e-5)
    np.testing.assert_allclose(*zip(*successes, strict=True), atol=1e-5)


def test_the_papers_state_is_scaled_to_the_unit_interval(pool):
    env = ScaledState(HspVecEnv(pool, 8, seed=1, observation="siren"))
    first = env.reset()
    assert first.dtype == np.float32
    seen = [first]
    for _ in range(40):
        state, _, done, infos = env.step(np.zeros((8, 2), np.float32))
        seen += [state, *(infos[i]["terminal_observation"][None] for i in np.flatnonzero(done))]
    everything = np.concatenate(seen)
    assert (everything >= 0).all()
    assert (everything <= 1).all()
    assert everything.std(axis=0).min() > 0.0
    np.testing.assert_allclose(scaled(SIREN_HIGH), 1.0)


def test_small_changes_repeat_the_last_action(pool):
    env = HeldActions(HspVecEnv(pool, 4, seed=1), (0.06, 0.2))
    env.reset()
    seen, *_ = env.step(np.full((4, 2), -0.3, np.float32))
    last = seen[:, [NAMES.index("functions"), NAMES.index("memory")]]
    again, _, done, _ = env.step(last + np.float32([0.05, 0.15]))
    moved = again[:, [NAMES.index("functions"), NAMES.index("memory")]]
    assert not done.all()
    np.testing.assert_array_equal(moved[~done], last[~done])


@pytest.mark.parametrize(
    ("first_epoch", "action", "expected"),
    [
        (-1, (0.55, 0.35), (0.5, 0.2)),
        (-1, (0.57, 0.35), (0.57, 0.2)),
        (-1, (0.45, 0.45), (0.5, 0.45)),
        (1, (0.55, 0.35), (0.55, 0.35)),  # there is no last action
    ],
)
def test_each_part_of_an_action_is_held_on_its_own(first_epoch, action, expected):
    seen = np.zeros(OBSERVATION_SIZE, np.float32)
    seen[NAMES.index("functions")], seen[NAMES.index("memory")] = 0.5, 0.2
    seen[NAMES.index("first_epoch")] = first_epoch
    found = held(np.array(action, np.float32), seen, HOLD)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    network = Network(
        {
            "mlp.0.weight": np.zeros((2, OBSERVATION_SIZE), np.float32),
            "mlp.0.bias": np.array(action, np.float32),
            "hold": HOLD,
        }
    )
    np.testing.assert_array_equal(network.act(seen), found)
