"""Whole evaluations, so small that each takes a second or two."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from siren.evaluate import EvaluateConfig, main
from siren.evaluation import seeds
from siren.evaluation.statistics import COLUMNS
from siren.testing.tiny import write_tiny_workload

ASKED_KEYS = {
    "policy", "workload", "world", "batch_rule", "update_rule", "budget_ratio", "seeds", "success_rate",
    "time_s", "failure_counted_ratio", "ratio_to_best_fixed", "ratio_to_bound", "cost_usd", "overspent_usd",
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def base(tmp_path_factory):
    """A folder with the tiny workload, and a cache in which everything is chosen on three seeds."""
    base = tmp_path_factory.mktemp("evaluate")
    write_tiny_workload(base / "tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIREN_CACHE", str(base / "cache"))
        patch.setattr(seeds, "SELECT_COUNT", 3)
        yield base


@pytest.fixture(scope="module")
def tiny(base):
    """An evaluation, and the rows that one process made of it without a break."""
    config = EvaluateConfig(
        policies="best-fixed,fixed:4x1769,greedy",
        workloads=str(base / "tiny"),
        platform="twin",
        budgets="1.5,3",
        seeds=8,
        workers=1,
        out=base / "out",
        print_json=True,
    )
    return config, rows_of(config)


def command(config, out):
    """The same evaluation in a process of its own, in another folder."""
    options = ("policies", "workloads", "platform", "budgets", "seeds", "workers")
    given = [text for name in options for text in (f"--{name}", str(getattr(config, name)))]
    return [sys.executable, "-m", "siren.evaluate", *given, "--out", str(out)]


def begun(episodes, process):
    """Waits until an episode is kept."""
    while process.poll() is None and not (episodes.exists() and episodes.stat().st_size):
        time.sleep(0.002)


def evaluated(config):
    stdout, stderr = io.StringIO(), io.StringIO()
    code = main(config, stdout, stderr)
    return code, stdout.getvalue(), stderr.getvalue()


def rows_of(config):
    code, stdout, stderr = evaluated(config)
    assert code == 0, stderr
    return json.loads(stdout)


def test_the_twin_plays_a_named_workload(tiny):
    config, rows = tiny
    assert [(r["policy"], r["budget_ratio"]) for r in rows] == [
        (policy, ratio) for ratio in (1.5, 3.0) for policy in ("best-fixed", "fixed:4x1769", "greedy")
    ]
    for row in rows:
        assert tuple(row) == COLUMNS
        assert set(row) >= ASKED_KEYS
        assert (row["workload"], row["world"], row["seeds"]) == ("tiny", "aws-2026", 8)
        assert (row["batch_rule"], row["update_rule"]) == ("constant", "additive")
        assert row["overspent_usd"] == 0
        assert row["ratio_to_bound"] is None
    best = [row for row in rows if row["policy"] == "best-fixed"]
    assert [row["ratio_to_best_fixed"] for row in best] == [1.0, 1.0]
    assert all(row["success_rate"] > 0.5 for row in best)
    assert best[1]["time_s"] < best[0]["time_s"]
    for name in ("rows.csv", "rows.json", "figure.png"):
        assert (config.out / name).stat().st_size > 0
    with (config.out / "rows.csv").open() as file:
        assert [row["policy"] for row in csv.DictReader(file)] == [row["policy"] for row in rows]


def test_the_simulator_plays_a_generated_job(tmp_path):
    config = EvaluateConfig(
        policies="two-phase,planner,grid-search,lower-bound",
        budgets="2",
        update_rules="additive",
        jobs=1,
        seeds=3,
        workers=1,
        out=tmp_path / "out",
        print_json=True,
    )
    rows = {row["policy"]: row for row in rows_of(config)}
    assert list(rows) == ["best-fixed", "two-phase", "planner", "grid-search", "lower-bound"]
    assert rows["best-fixed"]["ratio_to_best_fixed"] == rows["lower-bound"]["ratio_to_bound"] == 1.0
    assert rows["best-fixed"]["success_rate"] > 0.5
    assert all(row["ratio_to_bound"] >= 1 for row in rows.values())
    assert rows["planner"]["ratio_to_best_fixed"] < rows["grid-search"]["ratio_to_best_fixed"]
    assert all(row["overspent_usd"] == 0 for row in rows.values())


def test_one_process_and_two_give_the_same_numbers(tiny, tmp_path):
    config, rows = tiny
    assert rows_of(replace(config, workers=2, out=tmp_path / "together")) == rows


def test_a_killed_evaluation_goes_on(tiny, tmp_path):
    config, rows = tiny
    out = tmp_path / "killed"
    process = subprocess.Popen(command(config, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    episodes = out / "episodes.jsonl"
    try:
        begun(episodes, process)
    finally:
        process.kill()
        process.wait()
    kept = episodes.read_bytes()
    assert kept
    with episodes.open("ab") as file:
        file.write(b'{"case": 0, "pol')  # as if the kill had come in the middle of a line
    assert rows_of(replace(config, out=out)) == rows
    assert episodes.read_bytes().startswith(kept)
    lines = [json.loads(line) for line in episodes.read_text().splitlines()]
    assert len({(line["case"], line["policy"], line["seed"]) for line in lines}) == len(lines) == 2 * 3 * 8


def test_an_interrupt_ends_with_130_and_says_how_to_go_on(tiny, tmp_path):
    config, _ = tiny
    out = tmp_path / "interrupted"
    process = subprocess.Popen(
        command(replace(config, seeds=2000, workers=2), out),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    begun(out / "episodes.jsonl", process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: parent and workers
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert stdout == ""
    assert f"--out {out} to go on" in stderr
    assert "Traceback" not in stderr


def test_other_arguments_in_the_same_folder_are_refused(tiny):
    config, _ = tiny
    code, stdout, stderr = evaluated(replace(config, seeds=9))
    assert (code, stdout) == (2, "")
    assert "another --seeds" in stderr


def test_a_folder_with_something_else_is_left_alone(tiny, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    code, _, stderr = evaluated(replace(tiny[0], out=tmp_path))
    assert code == 2
    assert "is taken" in stderr
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"policies": "oracle"}, "no policy named 'oracle'"),
        ({"budgets": "0.5"}, "--budgets 0.5"),
        ({"budgets": "cheap"}, "--budgets cheap"),
        ({"workers": 0}, "--workers 0"),
        ({"workloads": "no-such"}, "no workload named 'no-such'"),
        ({"update_rules": "overwrite,hogwild"}, "hogwild"),
        ({"platform": "aws"}, "no platform named 'aws'"),
        ({"worlds": "mars"}, "no world named 'mars'"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(tiny, changes, said):
    code, stdout, stderr = evaluated(replace(tiny[0], **changes))
    assert (code, stdout) == (2, "")
    assert said in stderr
    assert "Traceback" not in stderr


def test_without_json_a_table_says_what_counts(tiny):
    code, stdout, stderr = evaluated(replace(tiny[0], print_json=False))
    assert code == 0
    assert "3 x the cheapest budget, 8 seeds a job" in stdout
    assert "greedy" in stdout
    assert "overspent in all: $0.00" in stdout
    assert "48 of 48 episodes" in stderr  # all were played before
