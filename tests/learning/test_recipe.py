import numpy as np
import pytest

from siren._roots import root_folder
from siren.errors import UnknownNameError, UsageError
from siren.learning.recipe import Algorithm, Recipe, changed_recipe, load_recipe, recipe_names
from siren.policies.network import load_network
from siren.simulator.scenarios import scenario_names


def test_a_written_recipe_reads_as_itself(tmp_path, tiny):
    recipe = changed_recipe(tiny, {"algorithm": "a2c", "scenario": 'odd "name" ä.toml', "seed": None})
    path = tmp_path / "train.toml"
    path.write_text(recipe.to_toml(), encoding="utf-8")
    assert load_recipe(str(path)) == recipe
    assert recipe.algorithm is Algorithm.A2C


def test_every_shipped_agent_has_its_recipe_and_loads():
    assert "default-2026" in recipe_names()
    for name in recipe_names():
        folder = root_folder("agents") / name
        network, meta = load_network(folder)
        assert network.act(np.zeros(network.inputs, np.float32)).shape == (2,)
        recipe = load_recipe(name)
        assert recipe.seed == meta["seed"]
        assert recipe.scenario in scenario_names()
        assert sum(path.stat().st_size for path in folder.iterdir()) < 300_000


def test_an_unknown_recipe_is_refused():
    with pytest.raises(UnknownNameError, match="no recipe named 'nothing'"):
        load_recipe("nothing")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("steps = ", "not valid TOML"),
        ("steps = 0", "steps: Input should be greater"),
        ("speed = 1", "speed: Extra inputs"),
        ('algorithm = "dqn"', "algorithm: Input should be 'ppo'"),
        ("[optimiser]\nminibatch = 1000", "no multiple of the mini-batch 1000"),
    ],
)
def test_a_bad_file_is_refused_with_its_fault(tmp_path, text, said):
    path = tmp_path / "bad.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=said):
        load_recipe(str(path))


def test_a_file_that_is_not_there_is_refused():
    with pytest.raises(UsageError, match="cannot read recipe"):
        load_recipe("no.toml")


def test_an_option_that_cannot_be_is_refused():
    with pytest.raises(UsageError, match="seed: Input should be greater than or equal to 0"):
        changed_recipe(Recipe(), {"seed": -1})
