"""`python -m siren.run` end to end: what it prints, writes and returns."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest
import simplejson

from siren.analysis.run_folder import RunFolder
from siren.run import RunConfig, main
from siren.testing import tiny_model
from siren.testing.crashes import Launcher
from siren.testing.tiny import write_tiny_workload
from siren.types import StopReason
from siren.workloads.datasets import DatasetUnavailableError
from siren.workloads.datasets.sources import Sources
from siren.workloads.registry import load_workload

# fmt: off
KEYS = {
    "workload", "world", "platform", "policy", "batch_rule", "update_rule", "channel", "seed", "budget_usd",
    "cost_usd", "bill", "target_loss", "final_loss", "final_accuracy", "target_reached", "epochs",
    "duration_s", "stop_reason",
}
# fmt: on
"""The keys that the summary must have at least (issue 2, line 5)."""

GREEDY = ("--policy", "greedy")
DIGITS = ("--workload", "softmax-digits", "--budget", "0.50", *GREEDY)
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f\x1b]")
FETCH = "from siren.workloads.registry import load_workload; load_workload('mlp-mnist')"


@pytest.fixture(scope="module")
def launcher(tmp_path_factory):
    with Launcher(tmp_path_factory.mktemp("launcher")) as launcher:
        yield launcher


@pytest.fixture(scope="module")
def mnist_data() -> None:
    """Real MNIST in the user's cache, fetched as a user's first run fetches it."""
    fetched = subprocess.run(
        [sys.executable, "-c", FETCH], check=False, capture_output=True, text=True, timeout=300
    )
    if "DatasetUnavailableError" in fetched.stderr:
        pytest.skip(f"no source of MNIST can be reached here: {fetched.stderr.splitlines()[-1]}")
    assert fetched.returncode == 0, fetched.stderr


@pytest.fixture(scope="module")
def workload(tmp_path_factory) -> str:
    source = Path(tiny_model.__file__).read_text(encoding="utf-8").partition("    @staticmethod")[0]
    return str(write_tiny_workload(tmp_path_factory.mktemp("jobs") / "tiny", source))


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The real command, its output piped."""
    return subprocess.run(
        [sys.executable, "-m", "siren.run", *arguments],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=300,
    )


def in_process(**settings) -> tuple[int, str, str]:
    stdout, stderr = io.StringIO(), io.StringIO()
    code = main(RunConfig(**settings), stdout, stderr)
    return code, stdout.getvalue(), stderr.getvalue()


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> tuple[subprocess.CompletedProcess[str], Path]:
    """The quickest shipped job through the real command, in the folder that it chooses itself."""
    folder = tmp_path_factory.mktemp("digits")
    ended = subprocess.run(
        [sys.executable, "-m", "siren.run", *DIGITS],
        check=False,
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=300,
    )
    (run,) = (folder / "runs").iterdir()
    return ended, run


def test_the_terminal_shows_header_epochs_bill_and_results(digits):
    ended, run = digits
    assert (ended.returncode, ended.stderr) == (0, "")
    text = ended.stdout
    header, table = text.split("\n\n")[:2]
    for said in ("softmax-digits", "aws-2026", "twin: no money is spent", "greedy", "$0.50", "loss 0.35"):
        assert said in header
    epochs = json.loads((run / "summary.json").read_text())["epochs"]
    rows = [line.split() for line in table.splitlines()]
    assert [row[0] for row in rows[1 : epochs + 1]] == [str(k) for k in range(1, epochs + 1)]
    assert rows[0] == [
        "epoch",
        "funcs",
        "mem",
        "MB",
        "loss",
        "time",
        "fetch",
        "compute",
        "update",
        "cold",
        "cost",
        "left",
    ]
    assert "target reached" in text
    assert re.search(r"bill +cache +\$0\.03", text)
    assert re.search(r"cost +\$0\.\d+ of \$0\.50", text)
    assert "on the virtual clock" in text
    assert f"results   {Path('runs') / run.name}" in text


def test_piped_output_has_no_control_characters(digits):
    ended, _ = digits
    assert not CONTROL.search(ended.stdout + ended.stderr)


def test_output_is_the_same_when_colour_is_refused(launcher, workload, tmp_path):
    texts = []
    for name, environment in (("a", {}), ("b", {"NO_COLOR": "1", "TERM": "xterm-256color"})):
        out = tmp_path / name
        ended = command(
            "--workload",
            workload,
            "--budget",
            "1",
            "--policy",
            "fixed:4x1024",
            "--out",
            str(out),
            **environment,
        )
        assert ended.returncode == 0
        assert not CONTROL.search(ended.stdout)
        texts.append(re.sub(r"[\d.]+m?s real time", "", ended.stdout.replace(str(out), "")))
    assert texts[0] == texts[1]


def test_a_run_folder_holds_everything(digits):
    _, run = digits
    assert {path.name for path in run.iterdir()} == {
        "checkpoints",
        "config.json",
        "events.jsonl",
        "ledger.jsonl",
        "lock",
        "model.safetensors",
        "report.html",
        "summary.json",
        "system.json",
    }
    config = json.loads((run / "config.json").read_text())
    assert config["workload"] == "softmax-digits"
    assert set(json.loads((run / "summary.json").read_text())) >= KEYS


def test_the_saved_model_has_the_loss_that_the_summary_tells(digits):
    _, run = digits
    summary = json.loads((run / "summary.json").read_text())
    params, layout, metadata = RunFolder.open(run).read_model()
    workload = load_workload("softmax-digits")
    assert layout == dict(workload.model.layout)
    loss, accuracy = workload.evaluate(params)
    assert loss == summary["best_loss"] == float(metadata["heldout_loss"])
    assert summary["best_epoch"] == summary["epochs"]
    assert accuracy == summary["final_accuracy"]
    assert accuracy > 0.9


def test_decisions_are_logged_with_their_reasons_and_what_happened(digits):
    _, run = digits
    lines = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert lines
    for line in lines:
        decision = line["decision"]
        n, m = decision["action"]["functions"], decision["action"]["memory_mb"]
        assert "effective updates a second" in decision["reason"]
        assert decision["forecast"]["action"] == decision["action"]
        near = {(f["action"]["functions"], f["action"]["memory_mb"]) for f in decision["neighbours"]}
        assert {(n // 2, m), (n * 2, m)} <= near
        assert all((k == n) != (size == m) for k, size in near)
        assert all(f["cost_usd"] > 0 and f["duration_s"] > 0 for f in decision["neighbours"])
        assert line["status"]["report"]["action"] == decision["action"]
        assert line["status"]["report"]["duration_s"] > 0


def test_json_is_one_object_and_nothing_else(launcher, workload, tmp_path):
    out = tmp_path / "run"
    ended = launcher.run(*GREEDY, "--workload", workload, "--budget", "1", "--json", "--out", str(out))
    assert (ended.code, ended.stderr) == (0, "")
    summary = simplejson.loads(ended.stdout, use_decimal=True)
    assert set(summary) >= KEYS
    assert ended.stdout == (out / "summary.json").read_text()
    assert summary["target_reached"] is True
    assert summary["stop_reason"] == "target_reached"
    assert summary["exit_code"] == 0
    assert sum(summary["bill"].values()) == summary["cost_usd"] <= Decimal(1)


def test_a_model_that_prints_does_not_disturb_json(launcher, tmp_path):
    source = Path(tiny_model.__file__).read_text(encoding="utf-8").partition("    @staticmethod")[0]
    loud = source.replace('"""The mean loss and the accuracy."""', 'print("evaluating")')
    assert loud != source
    job = write_tiny_workload(tmp_path / "job", loud)
    arguments = ("--workload", str(job), "--budget", "1", "--json", "--out", str(tmp_path / "run"))
    ended = launcher.run(*GREEDY, *arguments)
    assert json.loads(ended.stdout)["target_reached"] is True
    assert "evaluating" in ended.stderr


def run_until(launcher: Launcher, folder: Path, job: str, *arguments: str, budget: str = "1") -> dict:
    """A run's summary; its exit code, `exit_code` and `stop_reason` agree."""
    out = folder / "run"
    ended = launcher.run(
        "--workload",
        job,
        "--budget",
        budget,
        "--policy",
        "fixed:4x1024",
        "--json",
        "--out",
        str(out),
        *arguments,
    )
    summary = json.loads(ended.stdout)
    reason = StopReason(summary["stop_reason"])
    assert ended.code == reason.exit_code == summary["exit_code"]
    assert ended.stderr == ""
    return summary


def test_exit_code_0_the_target_was_reached(launcher, workload, tmp_path):
    summary = run_until(launcher, tmp_path, workload)
    assert summary["exit_code"] == 0
    assert summary["final_loss"] <= summary["target_loss"]


def test_exit_code_3_the_budget_ran_out(launcher, workload, tmp_path):
    summary = run_until(launcher, tmp_path, workload, "--target-loss", "1e-6", budget="0.0332")
    assert summary["exit_code"] == 3
    assert summary["epochs"] > 1
    assert summary["cost_usd"] <= 0.0332
    assert (tmp_path / "run" / "model.safetensors").exists()


def test_exit_code_5_training_diverged(launcher, tmp_path):
    source = Path(tiny_model.__file__).read_text(encoding="utf-8").partition("    @staticmethod")[0]
    wild = write_tiny_workload(tmp_path / "wild", source, training={"learning_rate": 1e6, "target_loss": 0.1})
    summary = run_until(launcher, tmp_path, str(wild))
    assert summary["exit_code"] == 5
    assert "lower the learning rate" in summary["stop_detail"]
    assert summary["best_loss"] <= summary["initial_loss"]


def test_exit_code_6_a_limit_was_hit(launcher, workload, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    by_epochs = run_until(launcher, tmp_path / "a", workload, "--max-epochs", "2", "--target-loss", "1e-6")
    assert (by_epochs["exit_code"], by_epochs["epochs"]) == (6, 2)
    by_time = run_until(launcher, tmp_path / "b", workload, "--max-time", "1.5", "--target-loss", "1e-6")
    assert by_time["exit_code"] == 6
    assert by_time["duration_s"] >= 1.5
    # Codes 2 and 4 are in test_bad_input.py and test_resume.py, 130 is in test_bad_input.py.


def test_the_same_seed_gives_the_same_run_bit_for_bit(launcher, workload, tmp_path):
    files = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        out = tmp_path / name
        arguments = ("--workload", workload, "--budget", "1", "--seed", str(seed), "--max-epochs", "4")
        launcher.run(*GREEDY, *arguments, "--out", str(out))
        files.append([(out / file).read_bytes() for file in ("events.jsonl", "model.safetensors")])
    assert files[0] == files[1]
    assert files[0][0] != files[2][0]
    assert files[0][1] != files[2][1]


@pytest.mark.parametrize("rule", ["overwrite", "additive", "staleness", "cas", "average", "sync"])
@pytest.mark.parametrize("batch_rule", ["constant", "split"])
def test_rules_can_be_overridden(launcher, workload, tmp_path, rule, batch_rule):
    summary = run_until(
        launcher,
        tmp_path,
        workload,
        "--update-rule",
        rule,
        "--batch-rule",
        batch_rule,
        "--channel",
        "memory",
        "--max-epochs",
        "2",
    )
    assert (summary["update_rule"], summary["batch_rule"], summary["channel"]) == (rule, batch_rule, "memory")
    assert summary["final_loss"] < summary["initial_loss"]


@pytest.mark.parametrize("world", ["aws-2026", "siren-2019", "lambdaml-2021"])
def test_every_world_runs(launcher, workload, tmp_path, world):
    out = tmp_path / "run"
    arguments = ("--workload", workload, "--budget", "1", "--world", world, "--json", "--out", str(out))
    ended = launcher.run(*GREEDY, *arguments)
    assert ended.code == 0, ended.stderr + ended.stdout
    assert json.loads(ended.stdout)["world"] == world


def unreachable(self, name, progress) -> bytes:
    raise DatasetUnavailableError("MNIST cannot be fetched (no network): connect to one")


def test_without_mnist_the_default_job_is_digits_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("SIREN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Sources, "fetch", unreachable)
    code, stdout, stderr = in_process(budget="0.50", policy="greedy", out=tmp_path / "run")
    assert (code, stderr) == (0, "")
    assert stdout.count("MNIST cannot be fetched here, so softmax-digits is trained") == 1
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["workload"] == "softmax-digits"
    assert summary["target_loss"] == load_workload("softmax-digits").spec.training.target_loss
    assert len(summary["notes"]) == 1
    again, text, _ = in_process(resume=tmp_path / "run")
    assert again == 0
    assert "MNIST cannot be fetched here" in text


def test_without_mnist_a_job_that_was_asked_for_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("SIREN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Sources, "fetch", unreachable)
    code, stdout, stderr = in_process(budget="2", workload="mlp-mnist", policy="greedy", out=tmp_path / "run")
    assert (code, stdout) == (2, "")
    assert stderr.startswith("siren.run: MNIST cannot be fetched")
    assert len(stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("mnist_data")
def test_the_default_job_learns_real_mnist(tmp_path):
    out = tmp_path / "run"
    ended = command(*GREEDY, "--budget", "2.00", "--json", "--out", str(out))
    assert ended.returncode == 0, ended.stderr
    summary = json.loads(ended.stdout)
    assert summary["workload"] == "mlp-mnist"
    assert summary["target_reached"] is True
    assert summary["final_accuracy"] >= 0.96
    assert summary["cost_usd"] <= 2
    losses = [
        json.loads(line)["status"]["report"]["loss"]
        for line in (out / "events.jsonl").read_text().splitlines()
    ]
    assert losses[-1] == summary["final_loss"] < losses[0] < summary["initial_loss"]


@pytest.mark.usefixtures("mnist_data")
def test_lenet_learns_real_mnist(tmp_path):
    arguments = ("--workload", "lenet-mnist", "--budget", "2.00", "--max-epochs", "1", "--json")
    ended = command(*GREEDY, *arguments, "--out", str(tmp_path / "run"))
    assert ended.returncode in (0, 6), ended.stderr
    summary = json.loads(ended.stdout)
    assert summary["epochs"] == 1
    assert summary["final_accuracy"] >= 0.90
