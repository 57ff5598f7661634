"""A run that is killed at any moment resumes with no dollar lost or counted twice."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from decimal import Decimal
from pathlib import Path

import pytest
import simplejson

from siren.analysis.run_folder import RunFolder
from siren.money import Bill, Ledger
from siren.testing import tiny_model
from siren.testing.crashes import KILLED, Launcher
from siren.testing.tiny import write_tiny_workload

KILLS_OF_COMMANDS = 8
KILLS_OF_FORKS = 42
POLICY = "fixed:4x1024"


@pytest.fixture(scope="module")
def launcher(tmp_path_factory):
    with Launcher(tmp_path_factory.mktemp("launcher")) as launcher:
        yield launcher


@pytest.fixture(scope="module")
def workload(tmp_path_factory) -> str:
    """The tiny job without a kernel, which every process would compile anew."""
    source = Path(tiny_model.__file__).read_text(encoding="utf-8").partition("    @staticmethod")[0]
    folder = tmp_path_factory.mktemp("jobs") / "tiny"
    return str(write_tiny_workload(folder, source, training={"learning_rate": 0.02, "target_loss": 0.47}))


def command(workload: str, out: Path, **settings: object) -> list[str]:
    options = {"workload": workload, "budget": 1, "policy": POLICY, "seed": 3, "out": out, **settings}
    return [part for key, value in options.items() for part in (f"--{key}", str(value))]


def next_command(workload: str, out: Path, **settings: object) -> list[str]:
    """What a user does after a kill: resume; or start again where nothing had begun."""
    if (out / "config.json").exists():
        return ["--resume", str(out)]
    assert not (out / "ledger.jsonl").exists(), "money was reserved in a folder that cannot be resumed"
    shutil.rmtree(out, ignore_errors=True)
    return command(workload, out, **settings)


def outcome(folder: Path) -> dict[str, object]:
    """All of a run that must not depend on how often it was killed."""
    summary = simplejson.loads((folder / "summary.json").read_text(), use_decimal=True)
    del summary["wall_s"], summary["run_folder"]
    return {
        "summary": summary,
        "events": (folder / "events.jsonl").read_bytes(),
        "model": (folder / "model.safetensors").read_bytes(),
        "settled": [line for line in journal(folder) if line["record"] == "settle"],
        "checkpoints": sorted(path.name for path in (folder / "checkpoints").iterdir()),
        "files": sorted(path.name for path in folder.iterdir()),
    }


def journal(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]


def check_account(folder: Path) -> None:
    """The ledger, the events and the summary tell the same story, to the last digit."""
    summary = simplejson.loads((folder / "summary.json").read_text(), use_decimal=True)
    records = RunFolder.open(folder).events()
    ledger = Ledger.load(folder / "ledger.jsonl", Decimal(summary["budget_usd"]))
    assert ledger.open_reservation is None
    assert sorted(ledger.settled) == [record.status.report.epoch for record in records]
    assert all(
        ledger.settled[number] == Bill(record.status.bill) for number, record in enumerate(records, start=1)
    )
    assert ledger.spent_usd == Decimal(summary["cost_usd"])
    assert len(records) == summary["epochs"]


def test_fifty_kills_at_random_moments_cost_nothing(launcher, workload, tmp_path):
    rng = random.Random(2024)
    whole = launcher.run(*command(workload, tmp_path / "whole"))
    assert whole.code == 0, whole.stderr
    expected, kills, chain, survived = outcome(tmp_path / "whole"), 0, 0, 0
    while kills < KILLS_OF_FORKS:
        chain += 1
        out = tmp_path / f"chain-{chain}"
        while True:
            spare = kills >= KILLS_OF_FORKS
            moment_s = None if spare else rng.choice([0.3, 1.2]) * rng.uniform(0, whole.seconds)
            death = launcher.run(*next_command(workload, out), kill_after_s=moment_s)
            if death.code != KILLED:
                break
            kills += 1
            survived += len((out / "events.jsonl").read_bytes()) if (out / "events.jsonl").exists() else 0
        assert death.code == 0, death.stderr
        assert outcome(out) == expected
        check_account(out)
    assert kills == KILLS_OF_FORKS
    assert survived > 0
    assert KILLS_OF_FORKS + KILLS_OF_COMMANDS == 50


def test_the_real_command_killed_at_random_moments_costs_nothing(workload, tmp_path):
    rng = random.Random(7)
    start = [sys.executable, "-m", "siren.run"]
    began = time.monotonic()
    subprocess.run(
        [*start, *command(workload, tmp_path / "whole")], check=True, stdout=subprocess.DEVNULL, timeout=120
    )
    life_s = time.monotonic() - began
    expected, out, kills = outcome(tmp_path / "whole"), tmp_path / "killed", 0
    while True:
        process = subprocess.Popen(
            [*start, *next_command(workload, out)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        if kills < KILLS_OF_COMMANDS:
            # Imports take most of a short life, so half of the kills wait for the folder to move.
            patience_s = rng.uniform(0, life_s)
            if kills % 2:
                wait_for_change(out, process, life_s * 5)
                patience_s = rng.uniform(0, 0.1)
            time.sleep(patience_s)
        if kills < KILLS_OF_COMMANDS:
            process.kill()
        _, error = process.communicate(timeout=120)
        if process.returncode != KILLED:
            assert process.returncode == 0, error
            assert outcome(out) == expected
            if kills == KILLS_OF_COMMANDS:
                break
            out = tmp_path / f"killed-{kills}"
            continue
        kills += 1
    assert kills == KILLS_OF_COMMANDS
    check_account(out)


def wait_for_change(folder: Path, process: subprocess.Popen, patience_s: float) -> None:
    def state() -> float:
        path = folder / "ledger.jsonl"
        return path.stat().st_mtime_ns if path.exists() else 0

    before, began = state(), time.monotonic()
    while state() == before and process.poll() is None and time.monotonic() < began + patience_s:
        time.sleep(0.002)


def test_a_kill_at_every_step_on_the_disk_costs_nothing(launcher, workload, tmp_path):
    settings = {"max-epochs": 2}
    whole = tmp_path / "whole"
    run = launcher.run(*command(workload, whole, **settings), watch=whole)
    assert run.code == 6, run.stderr
    expected = outcome(whole)
    commits = [step for step in run.steps if step.startswith(("fsync ledger", "fsync events", "replace"))]
    each = ["fsync ledger.jsonl", "replace checkpoints", "fsync events", "replace .model", "fsync ledger"]
    for begin in (4, 9):  # after system.json, config.json, the initial model and checkpoint
        for step, wanted in zip(commits[begin:], each, strict=False):
            assert step.startswith(wanted), commits
    for number, step in enumerate(run.steps):
        out = tmp_path / f"killed-{number}"
        death = launcher.run(*command(workload, out, **settings), watch=out, kill_at=number)
        assert death.code == KILLED, step
        assert death.steps == run.steps[: number + 1]
        again = launcher.run(*next_command(workload, out, **settings))
        assert again.code == 6, (step, again.stderr)
        assert outcome(out) == expected, step
        check_account(out)
        shutil.rmtree(out)


def test_a_kill_at_every_step_of_a_resume_costs_nothing(launcher, workload, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    launcher.run(*command(workload, whole, **{"max-epochs": 2}))
    expected = outcome(whole)
    steps = launcher.run(*command(workload, killed, **{"max-epochs": 2}), watch=killed).steps
    shutil.rmtree(killed)
    torn = steps.index("tear events.jsonl")  # the first epoch's line is half written
    launcher.run(*command(workload, killed, **{"max-epochs": 2}), watch=killed, kill_at=torn + 1)
    kept = tmp_path / "kept"
    killed.rename(kept)
    shutil.copytree(kept, killed)
    resumed = launcher.run("--resume", str(killed), watch=killed)
    assert outcome(killed) == expected
    for number, step in enumerate(resumed.steps):
        shutil.rmtree(killed)
        shutil.copytree(kept, killed)
        death = launcher.run("--resume", str(killed), watch=killed, kill_at=number)
        assert death.code == KILLED, step
        again = launcher.run("--resume", str(killed))
        assert again.code == 6, (step, again.stderr)
        assert outcome(killed) == expected, step
        check_account(killed)


ENDED = {
    "target_reached": ({"max-epochs": 400}, 0),
    "limit_reached": ({"max-epochs": 2}, 6),
    "budget_exhausted": ({"budget": "0.0331"}, 3),
}


@pytest.mark.parametrize("reason", ENDED)
def test_resuming_a_run_that_has_ended_changes_nothing(launcher, workload, tmp_path, reason):
    settings, code = ENDED[reason]
    out = tmp_path / "run"
    first = launcher.run(*command(workload, out, **settings))
    assert (first.code, first.stderr) == (code, "")
    before, ledger = outcome(out), (out / "ledger.jsonl").read_bytes()
    assert before["summary"]["stop_reason"] == reason
    again = launcher.run("--resume", str(out))
    assert (again.code, again.stderr) == (code, "")
    assert outcome(out) == before
    assert (out / "ledger.jsonl").read_bytes() == ledger


def test_resuming_a_run_that_diverged_changes_nothing(launcher, tmp_path):
    wild = str(write_tiny_workload(tmp_path / "wild", training={"learning_rate": 1e30, "target_loss": 0.1}))
    out = tmp_path / "run"
    first = launcher.run(*command(wild, out))
    assert first.code == 5, first.stderr
    before = outcome(out)
    again = launcher.run("--resume", str(out))
    assert again.code == 5, again.stderr
    assert outcome(out) == before


def test_resuming_with_more_epochs_goes_on_as_if_it_had_never_stopped(launcher, workload, tmp_path):
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    assert launcher.run(*command(workload, stopped, **{"max-epochs": 3})).code == 6
    assert launcher.run("--resume", str(stopped), "--max-epochs", "7").code == 6
    assert launcher.run(*command(workload, whole, **{"max-epochs": 7})).code == 6
    assert outcome(stopped) == outcome(whole)


def test_the_default_number_of_epochs_can_be_asked_for_on_resume(launcher, workload, tmp_path):
    out = tmp_path / "run"
    assert launcher.run(*command(workload, out, **{"max-epochs": 3})).code == 6
    assert launcher.run("--resume", str(out), "--max-epochs", "500").code == 0


def test_resuming_with_more_time_goes_on(launcher, workload, tmp_path):
    out = tmp_path / "run"
    stopped = launcher.run(*command(workload, out, **{"max-time": 3}))
    assert stopped.code == 6
    assert "--max-time 3 s reached" in stopped.stdout
    assert launcher.run("--resume", str(out), "--max-time", "100000").code == 0


@pytest.mark.parametrize(
    "changed",
    [
        ["--budget", "5"],
        ["--workload", "softmax-digits"],
        ["--world", "siren-2019"],
        ["--policy", "fixed:1x1024"],
        ["--seed", "9"],
        ["--target-loss", "0.1"],
        ["--update-rule", "staleness"],
        ["--out", "elsewhere"],
    ],
    ids=lambda changed: changed[0],
)
def test_settings_cannot_be_changed_on_resume(launcher, workload, tmp_path, changed):
    out = tmp_path / "run"
    launcher.run(*command(workload, out, **{"max-epochs": 1}))
    before = outcome(out)
    refused = launcher.run("--resume", str(out), *changed)
    assert refused.code == 2
    assert_one_message(refused.stderr, f"{changed[0]} cannot be changed on --resume")
    assert refused.stdout == ""
    assert outcome(out) == before


def test_a_run_can_be_resumed_from_another_folder(workload, tmp_path, monkeypatch, checkout):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    world = (checkout / "envs" / "aws-2026.toml").read_text(encoding="utf-8")
    (tmp_path / "a" / "mine.toml").write_text(world, encoding="utf-8")
    shutil.copytree(workload, tmp_path / "a" / "job")
    start = [sys.executable, "-m", "siren.run"]
    arguments = command("./job", Path("run"), world="mine.toml", **{"max-epochs": 1})
    assert (
        subprocess.run([*start, *arguments], cwd=tmp_path / "a", check=False, capture_output=True).returncode
        == 6
    )
    again = [*start, "--resume", "../a/run", "--max-epochs", "2"]
    ended = subprocess.run(again, cwd=tmp_path / "b", check=False, capture_output=True, text=True)
    assert ended.returncode == 6, ended.stderr


def test_two_processes_on_one_folder_are_refused(workload, tmp_path):
    out = tmp_path / "run"
    start = [sys.executable, "-m", "siren.run"]
    arguments = command(workload, out, **{"target_loss".replace("_", "-"): 1e-6, "max-epochs": 100_000})
    first = subprocess.Popen([*start, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        wait_for_change(out, first, 60)
        second = subprocess.run([*start, "--resume", str(out)], check=False, capture_output=True, text=True)
        assert second.returncode == 4
        assert_one_message(second.stderr, f"is being run by another process (pid {first.pid})")
        third = subprocess.run([*start, *arguments], check=False, capture_output=True, text=True)
        assert third.returncode == 2
        assert_one_message(third.stderr, "is taken")
        assert first.poll() is None
    finally:
        first.send_signal(signal.SIGKILL)
        first.communicate()
    ended = subprocess.run(
        [*start, "--resume", str(out), "--max-epochs", "1"], check=False, capture_output=True, text=True
    )
    assert ended.returncode == 6, ended.stderr
    check_account(out)


def assert_one_message(text: str, *parts: str) -> None:
    """One clear message: one line, by the command's name, with what is asked for, without traceback."""
    assert text.count("siren.run:") == 1, text
    assert text.startswith("siren.run: ")
    assert len(text.strip().splitlines()) == 1, text
    assert "Traceback" not in text
    for part in parts:
        assert part in text, text


@pytest.fixture(scope="module")
def interrupted(launcher, workload, tmp_path_factory) -> Path:
    """A run of three epochs with a fourth one reserved."""
    out = tmp_path_factory.mktemp("interrupted") / "run"
    steps = launcher.run(*command(workload, out, **{"max-epochs": 5}), watch=out).steps
    shutil.rmtree(out)
    fourth = [number for number, step in enumerate(steps) if step == "tear events.jsonl"][3]
    launcher.run(*command(workload, out, **{"max-epochs": 5}), watch=out, kill_at=fourth)
    assert len(journal(out)) == 7
    return out


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def garbled(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for at in range(20, min(60, len(data))):
        data[at] = 0xFE
    path.write_bytes(bytes(data))


def gone(path: Path) -> None:
    path.unlink()


DAMAGE = [
    (name, damage)
    for name in (
        "config.json",
        "system.json",
        "events.jsonl",
        "ledger.jsonl",
        "checkpoints/epoch-000003.safetensors",
    )
    for damage in (truncated, emptied, garbled, gone)
]


@pytest.mark.parametrize(("name", "damage"), DAMAGE, ids=lambda part: getattr(part, "__name__", part))
def test_a_damaged_run_folder_is_refused_and_left_alone(launcher, interrupted, tmp_path, name, damage):
    out = tmp_path / "run"
    shutil.copytree(interrupted, out)
    damage(out / name)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and path.name != "lock"}
    refused = launcher.run("--resume", str(out))
    assert refused.code == 4, refused.stderr
    assert_one_message(refused.stderr, str(out))
    assert refused.stdout == ""
    after = {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and path.name != "lock"}
    repaired = {out / "events.jsonl", out / "ledger.jsonl"}  # a torn last line may be cut off
    for path, data in before.items():
        assert after[path] == data or (path in repaired and data.startswith(after[path]))
    assert set(after) == set(before)


CONFIG_FAULTS = {
    "no budget": {"budget_usd": None},
    "a budget in words": {"budget_usd": "two"},
    "a negative budget": {"budget_usd": -1},
    "epochs in words": {"max_epochs": "many"},
    "a seed in words": {"seed": "lucky"},
    "an unknown rule": {"update_rule": "addditive"},
    "no workload": {"workload": None},
    "a policy that is a number": {"policy": 5},
    "time in words": {"max_time": "long"},
    "a key too many": {"speed": 1},
    "notes that are none": {"notes": 7},
}


@pytest.mark.parametrize("fault", CONFIG_FAULTS)
def test_a_config_that_was_changed_by_hand_is_refused(launcher, interrupted, tmp_path, fault):
    out = tmp_path / "run"
    shutil.copytree(interrupted, out)
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({**config, **CONFIG_FAULTS[fault]}))
    refused = launcher.run("--resume", str(out))
    assert refused.code == 4, refused.stderr
    assert_one_message(refused.stderr, "config.json")


def test_a_ledger_without_its_last_settlement_is_completed(launcher, interrupted, workload, tmp_path):
    out, whole = tmp_path / "run", tmp_path / "whole"
    shutil.copytree(interrupted, out)
    lines = (out / "ledger.jsonl").read_text().splitlines(keepends=True)
    (out / "ledger.jsonl").write_text("".join(lines[:5]) + lines[5][: len(lines[5]) // 2])
    assert launcher.run("--resume", str(out)).code == 6
    launcher.run(*command(workload, whole, **{"max-epochs": 5}))
    assert outcome(out) == outcome(whole)


def test_a_ledger_that_lacks_whole_epochs_is_refused(launcher, interrupted, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(interrupted, out)
    lines = (out / "ledger.jsonl").read_text().splitlines(keepends=True)
    (out / "ledger.jsonl").write_text("".join(lines[:2]))
    refused = launcher.run("--resume", str(out))
    assert refused.code == 4
    assert_one_message(refused.stderr, "ledger.jsonl has no entry for epoch 2")


def test_events_that_lack_whole_epochs_are_refused(launcher, interrupted, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(interrupted, out)
    lines = (out / "events.jsonl").read_bytes().splitlines(keepends=True)
    (out / "events.jsonl").write_bytes(b"".join(lines[:1]))
    refused = launcher.run("--resume", str(out))
    assert refused.code == 4
    assert_one_message(refused.stderr, "ledger.jsonl has 3 epochs")


@pytest.mark.parametrize("tail", [b'{"dec', b"\0" * 40, b'{"decision":{}'], ids=["start", "zeros", "more"])
def test_a_torn_last_line_is_not_an_epoch(launcher, interrupted, workload, tmp_path, tail):
    out, whole = tmp_path / "run", tmp_path / "whole"
    shutil.copytree(interrupted, out)
    with (out / "events.jsonl").open("ab") as file:
        file.write(tail)
    with (out / "ledger.jsonl").open("ab") as file:
        file.write(b'{"record":"set')
    assert launcher.run("--resume", str(out)).code == 6
    launcher.run(*command(workload, whole, **{"max-epochs": 5}))
    assert outcome(out) == outcome(whole)


def test_there_is_nothing_to_resume_in_a_folder_that_is_none(launcher, tmp_path):
    for path, code in ((tmp_path / "missing", 2), (tmp_path, 4)):
        refused = launcher.run("--resume", str(path))
        assert refused.code == code
        assert_one_message(refused.stderr, str(path))


def test_a_folder_that_cannot_be_written_is_refused(launcher, workload, tmp_path):
    (tmp_path / "file").write_text("taken")
    refused = launcher.run(*command(workload, tmp_path / "file" / "run"))
    assert refused.code == 4
    assert_one_message(refused.stderr, "could not create the run folder")


def test_the_lock_is_free_after_a_kill(launcher, interrupted, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(interrupted, out)
    (out / "lock").write_text(f"{os.getpid()}\n")  # of a process that lives, but does not hold it
    assert launcher.run("--resume", str(out)).code == 6


def test_main_runs_in_a_thread_too(workload, tmp_path):
    from siren.run import RunConfig, main

    codes = []

    def work() -> None:
        config = RunConfig(
            budget="1", workload=workload, policy=POLICY, max_epochs=1, out=tmp_path / "run", print_json=True
        )
        codes.append(main(config))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert codes == [6]
