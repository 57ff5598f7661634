"""`python -m siren.run --platform local`: real functions, real time, and nothing left behind."""

from __future__ import annotations

import io
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
import simplejson

from siren.analysis.run_folder import RunFolder
from siren.policies import AgentPolicy, JobView
from siren.run import RunConfig, main
from siren.testing import tiny_model
from siren.testing.tiny import write_tiny_workload
from siren.worlds import refit
from tests.keyboard import Keyboard

POLICY = "fixed:2x1769"


@pytest.fixture(scope="module")
def workload(tmp_path_factory) -> str:
    source = Path(tiny_model.__file__).read_text(encoding="utf-8").partition("    @staticmethod")[0]
    folder = tmp_path_factory.mktemp("jobs") / "tiny"
    return str(write_tiny_workload(folder, source, training={"learning_rate": 0.05}))


def command(workload: str, out: Path, *more: str) -> list[str]:
    options = ("--platform", "local", "--policy", POLICY, "--budget", "1", "--workload", workload)
    return [sys.executable, "-m", "siren.run", *options, "--out", str(out), *more]


def environment(temp: Path) -> dict[str, str]:
    """Temporary folders of the run lie where the test can look."""
    return {**os.environ, "TMPDIR": str(temp)}


def marked(temp: Path) -> list[int]:
    """Processes that have this folder in their environment or command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            text = (path / "environ").read_bytes() + (path / "cmdline").read_bytes()
            state = (path / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if str(temp).encode() in text and state != "Z" and int(path.name) != os.getpid():
            found.append(int(path.name))
    return found


def until(condition, timeout_s: float, what: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.05)


def check_account(folder: Path) -> dict[str, object]:
    """What the summary, the events and the ledger say of money is one thing, and within the budget."""
    summary = simplejson.loads((folder / "summary.json").read_text(), use_decimal=True)
    records = RunFolder.open(folder).events(outside_usd=summary["bill"].get("unconfirmed", Decimal(0)))
    settled = sum((record.status.cost_usd for record in records), Decimal(0))
    assert settled + summary["bill"].get("unconfirmed", Decimal(0)) == summary["cost_usd"]
    assert summary["cost_usd"] <= summary["budget_usd"]
    for record in records:
        assert record.status.cost_usd <= record.reserved_usd
    return dict(summary)


def test_a_job_reaches_its_target_and_leaves_nothing(workload, tmp_path):
    temp, out = tmp_path / "temp", tmp_path / "run"
    temp.mkdir()
    ended = subprocess.run(
        command(workload, out, "--json"),
        check=False,
        capture_output=True,
        text=True,
        env=environment(temp),
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr
    summary = json.loads(ended.stdout)
    assert (summary["platform"], summary["world"]) == ("local", "local")
    assert summary["final_loss"] <= summary["target_loss"]
    check_account(out)
    system = json.loads((out / "system.json").read_text())
    assert {"confinement", "not_enforced"} <= set(system["endpoint"])
    assert list(temp.iterdir()) == []
    assert marked(temp) == []


def test_a_killed_run_leaves_nothing_and_resumes_with_a_right_model(workload, tmp_path):
    temp, out = tmp_path / "temp", tmp_path / "run"
    temp.mkdir()
    run = subprocess.Popen(
        command(workload, out, "--target-loss", "0.001", "--max-epochs", "6"),
        env=environment(temp),
        stdout=subprocess.DEVNULL,
    )
    events = out / "events.jsonl"
    until(lambda: events.exists() and events.read_text().count("\n") >= 2, 120, "two epochs have ended")
    assert len(marked(temp)) > 3
    run.send_signal(signal.SIGKILL)
    run.wait()
    until(lambda: not marked(temp), 60, "every process has ended")
    until(lambda: not list(temp.iterdir()), 60, "every temporary folder is gone")

    epochs = len(RunFolder.open(out).events(outside_usd=Decimal(10)))
    resumed = subprocess.run(
        [sys.executable, "-m", "siren.run", "--resume", str(out), "--json"],
        check=False,
        capture_output=True,
        text=True,
        env=environment(temp),
        timeout=300,
    )
    assert resumed.returncode == 6, resumed.stderr  # --max-epochs
    summary = check_account(out)
    assert summary["epochs"] == 6 > epochs
    # Losses go down as they do without a kill: no epoch was counted twice or lost.
    losses = [record.status.report.loss for record in RunFolder.open(out).events(Decimal(10))]
    assert all(after < before for before, after in itertools.pairwise(losses)), losses
    assert np.isfinite(RunFolder.open(out).read_model()[0]).all()
    assert list(temp.iterdir()) == []
    shutil.rmtree(out)


def in_process(**settings) -> tuple[int, str]:
    stderr = io.StringIO()
    return main(RunConfig(**settings), io.StringIO(), stderr, io.StringIO()), stderr.getvalue()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"platform": "locall"}, "did you mean 'local'?"),
        ({"platform": "local", "channel": "memory"}, "exists on the twin alone"),
        ({"platform": "aws", "world": "siren-2019"}, "bills as AWS no longer does"),
    ],
)
def test_what_cannot_run_is_refused_in_a_sentence(workload, options, says):
    code, said = in_process(workload=workload, budget="1", policy="fixed:1x1792", **options)
    assert code == 2
    assert says in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("platform", "package"), [("local", "awslambdaric"), ("aws", "boto3"), ("aws", "aiohttp")]
)
def test_a_missing_extra_is_named(workload, monkeypatch, platform, package):
    monkeypatch.setitem(sys.modules, package, None)
    code, said = in_process(workload=workload, budget="1", policy=POLICY, platform=platform)
    assert code == 2
    assert f"{package} is not installed" in said
    assert f"[{platform}]" in said


def on_aws(workload: str, answer: io.StringIO, **settings) -> tuple[int, str]:
    stderr = io.StringIO()
    config = RunConfig(platform="aws", workload=workload, budget="1", policy="greedy", **settings)
    return main(config, io.StringIO(), stderr, answer), stderr.getvalue()


def test_aws_shows_what_it_will_spend_and_spends_nothing_without_a_yes(workload, deployed, tmp_path):
    code, said = on_aws(workload, Keyboard("n\n"), out=tmp_path / "run")
    assert code == 2
    for shown in (
        "aws: real money is spent",
        "functions of",
        "expected:",
        "at worst $1.00",
        "Spend it? [y/N]",
    ):
        assert shown in said
    assert "at most 5 functions at once" in said
    assert "nothing was spent" in said
    assert deployed == []
    assert not (tmp_path / "run").exists()


def test_aws_goes_on_after_a_yes_on_the_keyboard_or_the_command_line(workload, deployed, tmp_path):
    for answer, options in ((Keyboard("y\n"), {}), (io.StringIO(), {"yes": True})):
        code, said = on_aws(workload, answer, out=tmp_path / "run", **options)
        assert code == 4
        assert said.endswith("as far as this test goes; end it here\n")
        assert ("Spend it?" in said) == (not options)
    assert deployed == ["open", "open"]
    assert not (tmp_path / "run").exists(), "a run folder of a run that never began"


def test_a_run_that_goes_on_on_aws_shows_its_next_epoch_and_what_the_cache_cost_meanwhile(
    workload, deployed, tmp_path, monkeypatch
):
    out = tmp_path / "run"
    config = RunConfig(budget="1", workload=workload, rehearse=0.0, max_epochs=2, out=out)
    assert main(config, io.StringIO(), io.StringIO()) == 6
    folder = RunFolder.open(out)
    ended, (tensors, state) = folder.read_summary(), folder.read_checkpoint(2)
    (out / "config.json").write_text((out / "config.json").read_text().replace('"twin"', '"aws"'))
    platform = {"epoch": 2, "clock_s": ended.duration_s, "began_unix": time.time() - 3.5 * 3600}
    folder.write_checkpoint(2, tensors, {**state, "platform": platform})
    started, start = [], AgentPolicy.start

    def watched(policy: AgentPolicy, job: JobView) -> None:
        started.append((job.outlook, job.scales))
        start(policy, job)

    monkeypatch.setattr(AgentPolicy, "start", watched)
    monkeypatch.setattr(refit, "DEAD", 0.0)  # the two epochs do change the laws that the plan is made with
    monkeypatch.setattr(refit, "GRAIN", 1e-6)
    stderr = io.StringIO()
    assert main(RunConfig(resume=out, max_epochs=9), io.StringIO(), stderr, Keyboard("y\n")) == 4
    assert deployed == ["open"]
    said = stderr.getvalue()
    assert "\nnext      " in said
    expected, worst = re.search(r"expected: \S+ \$([\d.]+); at worst \$([\d.]+)", said).groups()
    meanwhile_usd = 3 * ended.bill["cache"]  # hours that began since the first, which is paid
    assert meanwhile_usd <= Decimal(expected) <= Decimal(worst)
    assert f"at worst ${1 - ended.cost_usd:.4f}, what is left" in said
    first, again = started
    assert first == again, "what is asked must not change what the policy is relative to"


def test_aws_does_not_spend_where_nobody_can_answer(workload, deployed):
    code, said = on_aws(workload, io.StringIO("y\n"))
    assert code == 2
    assert "add --yes to go on" in said
    assert deployed == []
