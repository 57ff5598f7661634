"""The command as users call it; heavy imports are shared by calling `main` in this process."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from siren.errors import AgentError
from siren.learning import display, training
from siren.learning.jobs import sample_pool
from siren.learning.record import CHECKPOINT, EVALUATIONS
from siren.learning.report import CARD, CURVE
from siren.policies.network import META, WEIGHTS, load_network
from siren.train_agent import TrainConfig, main

RECIPE = """
steps = 512
jobs = 4
[network]
layers = [8]
[optimiser]
environments = 8
rollout = 16
minibatch = 64
passes = 2
[evaluation]
every = 128
jobs = 4
test_jobs = 4
repeats = 1
"""


@pytest.fixture(scope="module", autouse=True)
def _sampled_once():
    """Equal arguments give equal jobs (`tests/learning/test_jobs.py`): trainings here share them."""
    pools = {}

    def sampled(source, *arguments):
        key = arguments[:-1]  # the last one is told the progress
        if key not in pools:
            pools[key] = sample_pool(source, *arguments)
        return pools[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "sample_pool", sampled)
        yield


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(RECIPE, encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, recipe):
    """(agent folder, exit code, stdout, stderr) of a whole training."""
    folder = tmp_path_factory.mktemp("agents") / "first"
    return folder, *call(recipe=recipe, out=folder)


def call(**options):
    stdout, stderr = io.StringIO(), io.StringIO()
    code = main(TrainConfig(**options), stdout, stderr)
    return code, stdout.getvalue(), stderr.getvalue()


def tensors(folder):
    return load_file(folder / WEIGHTS)


def same(first, second):
    return first.keys() == second.keys() and all(np.array_equal(first[k], second[k]) for k in first)


def test_an_agent_folder_is_whole(trained):
    folder, code, stdout, stderr = trained
    assert code == 0
    assert "speed-up" in stdout
    assert "512 steps" in stderr
    files = {path.name for path in folder.iterdir()}
    assert files == {WEIGHTS, META, CARD, CURVE, EVALUATIONS, "train.toml", "tensorboard"}
    assert {(folder / name).stat().st_mode & 0o777 for name in (WEIGHTS, META)} == {0o644}
    assert any(path.name.startswith("events") for path in (folder / "tensorboard").iterdir())
    network, meta = load_network(folder)
    assert meta["seed"] == 0
    assert meta["test"]["jobs"] == 4
    assert np.isfinite(network.act(np.zeros(network.inputs, np.float32))).all()
    card = (folder / CARD).read_text(encoding="utf-8")
    assert f"{meta['test']['speedup']:.3f} [" in card
    assert _steps_done(folder) == [0, 128, 256, 384, 512]


def test_a_recipe_repeats_an_agent(trained):
    folder, again = trained[0], Path("again")
    code, stdout, _ = call(recipe=str(folder / "train.toml"), out=again, print_json=True)
    assert code == 0
    assert json.loads(stdout)["test"]["all jobs"] == load_network(folder)[1]["test"]
    assert same(tensors(folder), tensors(again))


def test_an_interrupted_training_goes_on_from_its_checkpoint(recipe, monkeypatch):
    folder = Path("interrupted")

    def stop_after(self, evaluation, kept):
        if evaluation.steps >= 256:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(display.TrainingDisplay, "evaluated", stop_after)
        code, _, stderr = call(recipe=recipe, out=folder)
    assert code == 130
    assert f"--resume {folder}" in stderr
    assert _steps_done(folder) == [0, 128, 256]
    load_network(folder)  # usable at any time
    code, _, stderr = call(resume=folder)
    assert code == 0, stderr
    assert _steps_done(folder) == [0, 128, 256, 384, 512]
    assert not (folder / CHECKPOINT).exists()

    code, _, stderr = call(resume=folder)
    assert code == 2
    assert "has ended" in stderr


def test_a_training_that_was_killed_before_its_first_checkpoint_begins_anew(trained):
    folder = Path("killed")
    folder.mkdir()
    (folder / "train.toml").write_bytes((trained[0] / "train.toml").read_bytes())
    assert call(resume=folder)[0] == 0
    assert same(tensors(trained[0]), tensors(folder))


def _steps_done(folder):
    with (folder / EVALUATIONS).open(encoding="utf-8") as file:
        return [int(row["steps"]) for row in csv.DictReader(file)]


def test_an_agent_of_the_papers_state_says_that_runs_do_not_take_it(recipe):
    code, _, stderr = call(recipe=recipe, out=Path("raw"), observation="siren", steps=128)
    assert code == 0
    assert "siren.run does not take it" in stderr
    with pytest.raises(AgentError, match="other spaces"):
        load_network(Path("raw"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"recipe": "nothing"}, "no recipe named 'nothing'"),
        ({"scenario": "famly-2026"}, "did you mean 'family-2026'?"),
        ({"scenario": "no.toml"}, "cannot read scenario"),
        ({"algorithm": "dqn"}, "algorithm: Input should be 'ppo'"),
        ({"steps": 0}, "steps: Input should be greater than or equal to 1"),
        ({"resume": Path("nowhere")}, "there is no train.toml"),
        ({"start": "defualt-2026"}, "did you mean 'default-2026'?"),
        (
            {"resume": Path("nowhere"), "from_runs": (Path("run"),)},
            "--from-runs cannot be changed on --resume",
        ),
        ({"resume": Path("nowhere"), "seed": 1}, "--seed cannot be changed on --resume"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(options, said):
    code, stdout, stderr = call(**options)
    assert code == 2
    assert stdout == ""
    assert said in stderr
    assert "Traceback" not in stderr
    assert not Path("agents").exists()


def test_a_folder_with_something_in_it_is_refused_and_kept():
    Path("taken").mkdir()
    Path("taken/mine.txt").write_text("precious", encoding="utf-8")
    code, _, stderr = call(out=Path("taken"))
    assert code == 2
    assert "is taken" in stderr
    assert [path.name for path in Path("taken").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x05\x06" + bytes(18)])
def test_a_broken_checkpoint_is_refused(recipe, content):
    folder = Path("broken")
    folder.mkdir()
    (folder / "train.toml").write_text(Path(recipe).read_text(encoding="utf-8"), encoding="utf-8")
    (folder / CHECKPOINT).write_bytes(content)
    code, _, stderr = call(resume=folder)
    assert code == 2
    assert f"{CHECKPOINT} is damaged" in stderr


def test_deciding_imports_no_torch():
    code = (
        "import sys; from siren.policies.network import Network; import numpy as np;"
        "n = Network({'mlp.0.weight': np.ones((2, 23), np.float32), 'mlp.0.bias': np.zeros(2, np.float32)});"
        "n.act(np.zeros(23, np.float32)); print('torch' in sys.modules, 'stable_baselines3' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.parametrize("package", ["torch", "tensorboard"])
def test_a_missing_package_is_named_with_its_extra(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    for name in ("training", "display", "report"):  # imported anew
        monkeypatch.delitem(sys.modules, f"siren.learning.{name}", raising=False)
    code, _, stderr = call()
    assert code == 2
    assert f"{package} is not installed" in stderr
    assert ".[train]" in stderr
    assert not Path("agents").exists()
