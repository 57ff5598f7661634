import numpy as np
import pytest
import torch

from siren.errors import AgentError
from siren.learning.episodes import acting, compare, play, play_reference
from siren.learning.learners import (
    freeze_actor,
    give_network,
    load_learner,
    make_learner,
    network_of,
    save_learner,
)
from siren.learning.recipe import Algorithm, OptimiserSection, Recipe
from siren.learning.training import make_environment


def learner_of(recipe, pool, **changes):
    recipe = recipe.model_copy(update=changes)
    return make_learner(recipe, make_environment(recipe, pool, recipe.seed), recipe.seed)


def perturbed(learner):
    """A learner whose every weight counts; at the start the output layer is 0."""
    with torch.no_grad():
        for parameter in learner.policy.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return learner


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_the_first_policy_is_the_reference_action(tiny, pool, algorithm, rng):
    network = network_of(learner_of(tiny, pool, algorithm=algorithm))
    for observation in rng.uniform(-1, 1, (5, network.inputs)).astype(np.float32):
        assert not network.act(observation).any()


@pytest.mark.parametrize("algorithm", [Algorithm.PPO, Algorithm.A2C])
@pytest.mark.parametrize("observation", ["default", "siren"])
def test_numpy_and_sb3_choose_the_same_action(tiny, pool, algorithm, observation, rng):
    learner = perturbed(learner_of(tiny, pool, algorithm=algorithm, observation=observation))
    network = network_of(learner)
    seen = rng.uniform(0, 1, (200, network.inputs)).astype(np.float32)
    expected, _ = learner.predict(seen, deterministic=True)
    found = np.stack([network.act(row) for row in seen])
    assert np.abs(found).max() > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_numpy_and_sb3_choose_the_same_actions_with_a_memory(tiny, pool, rng):
    learner = perturbed(learner_of(tiny, pool, algorithm=Algorithm.RECURRENT_PPO))
    network = network_of(learner)
    for _episode in range(2):
        network.reset()
        state, start = None, np.ones(1, np.bool_)
        for row in rng.uniform(-1, 1, (30, network.inputs)).astype(np.float32):
            expected, state = learner.predict(row[None], state, start, deterministic=True)
            start = np.zeros(1, np.bool_)
            np.testing.assert_allclose(network.act(row), expected[0], atol=1e-5)


def test_ppo_finds_out_that_the_reference_is_far_too_small(misjudged_pool):
    recipe = Recipe(
        optimiser=OptimiserSection(
            environments=64, rollout=32, minibatch=512, passes=8, learning_rate=3e-3, anneal=False
        )
    )
    learner = learner_of(recipe, misjudged_pool)
    learner.learn(20_000)
    reference = play_reference(misjudged_pool, 4, seed=1)
    found = compare(play(misjudged_pool, acting(network_of(learner)), 4, seed=1), reference)
    assert found.speedup > 1.3
    assert found.low > 1.0


def test_a_saved_learner_goes_on_with_the_same_weights_and_optimiser(tiny, pool):
    first = learner_of(tiny, pool)
    first.learn(256)
    second = learner_of(tiny, pool, seed=5)
    load_learner(second, save_learner(first), first.num_timesteps)
    assert second.num_timesteps == first.num_timesteps
    for old, new in zip(first.policy.parameters(), second.policy.parameters(), strict=True):
        assert torch.equal(old, new)
    moments = [list(learner.policy.optimizer.state_dict()["state"].values()) for learner in (first, second)]
    assert moments[0]
    assert all(torch.equal(a["exp_avg"], b["exp_avg"]) for a, b in zip(*moments, strict=True))


def test_weights_of_another_network_are_refused(tiny, pool):
    other = save_learner(learner_of(tiny, pool))
    wider = tiny.network.model_copy(update={"layers": (16,)})
    with pytest.raises(AgentError, match="does not fit"):
        load_learner(learner_of(tiny, pool, network=wider), other, 0)


def test_a_learner_begins_as_the_network_that_it_is_given_and_warms_up_its_critic(tiny, pool):
    network = network_of(perturbed(learner_of(tiny, pool)))
    learner = learner_of(tiny, pool, seed=5)
    give_network(learner, network)
    freeze_actor(learner, True)
    critic = learner.policy.value_net.weight.detach().clone()
    learner.learn(256)
    found = network_of(learner).tensors
    assert all(np.array_equal(found[name], network.tensors[name]) for name in found)
    assert not torch.equal(critic, learner.policy.value_net.weight)
    freeze_actor(learner, False)
    learner.learn(256)
    assert not np.array_equal(network_of(learner).tensors["mlp.0.weight"], network.tensors["mlp.0.weight"])


def test_a_learner_of_another_shape_takes_no_network(tiny, pool):
    wider = tiny.model_copy(update={"network": tiny.network.model_copy(update={"layers": (16,)})})
    for other in (wider, tiny.model_copy(update={"algorithm": Algorithm.RECURRENT_PPO})):
        with pytest.raises(AgentError, match="other layers"):
            give_network(learner_of(other, pool), network_of(learner_of(tiny, pool)))
