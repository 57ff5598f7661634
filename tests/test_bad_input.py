"""Bad input gives one clear message, the documented exit code, and loses nothing that was earned."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import siren.run
from siren.run import RunConfig, main
from siren.testing import tiny_model
from siren.testing.crashes import Launcher
from siren.testing.tiny import write_tiny_workload
from siren.workloads.datasets.sources import Sources

SOURCE = Path(tiny_model.__file__).read_text(encoding="utf-8")
PLAIN = SOURCE.partition("    @staticmethod")[0]
"""The tiny model without its kernel."""


@pytest.fixture(scope="module")
def launcher(tmp_path_factory):
    with Launcher(tmp_path_factory.mktemp("launcher")) as launcher:
        yield launcher


@pytest.fixture(scope="module")
def workload(tmp_path_factory) -> str:
    return str(write_tiny_workload(tmp_path_factory.mktemp("jobs") / "tiny", PLAIN))


def assert_one_message(text: str, *parts: str) -> None:
    assert len(text.strip().splitlines()) == 1, text
    assert text.startswith("siren.run: "), text
    assert "Traceback" not in text
    for part in parts:
        assert part in text, text


def refused(launcher: Launcher, folder: Path, *arguments: str, code: int = 2) -> str:
    """The one message of a command that is refused before it makes anything."""
    before = sorted(folder.iterdir())
    policy = () if "--policy" in arguments else ("--policy", "greedy")
    death = launcher.run(*policy, *arguments, "--out", str(folder / "run"))
    assert death.code == code, death.stderr
    assert death.stdout == ""
    assert_one_message(death.stderr)
    assert sorted(folder.iterdir()) == before
    return death.stderr


@pytest.mark.parametrize("budget", ["0", "0.00", "-1", "nan", "inf", "abc", "", "1e3", "2,50", "0.0000001"])
def test_a_budget_that_is_no_positive_amount_is_refused(launcher, workload, tmp_path, budget):
    text = refused(launcher, tmp_path, "--workload", workload, f"--budget={budget}")
    assert "write a positive amount of dollars" in text


@pytest.mark.parametrize("policy", ["greedy", "fixed:4x1024"])
def test_a_budget_below_the_cheapest_epoch_is_refused(launcher, workload, tmp_path, policy):
    arguments = ("--workload", workload, "--policy", policy)
    text = refused(launcher, tmp_path, *arguments, "--budget", "0.000001")
    assert "$0.000001 is left" in text
    needed_usd = text.partition("can cost $")[2].partition(" at worst")[0]
    enough = launcher.run(
        *arguments, "--budget", f"{float(needed_usd) + 1e-6:.6f}", "--out", str(tmp_path / "run")
    )
    assert enough.code in (0, 3), enough.stderr  # at least the first epoch is paid
    assert len((tmp_path / "run" / "events.jsonl").read_text().splitlines()) >= 1


def test_a_budget_is_needed(launcher, workload, tmp_path):
    assert "--budget 2.00" in refused(launcher, tmp_path, "--workload", workload)


@pytest.mark.parametrize(
    ("option", "name", "nearest"),
    [
        ("--workload", "mlp-mnst", "did you mean 'mlp-mnist'?"),
        ("--workload", "softmax", "did you mean 'softmax-digits'?"),
        ("--world", "aws-2062", "did you mean 'aws-2026'?"),
        ("--policy", "gredy", "did you mean 'greedy'?"),
        ("--platform", "twn", "did you mean 'twin'?"),
    ],
)
def test_an_unknown_name_suggests_the_nearest(launcher, workload, tmp_path, option, name, nearest):
    others = [] if option == "--workload" else ["--workload", workload]
    assert nearest in refused(launcher, tmp_path, "--budget", "2", *others, option, name)


@pytest.mark.parametrize(
    "policy", ["fixed", "fixed:", "fixed:20", "fixed:x", "fixed:2.5x1024", "fixed:-1x128"]
)
def test_a_fixed_policy_of_another_form_is_refused(launcher, workload, tmp_path, policy):
    text = refused(launcher, tmp_path, "--budget", "2", "--workload", workload, "--policy", policy)
    assert "fixed:20x1769" in text


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        ("fixed:4x1000", "the nearest are 768 and 1,024 MB"),
        ("fixed:4x0", "is not a memory size"),
        ("fixed:25x1024", "choose at most 24"),
        ("fixed:5000x1024", "1 to 1,000"),
        ("fixed:0x1024", "1 to 1,000"),
    ],
)
def test_an_action_off_the_grid_or_above_a_limit_is_refused(launcher, workload, tmp_path, policy, says):
    arguments = ("--budget", "2", "--workload", workload, "--policy", policy)
    assert says in refused(launcher, tmp_path, *arguments)


@pytest.mark.parametrize("rule", ["additive", "staleness"])
def test_a_rule_that_the_channel_cannot_carry_is_refused(launcher, workload, tmp_path, rule):
    arguments = ("--budget", "2", "--workload", workload, "--update-rule", rule, "--channel", "s3")
    text = refused(launcher, tmp_path, *arguments)
    assert "has no atomic add" in text
    assert "--channel redis" in text


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--max-epochs", "0"),
        ("--max-epochs", "-3"),
        ("--max-time", "0"),
        ("--max-time", "nan"),
        ("--seed", "-1"),
        ("--target-loss", "0"),
        ("--target-loss", "nan"),
        ("--target-loss", "inf"),
    ],
)
def test_a_limit_that_is_no_positive_number_is_refused(launcher, workload, tmp_path, option, value):
    arguments = ("--budget", "2", "--workload", workload, f"{option}={value}")
    text = refused(launcher, tmp_path, *arguments)
    assert option.removeprefix("--").replace("-", "_") in text or option in text


@pytest.mark.parametrize(
    ("option", "value"), [("--max-epochs", "many"), ("--batch-rule", "bulk"), ("--speed", "1")]
)
def test_what_no_option_takes_is_a_usage_error(option, value):
    command = [sys.executable, "-m", "siren.run", "--budget", "2", option, value]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr + ended.stdout
    assert option.lstrip("-") in ended.stderr


def test_the_real_command_refuses_as_main_does(tmp_path):
    command = [sys.executable, "-m", "siren.run", "--budget", "zero"]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert_one_message(ended.stderr, "'zero'")
    assert list(tmp_path.iterdir()) == []


def test_a_world_file_with_an_unknown_key_is_refused(launcher, workload, tmp_path, checkout):
    text = (checkout / "envs" / "aws-2026.toml").read_text(encoding="utf-8")
    (tmp_path / "mine.toml").write_text(text.replace("[limits]", "[limits]\nspeed = 1"), encoding="utf-8")
    before = sorted(tmp_path.iterdir())
    arguments = ("--budget", "2", "--workload", workload, "--world", str(tmp_path / "mine.toml"))
    death = launcher.run("--policy", "greedy", *arguments, "--out", str(tmp_path / "run"))
    assert death.code == 2
    assert "limits.speed" in death.stderr
    assert "Traceback" not in death.stderr
    assert sorted(tmp_path.iterdir()) == before


def in_process(**settings) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of `main` in this process, so that it can be patched."""
    stdout, stderr = io.StringIO(), io.StringIO()
    code = main(RunConfig(**settings), stdout, stderr)
    return code, stdout.getvalue(), stderr.getvalue()


@pytest.mark.parametrize("workload_is_given", [True, False])
def test_a_data_set_that_does_not_match_its_checksum_is_fetched_again_then_refused(
    tmp_path, monkeypatch, workload_is_given
):
    monkeypatch.setenv("SIREN_CACHE", str(tmp_path / "cache"))
    fetched = []

    def fetch(self, name, progress) -> bytes:
        fetched.append(name)
        return b"not what was published"

    monkeypatch.setattr(Sources, "fetch", fetch)
    settings = {"workload": "mlp-mnist"} if workload_is_given else {}
    code, stdout, stderr = in_process(budget="2", policy="greedy", **settings)
    assert (code, stdout) == (2, "")
    assert_one_message(stderr, "does not match its checksum", "fetched again")
    assert fetched == ["train-images-idx3-ubyte"] * 2
    assert not (tmp_path / "runs").exists()


GRADIENT = "gradient = np.append(features.T @ error, error.sum()).astype(np.float32)"
BREAKS = {
    "raises": ("raise ValueError('no good')", "raised ValueError: no good"),
    "returns NaN": ("gradient = np.full(4, np.nan, np.float32)", "NaN"),
    "returns the wrong shape": ("gradient = np.zeros(5, np.float32)", "shape (5,)"),
    "returns the wrong type": ("gradient = np.zeros(4)", "float64"),
}


@pytest.mark.parametrize("how", BREAKS)
def test_a_model_that_breaks_its_contract_is_refused_before_anything_is_paid(launcher, tmp_path, how):
    instead, says = BREAKS[how]
    assert GRADIENT in PLAIN
    job = write_tiny_workload(tmp_path / "job", PLAIN.replace(GRADIENT, instead))
    text = refused(launcher, tmp_path, "--budget", "2", "--workload", str(job))
    assert "model.py" in text
    assert says in text


LATE = """
    calls = 0

    def loss_and_grad(self, params, features, labels):
        Model.calls += 1
        loss, gradient = self.first_loss_and_grad(params, features, labels)
        if Model.calls > 60:
            {instead}
        return loss, gradient
"""


def late_model(instead: str) -> str:
    """A model that is well until the third epoch of 24 pushes."""
    return PLAIN.replace("def loss_and_grad", "def first_loss_and_grad") + LATE.format(instead=instead)


@pytest.mark.parametrize(
    ("instead", "code", "reason", "says"),
    [
        ("raise ValueError('no good')", 2, "usage_error", "raised ValueError: no good"),
        ("gradient = np.zeros(5, np.float32)", 2, "usage_error", "returned shape (5,)"),
        ("gradient = np.full(4, np.nan, np.float32)", 5, "diverged", "held-out loss nan"),
    ],
    ids=["raises", "wrong-shape", "nan"],
)
def test_a_model_that_breaks_in_the_middle_keeps_what_was_earned(
    launcher, tmp_path, instead, code, reason, says
):
    job = write_tiny_workload(tmp_path / "job", late_model(instead), training={"target_loss": 0.1})
    out = tmp_path / "run"
    arguments = ("--workload", str(job), "--budget", "2", "--policy", "fixed:4x1024", "--max-epochs", "4")
    death = launcher.run(*arguments, "--out", str(out))
    assert death.code == code, death.stderr
    assert says in death.stdout
    assert "Traceback" not in death.stderr + death.stdout
    summary = json.loads((out / "summary.json").read_text())
    assert summary["stop_reason"] == reason
    assert summary["epochs"] >= 2
    assert summary["cost_usd"] > 0
    assert (out / "model.safetensors").exists()
    if code == 2:  # corrected by the user, it goes on
        (job / "model.py").write_text(PLAIN, encoding="utf-8")
        again = launcher.run("--resume", str(out))
        assert again.code == 6, again.stderr
        assert json.loads((out / "summary.json").read_text())["epochs"] == 4


class FullDisk:
    """A disk without room for what is written to some files."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, part: str, after: int) -> None:
        self.full, self._part, self._after = True, part, after
        self._open, self._write, self._paths = os.open, os.write, dict[int, str]()
        monkeypatch.setattr(os, "open", self.open)
        monkeypatch.setattr(os, "write", self.write)

    def open(self, path, *args, **kwargs) -> int:
        descriptor = self._open(path, *args, **kwargs)
        self._paths[descriptor] = str(path)
        return descriptor

    def write(self, descriptor: int, data) -> int:
        if self.full and self._part in self._paths.get(descriptor, ""):
            self._after -= 1
            if self._after < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if self._after == 0:  # the last bytes that there was room for
                return self._write(descriptor, bytes(data)[: len(data) // 2])
        return self._write(descriptor, data)


@pytest.mark.parametrize("part", ["events.jsonl", "ledger.jsonl", "checkpoints", "model.safetensors"])
@pytest.mark.parametrize("after", [3, 4])
def test_a_full_disk_loses_no_epoch_and_no_dollar(workload, tmp_path, monkeypatch, part, after):
    settings = {"workload": workload, "budget": "2", "policy": "fixed:4x1024", "max_epochs": 6}
    whole, out = tmp_path / "whole", tmp_path / "run"
    assert in_process(**settings, out=whole)[0] == 6
    with monkeypatch.context() as patch:
        FullDisk(patch, part, after)
        code, _, stderr = in_process(**settings, out=out)
    assert code == 4
    assert_one_message(stderr, "No space left on device", part)
    assert "resume" in stderr
    assert in_process(resume=out)[0] == 6
    assert (out / "events.jsonl").read_bytes() == (whole / "events.jsonl").read_bytes()
    assert (out / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    costs = [json.loads((run / "summary.json").read_text())["bill"] for run in (out, whole)]
    assert costs[0] == costs[1]


def test_a_full_disk_at_the_end_still_tells_the_cause(workload, tmp_path, monkeypatch):
    out = tmp_path / "run"
    settings = {"workload": workload, "budget": "2", "policy": "fixed:4x1024", "max_epochs": 2}
    with monkeypatch.context() as patch:
        FullDisk(patch, "summary.json", 0)
        code, _, stderr = in_process(**settings, out=out)
    assert code == 4
    assert_one_message(stderr, "No space left on device", "summary.json")
    assert in_process(resume=out)[0] == 6


def slow_model() -> str:
    """A model whose epochs take half a second, so that there is time to press Ctrl-C."""
    slow = PLAIN.replace("import math\n", "import math\nimport time\n")
    return slow.replace("        score =", "        time.sleep(0.02)\n        score =", 1)


def interrupt(process: subprocess.Popen, out: Path, signals: int) -> tuple[str, str]:
    """Waits until an epoch is on disk, then presses Ctrl-C."""
    events, deadline = out / "events.jsonl", time.monotonic() + 60
    while not (events.exists() and events.stat().st_size) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    for _ in range(signals):
        process.send_signal(signal.SIGINT)
        time.sleep(0.01)
    return process.communicate(timeout=60)


@pytest.mark.parametrize("signals", [1, 2], ids=["once", "twice"])
def test_ctrl_c_ends_cleanly_and_the_run_can_be_resumed(tmp_path, signals):
    job = write_tiny_workload(tmp_path / "job", slow_model(), training={"target_loss": 1e-3})
    start, out = [sys.executable, "-m", "siren.run"], tmp_path / "run"
    arguments = ["--workload", str(job), "--budget", "2", "--policy", "fixed:4x1024", "--out", str(out)]
    # Coverage takes a lock in which it must not be interrupted: the handler would wait for it for ever.
    untraced = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE_PROCESS")}
    process = subprocess.Popen(
        [*start, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=untraced
    )
    stdout, stderr = interrupt(process, out, signals)
    assert process.returncode == 130, stderr
    assert_one_message(stderr, "ending after this epoch")
    assert "interrupted" in stdout
    assert f"python -m siren.run --resume {out}" in stdout
    earned = (out / "events.jsonl").read_bytes()
    epochs = len(earned.splitlines())
    assert json.loads((out / "summary.json").read_text())["epochs"] == epochs >= 1
    again = [*start, "--resume", str(out), "--max-epochs", str(epochs + 1)]
    resumed = subprocess.run(again, check=False, capture_output=True, text=True)
    assert resumed.returncode == 6, resumed.stderr
    assert (out / "events.jsonl").read_bytes().startswith(earned)
    whole = subprocess.run(
        [*start, *arguments[:-1], str(tmp_path / "whole"), "--max-epochs", str(epochs + 1)],
        check=False,
        stdout=subprocess.DEVNULL,
    )
    assert whole.returncode == 6
    assert (out / "events.jsonl").read_bytes() == (tmp_path / "whole" / "events.jsonl").read_bytes()


def test_ctrl_c_before_the_first_epoch_loses_nothing(workload, tmp_path, monkeypatch):
    def press(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(siren.run, "load_world", press)
    code, stdout, stderr = in_process(workload=workload, budget="2", policy="greedy", out=tmp_path / "run")
    assert (code, stdout) == (130, "")
    assert_one_message(stderr, "interrupted")
    assert not (tmp_path / "run").exists()


def test_output_that_nobody_reads_does_not_stop_a_run(workload, tmp_path):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "siren.run", "--workload", workload, "--budget", "2"]
    command += ["--policy", "fixed:4x1024", "--max-epochs", "5", "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.close()
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 6, stderr
    assert stderr == ""
    assert len((out / "events.jsonl").read_text().splitlines()) == 5
