import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from siren.errors import UnknownNameError, UsageError
from siren.simulator.env import HspEnv
from siren.simulator.observation import NAMES
from siren.simulator.scenarios import scenario_names
from siren.worlds import world_names

ID = "siren.simulator:siren/Hsp-v0"


@pytest.mark.parametrize("world", world_names())
@pytest.mark.parametrize("scenario", scenario_names())
@pytest.mark.parametrize("observation", ["default", "siren"])
def test_both_checkers_pass_in_every_world_and_scenario(world, scenario, observation):
    env = gymnasium.make(ID, scenario=scenario, world=world, observation=observation)
    check_env(env.unwrapped, skip_render_check=True)
    sb3_check_env(env.unwrapped, skip_render_check=True)


def test_scenarios_of_real_sgd_are_refused():
    with pytest.raises(UsageError, match=r"small-2026 have real gradients: use siren/HspTwin-v0"):
        HspEnv(scenario="small-2026")


@pytest.mark.parametrize("mode", ["ansi", "rgb_array"])
def test_both_checkers_pass_with_every_render_mode(mode, fitted_jobs):
    env = gymnasium.make(ID, jobs=fitted_jobs, render_mode=mode)
    check_env(env.unwrapped)
    sb3_check_env(env.unwrapped)


def run(env, actions, **reset):
    observation, info = env.reset(**reset)
    steps = [(observation, 0.0, False, False, info)]
    for action in actions:
        steps.append(env.step(np.asarray(action, np.float32)))
        if steps[-1][2] or steps[-1][3]:
            break
    return steps


def test_equal_seeds_give_equal_episodes():
    env = HspEnv(scenario="fitted-2026")
    actions = [(0.1, 0.0), (-0.3, 0.5), (0.0, -1.0)]
    first, again = (run(env, actions, seed=5) for _ in range(2))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a[0], b[0])
        assert a[1:4] == b[1:4]
        assert a[4] == b[4]


def test_options_fix_the_job(jobs):
    env = HspEnv(jobs=jobs)
    env.reset(seed=0, options={"job": 3})
    assert env.job is jobs[3]
    env.reset(options={"job": jobs[5]})
    assert env.job is jobs[5]
    for wrong in (len(jobs), -1):
        with pytest.raises(UsageError, match="does not exist"):
            env.reset(options={"job": wrong})
    with pytest.raises(UsageError, match="no list of jobs"):
        HspEnv().reset(options={"job": 0})


def test_every_episode_is_another_job_without_options():
    env = HspEnv(scenario="fitted-2026")
    budgets = set()
    for _ in range(4):
        env.reset()
        budgets.add(env.job.spec.budget_usd)
    assert len(budgets) == 4


def test_info_tells_what_ran_and_why_it_ended(jobs):
    env = HspEnv(jobs=jobs)
    *_, (_, _, terminated, truncated, info) = run(env, [(0, 0)] * 300, seed=1)
    assert terminated or truncated
    assert info["end"] in {"target", "budget", "diverged", "limit"}
    assert info["is_success"] == (info["end"] == "target")
    assert info["spent_usd"] + info["budget_left_usd"] == pytest.approx(env.job.spec.budget_usd)


def test_pictures_show_every_epoch(jobs):
    text = HspEnv(jobs=jobs, render_mode="ansi")
    run(text, [(0, 0)] * 2, seed=0)
    assert len(text.render().splitlines()) == 1 + 3 + 1
    picture = HspEnv(jobs=jobs, render_mode="rgb_array")
    picture.reset(seed=0)
    before = picture.render()
    picture.step(np.zeros(2, np.float32))
    after = picture.render()
    assert before.dtype == np.uint8
    assert before.shape == after.shape == (400, 560, 3)
    assert (before != after).any()
    assert HspEnv(jobs=jobs).render() is None


def test_wrong_arguments_are_refused(jobs):
    with pytest.raises(UnknownNameError):
        HspEnv(scenario="none")
    with pytest.raises(UnknownNameError):
        HspEnv(world="none").reset()
    with pytest.raises(UsageError, match="no observation"):
        HspEnv(observation="raw")
    with pytest.raises(UsageError, match="no render mode"):
        HspEnv(render_mode="human")
    with pytest.raises(UsageError, match="jobs is empty"):
        HspEnv(jobs=[])
    with pytest.raises(UsageError, match="call reset"):
        HspEnv(jobs=jobs).step(np.zeros(2, np.float32))


def test_the_card_names_every_entry_of_the_observation():
    for name in NAMES:
        assert name in HspEnv.__doc__
