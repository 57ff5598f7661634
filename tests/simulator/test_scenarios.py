import numpy as np
import pytest

from siren.errors import UnknownNameError, UsageError, WorldError
from siren.simulator.sampling import sample_job, sample_jobs
from siren.simulator.scenarios import Range, load_scenario, scenario_names
from siren.worlds import world_names
from siren.worlds.laws import RULES_OF_CHANNEL, memory_needed_mb


@pytest.fixture(scope="module")
def family(checkout):
    return (checkout / "envs/scenarios/family-2026.toml").read_text()


def write(tmp_path, text):
    path = tmp_path / "own.toml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", scenario_names())
def test_every_shipped_scenario_gives_jobs_that_keep_its_ranges(name):
    scenario = load_scenario(name)
    for job in sample_jobs(scenario, 5, seed=0):
        spec, limits = job.spec, job.spec.world.limits
        assert spec.world.name in scenario.worlds
        assert spec.job.update_rule in RULES_OF_CHANNEL[spec.job.channel]
        assert spec.initial_loss > spec.target_loss > 0
        assert 1 <= spec.functions_ref <= min(spec.job.functions_max, limits.functions_max)
        assert spec.memory_ref_mb in limits.memory_grid
        assert spec.memory_ref_mb >= memory_needed_mb(spec.job, spec.job.functions_max)
        assert 0 < spec.reference_usd <= spec.budget_usd
        assert spec.reference_s > 0


def test_worlds_do_not_take_scenario_files_for_worlds():
    assert not set(scenario_names()) & set(world_names())


def test_equal_seeds_give_equal_jobs_and_others_do_not():
    scenario = load_scenario("fitted-2026")
    first, again, other = (sample_job(scenario, np.random.default_rng(s)) for s in (1, 1, 2))
    assert first.dynamics == again.dynamics
    assert first.spec.budget_usd == again.spec.budget_usd
    assert first.spec.job == again.spec.job
    assert first.spec.job != other.spec.job


def test_the_world_can_be_named():
    job = sample_job(load_scenario("fitted-2026"), np.random.default_rng(0), "lambdaml-2021")
    assert job.spec.world.name == "lambdaml-2021"


def test_unknown_scenarios_suggest_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'family-2026'"):
        load_scenario("famly-2026")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(WorldError, match="cannot read scenario"):
        load_scenario(str(tmp_path / "none.toml"))


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("[goal]", "[goal]\nsurprise = 1", "goal.surprise"),
        ("low = 1.1, high = 4.0", "low = 5.0, high = 4.0", "is above high"),
        ("low = 1.1, high = 4.0", "low = 0.0, high = 4.0", "logarithmic"),
        ('dynamics = "quadratic"', 'dynamics = "fitted"', "ranges of dynamics"),
        ('"aws-2026", ', '"aws-1999", ', "unknown worlds aws-1999"),
        ("additive = 0.6", "additiv = 0.6", "update_rules"),
        ('title = "', "title = ", "not valid TOML"),
    ],
)
def test_a_file_that_breaks_the_schema_is_refused(tmp_path, family, old, new, problem):
    assert old in family
    with pytest.raises(WorldError, match=problem):
        load_scenario(write(tmp_path, family.replace(old, new)))


def test_ranges_without_a_job_are_refused(tmp_path, checkout):
    text = (
        (checkout / "envs/scenarios/fitted-2026.toml")
        .read_text()
        .replace("epochs = { low = 4, high = 45", "epochs = { low = 98.1, high = 98.9")
    )
    scenario = load_scenario(write(tmp_path, text))
    with pytest.raises(UsageError, match="widen its ranges"):
        sample_job(scenario, np.random.default_rng(0))


def test_draws_stay_in_their_range():
    rng = np.random.default_rng(0)
    log, linear = Range(low=1, high=100), Range(low=0, high=2, scale="linear")
    values = [log.draw(rng) for _ in range(2000)]
    assert min(values) >= 1
    assert max(values) <= 100
    assert np.median(values) == pytest.approx(10, rel=0.15)
    assert np.mean([linear.draw(rng) for _ in range(2000)]) == pytest.approx(1, rel=0.05)
    assert isinstance(log.draw_count(rng), int)
