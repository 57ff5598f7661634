import numpy as np
import pytest
from stable_baselines3 import PPO

from siren.errors import UsageError
from siren.simulator.env import HspEnv
from siren.simulator.vector import HspVecEnv


def actions_of(rng, count):
    return rng.uniform(-0.3, 0.3, (count, 2)).astype(np.float32)


def test_one_environment_plays_the_same_episode_as_the_gymnasium_one(jobs):
    vector = HspVecEnv(jobs[:1], 1, seed=0)
    single = HspEnv(jobs=jobs[:1])
    first = vector.reset()
    observation, _ = single.reset(options={"job": 0})
    np.testing.assert_array_equal(first[0], observation)
    single._np_random = np.random.default_rng(0)
    single._np_random.random()  # the vector draws its first job
    rng = np.random.default_rng(1)
    for _ in range(200):
        action = actions_of(rng, 1)
        seen, rewards, dones, infos = vector.step(action)
        observation, reward, terminated, truncated, info = single.step(action[0])
        assert rewards[0] == pytest.approx(reward)
        assert dones[0] == (terminated or truncated)
        if dones[0]:
            np.testing.assert_array_equal(infos[0]["terminal_observation"], observation)
            assert infos[0]["TimeLimit.truncated"] == truncated
            assert infos[0]["end"] == info["end"]
            assert infos[0]["episode"]["l"] == info["epoch"]
            assert infos[0]["cost_usd"] == pytest.approx(info["spent_usd"])
            return
        np.testing.assert_array_equal(seen[0], observation)
    raise AssertionError("no episode ended")


def test_an_ended_environment_begins_another_job_at_once(jobs):
    env = HspVecEnv(jobs, 16, seed=0)
    env.reset()
    rng, ended = np.random.default_rng(0), 0
    for _ in range(60):
        seen, _, dones, infos = env.step(actions_of(rng, 16))
        assert env.observation_space.shape == seen[0].shape
        for i in np.flatnonzero(dones):
            ended += 1
            assert seen[i, 16] == 1  # first_epoch
            assert infos[i]["terminal_observation"][16] == -1 or infos[i]["episode"]["l"] == 0
        assert all(not info for info, done in zip(infos, dones, strict=True) if not done)
    assert ended > 16


def test_equal_seeds_give_equal_steps_and_seed_restarts_them(jobs):
    runs = []
    for env in (HspVecEnv(jobs, 4, seed=3), HspVecEnv(jobs, 4, seed=8)):
        env.seed(3)
        rng = np.random.default_rng(0)
        steps = [env.reset()]
        steps += [env.step(actions_of(rng, 4))[0] for _ in range(30)]
        runs.append(np.stack(steps))
    np.testing.assert_array_equal(*runs)


def test_returned_arrays_are_not_overwritten_by_the_next_step(jobs):
    env = HspVecEnv(jobs, 4)
    env.reset()
    rng = np.random.default_rng(0)
    seen, rewards, _, _ = env.step(actions_of(rng, 4))
    kept = seen.copy(), rewards.copy()
    env.step(actions_of(rng, 4))
    np.testing.assert_array_equal(seen, kept[0])
    np.testing.assert_array_equal(rewards, kept[1])


@pytest.mark.parametrize("observation", ["default", "siren"])
def test_ppo_learns_on_it_without_a_warning(jobs, observation):
    env = HspVecEnv(jobs, 8, observation=observation)
    model = PPO("MlpPolicy", env, n_steps=16, batch_size=64, n_epochs=1, seed=0, device="cpu")
    model.learn(512)
    assert model.num_timesteps >= 512
    assert len(model.ep_info_buffer) > 0


def test_the_environments_are_one_object(jobs):
    env = HspVecEnv(jobs, 3)
    assert env.get_attr("num_envs") == [3, 3, 3]
    assert env.get_attr("render_mode", [1]) == [None]
    assert env.env_is_wrapped(HspEnv) == [False] * 3
    with pytest.raises(UsageError):
        env.set_attr("x", 1)
    with pytest.raises(UsageError):
        env.env_method("reset")
    env.close()


def test_an_empty_pool_or_no_environment_is_refused(jobs):
    with pytest.raises(UsageError, match="at least one"):
        HspVecEnv([], 2)
    with pytest.raises(UsageError, match="at least one"):
        HspVecEnv(jobs, 0)
