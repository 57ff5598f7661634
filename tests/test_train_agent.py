"""The command as users call it; heavy imports are shared by calling `main` in this process."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from siren.errors import AgentError
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


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(RECIPE, encoding="utf-8")
    return str(path)


def call(**options):
    stdout, stderr = io.StringIO(), io.StringIO()
    code = main(TrainConfig(**options), stdout, stderr)
    return code, stdout.getvalue(), stderr.getvalue()


def tensors(folder):
    return load_file(folder / WEIGHTS)


def same(first, second):
    return first.keys() == second.keys() and all(np.array_equal(first[k], second[k]) for k in first)


def test_an_agent_folder_is_whole_and_its_recipe_repeats_it(recipe):
    first, second = Path("first"), Path("second")
    code, stdout, stderr = call(recipe=recipe, out=first, seed=3)
    assert code == 0
    assert "speed-up" in stdout
    assert "512 steps" in stderr
    files = {path.name for path in first.iterdir()}
    assert files == {WEIGHTS, META, CARD, CURVE, EVALUATIONS, "train.toml", "tensorboard"}
    assert any(path.name.startswith("events") for path in (first / "tensorboard").iterdir())
    network, meta = load_network(first)
    assert meta["seed"] == 3
    assert meta["test"]["jobs"] == 4
    assert np.isfinite(network.act(np.zeros(network.inputs, np.float32))).all()
    card = (first / CARD).read_text(encoding="utf-8")
    assert f"{meta['test']['speedup']:.3f} [" in card
    with (first / EVALUATIONS).open(encoding="utf-8") as file:
        assert [int(row["steps"]) for row in csv.DictReader(file)] == [0, 128, 256, 384, 512]

    code, stdout, _ = call(recipe=str(first / "train.toml"), out=second, print_json=True)
    assert code == 0
    assert json.loads(stdout)["test"]["all jobs"] == meta["test"]
    assert same(tensors(first), tensors(second))


def test_a_killed_training_goes_on_from_its_checkpoint(recipe):
    folder = Path("killed")
    command = [sys.executable, "-m", "siren.train_agent", "--recipe", recipe, "--out", str(folder)]
    process = subprocess.Popen(
        [*command, "--steps", "50_000_000"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 120
        while not _steps_done(folder) and time.monotonic() < deadline:
            time.sleep(0.02)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    done = _steps_done(folder)
    assert done
    load_network(folder)  # usable at any time
    text = (folder / "train.toml").read_text(encoding="utf-8")
    (folder / "train.toml").write_text(text.replace("50000000", str(done[-1] + 300)), encoding="utf-8")
    code, _, stderr = call(resume=folder)
    assert code == 0, stderr
    after = _steps_done(folder)
    assert after[: len(done)] == done
    assert after[-1] >= done[-1] + 300
    assert not (folder / CHECKPOINT).exists()

    code, _, stderr = call(resume=folder)
    assert code == 2
    assert "has ended" in stderr


def test_a_training_that_was_killed_before_its_first_checkpoint_begins_anew(recipe):
    first, second = Path("first"), Path("second")
    assert call(recipe=recipe, out=first, steps=128)[0] == 0
    second.mkdir()
    (second / "train.toml").write_bytes((first / "train.toml").read_bytes())
    assert call(resume=second)[0] == 0
    assert same(tensors(first), tensors(second))


def _steps_done(folder):
    try:
        with (folder / EVALUATIONS).open(encoding="utf-8") as file:
            steps = [int(row["steps"]) for row in csv.DictReader(file)]
    except FileNotFoundError:
        return []
    return steps if steps[-1] > 0 else []


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
def test_a_missing_package_is_named_with_its_extra(package):
    code = (
        f"import sys; sys.modules['{package}'] = None; from siren.train_agent import TrainConfig, main;"
        "sys.exit(main(TrainConfig()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"{package} is not installed" in done.stderr
    assert ".[train]" in done.stderr
    assert "Traceback" not in done.stderr
    assert not Path("agents").exists()
