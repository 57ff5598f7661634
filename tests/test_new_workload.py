"""`python -m siren.new_workload`, and every command of docs/own_workload.md."""

from __future__ import annotations

import io
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from siren.new_workload import NewWorkloadConfig
from siren.new_workload import main as new_workload
from siren.run import RunConfig
from siren.run import main as run
from siren.workloads.registry import load_workload


def written(*, name: str = "mine", **settings) -> tuple[int, str, str]:
    stdout, stderr = io.StringIO(), io.StringIO()
    code = new_workload(NewWorkloadConfig(name, **settings), stdout, stderr)
    return code, stdout.getvalue(), stderr.getvalue()


def table(path: Path, rows: int = 200, label=lambda side: "yes" if side else "no", head: bool = True) -> Path:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(rows, 3)) * [1, 100, 0.01]
    lines = ["a,b,c,answer"] if head else []
    lines += [",".join([*(f"{v:.5g}" for v in row), str(label(row[0] > 0))]) for row in values]
    path.write_text("\n".join(lines) + "\n")
    return path


def trained(folder: str) -> dict:
    stdout, stderr = io.StringIO(), io.StringIO()
    config = RunConfig(budget="1", workload=folder, policy="fixed:4x1769", print_json=True)
    assert run(config, stdout, stderr) == 0, stderr.getvalue()
    return json.loads(stdout.getvalue())


@pytest.mark.parametrize("adapter", ["numpy", "torch"])
def test_a_new_workload_passes_its_check_and_trains_to_its_target(adapter):
    if adapter == "torch":
        pytest.importorskip("torch")
    code, stdout, stderr = written(adapter=adapter)
    assert (code, stderr) == (0, "")
    assert "python -m siren.run --workload ./mine --budget 1" in stdout
    workload = load_workload("./mine")
    workload.check()
    assert workload.spec.model.adapter == adapter
    assert workload.samples % workload.spec.training.batch_size == 0
    summary = trained("./mine")
    assert summary["stop_reason"] == "target_reached"
    assert summary["final_accuracy"] > 0.85


@pytest.mark.parametrize("head", [True, False])
def test_a_table_of_the_readers_own_is_copied_and_learned(tmp_path, head):
    code, _, stderr = written(data=table(tmp_path / "my.csv", head=head))
    assert (code, stderr) == (0, "")
    assert (tmp_path / "mine" / "data.csv").read_bytes() == (tmp_path / "my.csv").read_bytes()
    data = load_workload("./mine").dataset
    assert len(data.train_labels) + len(data.heldout_labels) == 200
    assert len(data.heldout_labels) == 40
    assert data.train_features.mean(axis=0) == pytest.approx(np.zeros(3), abs=1e-5)
    assert trained("./mine")["final_accuracy"] > 0.9


def test_arrays_of_any_shape_are_learned(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (120, 4, 4)).astype(np.uint8)
    images[:60, :2] //= 4
    np.savez(tmp_path / "images.npz", x=images, y=np.repeat([3, 7], 60))
    assert written(data=tmp_path / "images.npz")[0] == 0
    data = load_workload("./mine").dataset
    assert data.feature_shape == (4, 4)
    assert data.classes == 2
    assert trained("./mine")["final_accuracy"] > 0.9


def test_a_folder_that_exists_is_never_touched(tmp_path):
    (tmp_path / "mine").mkdir()
    code, _, stderr = written()
    assert code == 2
    assert "exists already" in stderr
    assert not list((tmp_path / "mine").iterdir())


def test_data_that_cannot_be_used_are_refused_and_leave_nothing(tmp_path):
    table(tmp_path / "numbers.csv", label=lambda side: np.random.default_rng().random())
    table(tmp_path / "words.csv").write_text("a,b\n" + "x,yes\ny,no\n" * 20)
    table(tmp_path / "short.csv", rows=5)
    np.savez(tmp_path / "odd.npz", things=np.zeros(3))
    cases = {
        "numbers.csv": "different labels",
        "words.csv": "line 2: 'x' is not a number",
        "short.csv": "at least 20",
        "odd.npz": "name its arrays",
        "none.csv": "no such file",
        "data.txt": "ends in .csv or .npz",
    }
    before = sorted(tmp_path.iterdir())
    for file, word in cases.items():
        code, stdout, stderr = written(data=tmp_path / file)
        assert (code, stdout) == (2, ""), file
        assert word in stderr
    assert sorted(tmp_path.iterdir()) == before


def test_labels_that_features_do_not_tell_still_make_a_folder_or_a_clear_error(tmp_path):
    rng = np.random.default_rng(1)
    table(tmp_path / "noise.csv", label=lambda side: rng.integers(2))
    code, _, stderr = written(data=tmp_path / "noise.csv")
    assert code in (0, 2)
    assert (code == 0) == (tmp_path / "mine").exists()
    assert code == 0 or "falls at none of the learning rates" in stderr


def called(words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)


def test_every_command_of_the_walk_through_works(checkout, tmp_path, monkeypatch):
    monkeypatch.setenv("SIREN_CACHE", str(tmp_path / "cache"))
    text = (checkout / "docs" / "own_workload.md").read_text()
    model = re.search(r"```python\n(.*?)```", text, re.S)[1]
    blocks = re.findall(r"```console\n(.*?)```", text, re.S)
    commands = [line[2:] for block in blocks for line in block.splitlines()]
    assert len(commands) == 6
    outputs = []
    for command in commands:
        words = shlex.split(command)
        assert words[0] == "python"
        done = called(words[1:])
        if "give a rehearsal more seconds" in done.stderr:  # other work slows this machine down
            done = called([*words[1:], "--seconds", "120"])
        assert done.returncode == 0, (command, done.stderr)
        outputs.append(done.stdout)
        if "new_workload" in command:
            file = tmp_path / "cells" / "model.py"
            file.write_text(file.read_text().partition("class Model")[0] + model)
    assert "target reached" in outputs[2]
    assert "verdict" in outputs[3]
    assert (tmp_path / "cells" / "profile.json").is_file()
