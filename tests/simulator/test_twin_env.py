import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from siren.errors import ChannelError, UsageError
from siren.simulator import twin_jobs as twin_jobs_module
from siren.simulator.core import Col
from siren.simulator.observation import NAMES
from siren.simulator.scenarios import load_sgd_scenario, scenario_names
from siren.simulator.small_models import Softmax, largest_curvature, make_dataset
from siren.simulator.twin_env import HspTwinEnv
from siren.simulator.twin_jobs import family_job, family_workload, loss_curve, named_job, rewind
from siren.testing.tiny import write_tiny_workload
from siren.types import Action, UpdateRule
from siren.worlds import world_names

ID = "siren.simulator:siren/HspTwin-v0"
ZERO = np.zeros(2, np.float32)


@pytest.fixture(scope="module")
def twin_jobs():
    rng, scenario = np.random.default_rng(0), load_sgd_scenario("small-2026")
    return [family_job(scenario, rng, "aws-2026") for _ in range(2)]


@pytest.mark.parametrize("world", world_names())
def test_both_checkers_pass_in_every_world(world, tmp_path):
    folder = write_tiny_workload(tmp_path / "tiny")
    env = gymnasium.make(ID, workload=str(folder), world=world, memory_ref_mb=1024)
    check_env(env.unwrapped)
    sb3_check_env(env.unwrapped)


@pytest.mark.parametrize("world", world_names())
@pytest.mark.parametrize("scenario", scenario_names(sgd=True))
def test_both_checkers_pass_in_every_world_and_scenario(world, scenario, monkeypatch):
    monkeypatch.setattr(twin_jobs_module, "LADDER_EPOCHS", 10)  # every reset generates a job
    monkeypatch.setattr(twin_jobs_module, "LADDER_COUNTS", 3)
    env = gymnasium.make(ID, scenario=scenario, world=world)
    check_env(env.unwrapped, skip_render_check=True)
    sb3_check_env(env.unwrapped, skip_render_check=True)
    assert env.unwrapped.job.spec.world.name == world


def test_the_world_of_a_generated_job_is_one_of_the_scenarios():
    scenario = load_sgd_scenario("small-2026")
    rng = np.random.default_rng(1)
    found = {family_job(scenario, rng).spec.world.name for _ in range(4)}
    assert len(found) > 1
    assert found <= set(scenario.worlds)


def test_scenarios_of_simulated_jobs_are_refused():
    with pytest.raises(UsageError, match=r"family-2026 are simulated: use siren/Hsp-v0"):
        HspTwinEnv(scenario="family-2026")


@pytest.mark.parametrize(("observation", "mode"), [("default", "rgb_array"), ("siren", "ansi")])
def test_both_checkers_pass_on_generated_jobs(twin_jobs, observation, mode):
    env = gymnasium.make(ID, jobs=twin_jobs, observation=observation, render_mode=mode)
    check_env(env.unwrapped)
    sb3_check_env(env.unwrapped)


def episode(env, actions, seed):
    env.reset(seed=seed)
    steps = []
    for action in actions:
        steps.append(env.step(np.asarray(action, np.float32)))
        if steps[-1][2] or steps[-1][3]:
            break
    return steps


def test_an_episode_is_the_twins_own_run(twin_jobs):
    env = HspTwinEnv(jobs=twin_jobs[:1])
    steps = episode(env, [ZERO] * 5, seed=3)
    twin = env.job.twin
    seed, losses = twin.seed, [info["loss"] for *_, info in steps]
    rewind(twin, seed)
    action = Action(steps[0][4]["functions"], steps[0][4]["memory_mb"])
    np.testing.assert_array_equal(loss_curve(twin, action, len(steps))[1:], losses)


def test_equal_seeds_give_equal_episodes_and_others_do_not(twin_jobs):
    env = HspTwinEnv(jobs=twin_jobs[:1])
    actions = [(0.0, 0.0), (0.3, -0.2), (-0.5, 0.5)]
    first, again, other = (episode(env, actions, seed) for seed in (1, 1, 2))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a[0], b[0])
        assert a[4] == b[4]
    assert first[0][4] != other[0][4]


@pytest.mark.parametrize("action", [(0, 0), (1, 1), (-1, -1)])
def test_the_budget_is_never_exceeded(twin_jobs, action):
    env = HspTwinEnv(jobs=twin_jobs)
    for seed in range(2):
        for *_, info in episode(env, [action] * 60, seed):
            assert info["budget_left_usd"] >= 0
        assert info["spent_usd"] <= env.job.spec.budget_usd


def test_the_reference_action_mostly_finishes_in_the_reference_time(twin_jobs):
    env = HspTwinEnv(jobs=twin_jobs)
    ratios = []
    for seed in range(4):
        *_, info = (step[4] for step in episode(env, [ZERO] * 200, seed))
        if info["is_success"]:
            ratios.append(info["elapsed_s"] / env.job.spec.reference_s)
    assert len(ratios) >= 3
    assert 0.7 < np.median(ratios) < 1.4


def test_gradients_tell_a_noise_floor_and_the_first_functions_are_cold(twin_jobs):
    env = HspTwinEnv(jobs=twin_jobs[:1])
    episode(env, [ZERO], seed=0)
    values = env._state.values[0]
    assert values[Col.FLOOR] > 0
    assert values[Col.COLD] == values[Col.FUNCTIONS]


def test_a_reference_that_does_not_reach_the_target_is_refused(tmp_path):
    folder = write_tiny_workload(tmp_path / "tiny", training={"target_loss": 0.01})
    with pytest.raises(UsageError, match=r"does not reach 0\.01"):
        named_job(str(folder), memory_ref_mb=1024)


def test_a_channel_that_cannot_carry_the_rule_is_refused(tmp_path):
    folder = write_tiny_workload(tmp_path / "tiny", training={"channel": "s3"})
    with pytest.raises(ChannelError, match="choose channel redis"):
        named_job(str(folder), overrides={"update_rule": UpdateRule.ADDITIVE})


def test_the_budget_of_a_named_job_can_be_given(tmp_path):
    folder = write_tiny_workload(tmp_path / "tiny")
    assert named_job(str(folder), memory_ref_mb=1024, budget_usd=0.25).spec.budget_usd == 0.25


def test_wrong_arguments_are_refused(twin_jobs):
    with pytest.raises(UsageError, match="jobs is empty"):
        HspTwinEnv(jobs=[])
    with pytest.raises(UsageError, match="beside a workload"):
        HspTwinEnv(workload="softmax-digits", jobs=twin_jobs)
    with pytest.raises(UsageError, match="call reset"):
        HspTwinEnv(jobs=twin_jobs).step(ZERO)
    with pytest.raises(UsageError, match="does not exist"):
        HspTwinEnv(jobs=twin_jobs).reset(options={"job": 9})
    with pytest.raises(UsageError, match="no list of jobs"):
        HspTwinEnv().reset(options={"job": 0})


def test_the_card_says_where_the_entries_are_explained():
    assert f"({len(NAMES)},)" in HspTwinEnv.__doc__


def test_generated_workloads_keep_the_contract_of_workloads():
    scenario = load_sgd_scenario("small-2026")
    for seed in range(5):
        workload = family_workload(scenario, np.random.default_rng(seed))
        workload.check()
        assert workload.samples in scenario.data.samples
        assert workload.dataset.classes in scenario.data.classes
        assert workload.spec.training.update_rule in scenario.update_rules


def test_the_largest_curvature_is_that_of_the_loss():
    data = make_dataset(np.random.default_rng(1), samples=400, heldout=10, inputs=5, classes=3)
    model, step = Softmax(5, 3), 1e-3
    columns = []
    for k in range(15):
        shift = np.zeros(15, np.float32)
        shift[k] = step
        up, down = (
            model.loss_and_grad(s * shift, data.train_features, data.train_labels)[1] for s in (1, -1)
        )
        columns.append((up - down) / (2 * step))
    largest = np.linalg.eigvalsh((np.array(columns) + np.array(columns).T) / 2)[-1]
    assert largest_curvature(data) == pytest.approx(largest, rel=0.02)
