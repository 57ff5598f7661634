"""`python -m siren.rehearse` end to end, and what `siren.run` makes of it."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from siren.policies.agent import DEFAULT_AGENT, agent_folder
from siren.policies.network import Spaces, load_network, save_network
from siren.rehearse import RehearseConfig
from siren.rehearse import main as rehearse
from siren.run import RunConfig
from siren.run import main as run
from siren.testing import tiny_model
from siren.testing.crashes import KILLED, Launcher
from siren.testing.tiny import write_tiny_workload

PLAIN = Path(tiny_model.__file__).read_text(encoding="utf-8").partition("    @staticmethod")[0]
EASY = {"target_loss": 0.55, "learning_rate": 0.02}


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> str:
    return str(write_tiny_workload(tmp_path_factory.mktemp("jobs") / "tiny", PLAIN, training=EASY))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("SIREN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("siren.rehearsal.workers.MOST_WORKERS", 2)
    return tmp_path / "cache"


def rehearsed(**settings) -> tuple[int, str, str]:
    stdout, stderr = io.StringIO(), io.StringIO()
    code = rehearse(RehearseConfig(**settings), stdout, stderr)
    return code, stdout.getvalue(), stderr.getvalue()


def ran(**settings) -> tuple[int, str, str]:
    stdout, stderr = io.StringIO(), io.StringIO()
    code = run(RunConfig(**settings), stdout, stderr)
    return code, stdout.getvalue(), stderr.getvalue()


def config_of(folder: Path) -> dict:
    return json.loads((folder / "config.json").read_text())


def test_a_rehearsal_shows_what_it_found_and_is_found_again(job, cache):
    code, stdout, stderr = rehearsed(budget="0.50", workload=job, seconds=2.0)
    assert (code, stderr) == (0, "")
    assert "epochs to the target by functions" in stdout
    assert "choice: " in stdout
    assert "no money was spent" in stdout
    (kept,) = (cache / "rehearsals").iterdir()
    assert kept.name.startswith("tiny-")
    code, again, _ = rehearsed(budget="0.50", workload=job, seconds=2.0)
    assert again == "rehearsed before; --again does it again\n" + stdout
    code, stdout, stderr = rehearsed(budget="0.50", workload=job, seconds=2.0, print_json=True)
    found = json.loads(stdout)
    assert found["standings"][0]["candidate"]["action"]["functions"] == found["reference"]["functions"]
    before = kept.read_bytes()
    kept.write_bytes(before[:100])  # damaged
    code, stdout, stderr = rehearsed(budget="0.50", workload=job, seconds=1.0, print_json=True)
    assert (code, stderr) == (0, "")
    assert json.loads(stdout)["wall_s"] != found["wall_s"]
    before = kept.read_bytes()
    assert rehearsed(budget="0.50", workload=job, seconds=1.0, again=True)[0] == 0
    assert kept.read_bytes() != before


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"budget": "abc"}, "write a positive amount of dollars"),
        ({"budget": "-1"}, "write a positive amount of dollars"),
        ({"seconds": 0.0}, "--seconds 0 must be a positive number"),
        ({"seconds": -1.0}, "--seconds -1 must be a positive number"),
        ({"seconds": float("nan")}, "--seconds nan must be a positive number"),
        ({"seconds": float("inf")}, "--seconds inf must be a positive number"),
        ({"agents": ("default-2062",)}, "did you mean 'default-2026'?"),
        ({"workload": "softmax-digit"}, "did you mean 'softmax-digits'?"),
        ({"world": "aws-2062"}, "did you mean 'aws-2026'?"),
        ({"target_loss": -1.0}, "target_loss"),
        ({"update_rule": "additive", "channel": "s3"}, "has no atomic add"),
        ({"target_loss": 100.0, "seconds": 1.0}, "at the target already"),
    ],
    ids=str,
)
def test_bad_input_is_refused_in_a_sentence(job, cache, settings, says):
    code, stdout, stderr = rehearsed(**{"budget": "0.50", "workload": job, **settings})
    assert (code, stdout) == (2, "")
    assert says in stderr
    assert stderr.startswith("siren.rehearse: ")
    assert len(stderr.splitlines()) == 1
    assert not (cache / "rehearsals").exists()


def test_a_model_that_raises_in_a_process_is_told_as_by_a_run(tmp_path):
    late = (
        PLAIN.replace("def loss_and_grad", "def first_loss_and_grad")
        + """
    calls = 0

    def loss_and_grad(self, params, features, labels):
        Model.calls += 1
        if Model.calls > 300:
            raise ValueError("no good")
        return self.first_loss_and_grad(params, features, labels)
"""
    )
    workload = str(write_tiny_workload(tmp_path / "late", late))
    for code, stdout, stderr in (
        rehearsed(budget="1", workload=workload, seconds=3.0),
        ran(budget="1", workload=workload, rehearse=3.0, out=tmp_path / "run"),
    ):
        assert (code, stdout) == (2, "")
        assert len(stderr.splitlines()) == 1
        assert "raised ValueError: no good" in stderr
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def first(job, tmp_path_factory) -> tuple[Path, str]:
    """A default run, its rehearsal included, and what it printed."""
    out = tmp_path_factory.mktemp("runs") / "first"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIREN_CACHE", str(out.parent / "cache"))
        patch.setattr("siren.rehearsal.workers.MOST_WORKERS", 2)
        code, stdout, stderr = ran(budget="0.50", workload=job, rehearse=2.0, seed=3, out=out)
    assert (code, stderr) == (0, "")
    return out, stdout


def test_a_run_rehearses_first_and_says_so(first):
    out, stdout = first
    config = config_of(out)
    assert config["policy"] == "agent"
    (note,) = config["notes"]
    assert note.startswith("rehearsed ")
    assert f": {config['choice']['name']}, " in note
    assert note.split(":")[0] in " ".join(stdout.split())
    summary = json.loads((out / "summary.json").read_text())
    assert summary["target_reached"] is True
    assert summary["notes"] == [note]
    assert summary["policy"] == "agent"


@pytest.fixture(scope="module")
def launcher(tmp_path_factory):
    """A launcher, and the cache of what it launches."""
    folder = tmp_path_factory.mktemp("launcher")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIREN_CACHE", str(folder / "cache"))
        with Launcher(folder) as launcher:
            yield launcher, folder / "cache"


@pytest.mark.parametrize("policy", ["agent", f"agents/{DEFAULT_AGENT}"])
def test_a_run_that_was_killed_resumes_with_the_same_choice_and_decisions(job, launcher, tmp_path, policy):
    """The second run finds the rehearsal of the first; on resume there is none to be found."""
    arguments = ["--workload", job, "--budget", "0.50", "--policy", policy, "--rehearse", "1.5"]
    launcher, folder = launcher
    whole, out = tmp_path / "whole", tmp_path / "killed"
    assert launcher.run(*arguments, "--out", str(whole)).code == 0
    steps = launcher.run(*arguments, "--out", str(out), watch=out).steps
    shutil.rmtree(out)
    at = [k for k, step in enumerate(steps) if step == "fsync events.jsonl"]
    assert len(at) > 3
    killed = launcher.run(*arguments, "--out", str(out), watch=out, kill_at=at[2])
    assert killed.code == KILLED
    shutil.rmtree(folder / "rehearsals")
    resumed = launcher.run("--resume", str(out))
    assert (resumed.code, resumed.stderr) == (0, "")
    assert not (folder / "rehearsals").exists()
    assert (out / "events.jsonl").read_bytes() == (whole / "events.jsonl").read_bytes()
    assert config_of(out)["choice"] == config_of(whole)["choice"] != {}
    assert " earlier, in " in config_of(out)["notes"][0]


def slow_model() -> str:
    slow = PLAIN.replace("import math\n", "import math\nimport time\n")
    return slow.replace("        score =", "        time.sleep(0.002)\n        score =", 1)


COMMAND = [sys.executable, "-m", "siren.run", "--budget", "0.50"]


def family(parent: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(stat.parent.name))
        except OSError:
            continue
    return found


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(condition, seconds: float = 30.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(condition())


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_rehearsal_that_is_interrupted_leaves_nothing_behind(tmp_path, how):
    job = write_tiny_workload(tmp_path / "job", slow_model(), training=EASY)
    untraced = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE_PROCESS")}
    arguments = ["--workload", str(job), "--rehearse", "60", "--out", str(tmp_path / "run")]
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=untraced,
        # A shell that runs the tests in the background has them ignore Ctrl-C, and so their children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - one thread
    )
    assert wait_for(lambda: family(process.pid) or process.poll() is not None)
    time.sleep(0.3)
    children = family(process.pid)
    assert children
    process.send_signal(how)
    stdout, stderr = process.communicate(timeout=30)
    assert wait_for(lambda: not any(alive(pid) for pid in children))
    assert stdout == ""
    assert not (tmp_path / "run").exists()
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert stderr == "siren.run: interrupted; nothing was spent after the last epoch\n"


def test_an_agent_of_the_users_own_is_run_relative_to_what_was_rehearsed(job, tmp_path, monkeypatch):
    """By a path relative to the folder in which the run began; resumed from another."""
    shutil.copytree(agent_folder(DEFAULT_AGENT), tmp_path / "mine" / "agent")
    settings = {"budget": "0.50", "workload": job, "policy": "mine/agent", "rehearse": 1.0, "max_epochs": 2}
    code, _, stderr = ran(**settings, out=tmp_path / "run")
    assert (code, stderr) == (6, "")
    config = config_of(tmp_path / "run")
    assert config["choice"]["agent"] == str(tmp_path / "mine" / "agent")
    assert "as you wish, relative to" in config["notes"][0]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert ran(resume=tmp_path / "run", max_epochs=3)[0] == 6
    network, _ = load_network(tmp_path / "mine" / "agent")
    save_network(tmp_path / "mine" / "agent", network, Spaces(), {"trained": "again"})
    code, _, stderr = ran(resume=tmp_path / "run", max_epochs=4)
    assert code == 4
    assert "agent changed since the run began" in stderr


def test_without_a_rehearsal_the_shipped_agent_decides(job, tmp_path):
    for name, policy in (("a", None), ("b", f"agents/{DEFAULT_AGENT}")):
        out = tmp_path / name
        code, _, stderr = ran(budget="0.50", workload=job, policy=policy, rehearse=0.0, max_epochs=3, out=out)
        assert (code, stderr) == (6, "")
        config = config_of(out)
        assert (config["choice"], config["notes"]) == ({}, [])
    events = [(tmp_path / name / "events.jsonl").read_text() for name in "ab"]
    assert events[0].replace("agent wants", "") == events[1].replace(f"agents/{DEFAULT_AGENT} wants", "")
    assert not (tmp_path / "cache").exists()


def test_a_rehearsal_that_finds_nothing_is_told_and_the_run_goes_on(tmp_path):
    job = write_tiny_workload(tmp_path / "job", PLAIN, training={"learning_rate": 1e6, "target_loss": 0.1})
    out = tmp_path / "run"
    code, _, stderr = ran(budget="0.50", workload=str(job), rehearse=2.0, max_epochs=2, out=out)
    assert code in (5, 6)
    assert stderr == ""
    assert "the rehearsal found nothing" in config_of(out)["notes"][0]
    assert config_of(out)["choice"] == {}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"safety": "caps"}, "no safeguard named 'caps': did you mean 'cap'?"),
        ({"safety": ""}, "no safeguard named ''"),
        ({"safety": "all,cap"}, "no safeguard named 'all'"),
        ({"rehearse": -1.0}, "--rehearse -1.0: input should be greater than or equal to 0"),
        ({"rehearse": float("nan")}, "--rehearse nan"),
        ({"rehearse": float("inf")}, "--rehearse inf"),
        ({"policy": "agents/nobody"}, "no agent named 'nobody'"),
        ({"policy": "agent-x"}, "no policy named 'agent-x': did you mean 'agent'?"),
        ({"budget": "0.000001"}, "the budget cannot pay one epoch"),
    ],
    ids=str,
)
def test_what_a_run_refuses(job, tmp_path, settings, says):
    code, stdout, stderr = ran(**{"budget": "0.50", "workload": job, "out": tmp_path / "run", **settings})
    assert (code, stdout) == (2, "")
    assert says in stderr
    assert len(stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("safety", ["none", "cap", "roll_back,back_off"])
def test_safeguards_can_be_chosen_and_are_kept_on_resume(job, tmp_path, safety):
    out = tmp_path / "run"
    settings = {"budget": "0.50", "workload": job, "policy": "greedy", "safety": safety, "out": out}
    assert ran(**settings, max_epochs=1)[0] == 6
    assert config_of(out)["safety"] == safety
    assert ran(resume=out, max_epochs=2)[0] == 6
