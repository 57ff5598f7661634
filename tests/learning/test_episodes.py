import numpy as np
import pytest

from siren.learning.episodes import FAILURE_RATIO, Episodes, acting, compare, play, play_reference
from siren.policies.network import Network
from siren.simulator.observation import OBSERVATION_SIZE


def constant(action):
    return lambda seen, running: np.tile(np.float32(action), (len(seen), 1))


def episodes(ratios, success=None):
    ratios = np.array(ratios, float)
    return Episodes(np.ones_like(ratios, bool) if success is None else np.array(success), ratios, 0 * ratios)


def test_equal_policies_meet_equal_noise(pool):
    first, second = play(pool, constant((0, 0)), 3, seed=4), play_reference(pool, 3, seed=4)
    np.testing.assert_array_equal(first.time_ratio, second.time_ratio)
    assert len(np.unique(first.time_ratio)) == first.time_ratio.size


def test_noise_does_not_depend_on_what_other_episodes_do(pool):
    """An episode that ends early must not shift the noise of the others."""

    def stops_first_job(seen, running):
        actions = np.zeros((len(seen), 2), np.float32)
        actions[0] = 1.0
        return actions

    changed, plain = play(pool, stops_first_job, 1, seed=4), play_reference(pool, 1, seed=4)
    assert changed.time_ratio[0] != plain.time_ratio[0]
    np.testing.assert_array_equal(changed.time_ratio[1:], plain.time_ratio[1:])


def test_the_reference_takes_about_the_reference_time(pool):
    played = play_reference(pool, 20, seed=0)
    assert 0.7 < np.median(played.time_ratio[played.success]) < 1.4
    assert (played.spent <= 1 + 1e-9).all()


def test_a_failure_counts_as_two_reference_times():
    played = episodes([[0.1, 1.0]], [[False, True]])
    np.testing.assert_array_equal(played.counted_ratio, [[FAILURE_RATIO, 1.0]])


def test_the_speedup_is_the_geometric_mean_over_jobs_of_mean_times():
    found = compare(episodes([[0.5, 0.5], [1.0, 3.0]]), episodes([[1.0, 1.0], [1.0, 1.0]]))
    assert found.speedup == pytest.approx(1.0)  # sqrt(2 x 1/2)
    assert found.low < 1.0 < found.high
    assert found.jobs == 2


def test_a_recurrent_network_remembers_each_episode_on_its_own(pool, rng):
    hidden = 4
    tensors = {
        "lstm.weight_ih": rng.normal(size=(4 * hidden, OBSERVATION_SIZE)),
        "lstm.weight_hh": rng.normal(size=(4 * hidden, hidden)),
        "lstm.bias": rng.normal(size=4 * hidden),
        "mlp.0.weight": rng.normal(size=(2, hidden)),
        "mlp.0.bias": np.zeros(2),
    }
    network = Network({name: tensor.astype(np.float32) for name, tensor in tensors.items()})
    act, alone = acting(network), Network(network.tensors)
    seen = rng.uniform(-1, 1, (6, 3, OBSERVATION_SIZE)).astype(np.float32)
    for step in seen:
        found = act(step, np.array([True, True, False]))
        np.testing.assert_array_equal(found[1], alone.act(step[1]))
        assert not found[2].any()
