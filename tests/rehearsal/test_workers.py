"""Processes that rehearse: what they raise, how they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import pytest

from siren.errors import PlatformError, UnknownNameError, WorkloadError
from siren.rehearsal import workers
from siren.rehearsal.stage import Candidate, Stage
from siren.rehearsal.workers import StageSettings, Workers, make_stage
from siren.testing import tiny_model
from siren.testing.tiny import write_tiny_workload
from tests.ended import ended

PLAIN = Path(tiny_model.__file__).read_text(encoding="utf-8").partition("    @staticmethod")[0]
CURVE = (4, 1769, 3, 0.1, 7)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_tiny_workload(tmp_path_factory.mktemp("jobs") / "tiny", PLAIN)


def settings_of(workload: Path | str) -> StageSettings:
    return StageSettings(str(workload), {"target_loss": 0.4}, "aws-2026", 1.0)


def pool_of(settings: StageSettings, seconds: float = 60.0, count: int = 2) -> Workers:
    return Workers(make_stage(settings), settings, time.monotonic() + seconds, count)


def children(pool: Workers) -> list[int]:
    assert pool._executor is not None
    return list(pool._executor._processes)


def test_calls_are_shared_out_and_give_what_one_process_gives(folder):
    settings = settings_of(folder)
    pool = pool_of(settings)
    calls = [(*CURVE[:-1], seed) for seed in range(5)]
    found = sorted(curve.losses.tolist() for curve in pool.each("curve", calls, pool.deadline))
    pids = children(pool)
    pool.close()
    assert len(pids) == 2
    alone = Workers(make_stage(settings), None, time.monotonic() + 60)
    assert found == sorted(curve.losses.tolist() for curve in alone.each("curve", calls, alone.deadline))
    alone.close()
    assert ended(pids)


def test_after_the_deadline_nothing_starts(folder):
    for settings in (settings_of(folder), None):
        pool = Workers(make_stage(settings_of(folder)), settings, time.monotonic() - 1, 1)
        assert list(pool.each("curve", [CURVE], time.monotonic() + 60)) == []
        pool.close()


def test_what_a_call_cannot_end_is_left_behind_at_the_deadline(tmp_path):
    """A gradient of ten seconds ends with the rehearsal, not after itself."""
    slow = PLAIN.replace("import math\n", "import math\nimport time\n")
    slow = slow.replace("        score =", "        time.sleep(10)\n        score =", 1)
    settings = settings_of(write_tiny_workload(tmp_path / "slow", slow))
    pool = pool_of(settings, seconds=0.5)
    pids = children(pool)
    assert list(pool.each("curve", [CURVE, CURVE], pool.deadline)) == []
    pool.close()
    assert ended(pids)


LATE = """
    calls = 0

    def loss_and_grad(self, params, features, labels):
        Model.calls += 1
        if Model.calls > 30:
            raise ValueError('no good')
        return self.first_loss_and_grad(params, features, labels)
"""


def test_a_model_that_raises_is_told_as_in_a_run(tmp_path):
    late = PLAIN.replace("def loss_and_grad", "def first_loss_and_grad") + LATE
    pool = pool_of(settings_of(write_tiny_workload(tmp_path / "late", late)))
    with pytest.raises(WorkloadError, match=r"model.py.* raised ValueError: no good") as caught:
        list(pool.each("curve", [CURVE], pool.deadline))
    assert "\n" not in str(caught.value)
    pool.close()


def test_an_agent_that_does_not_exist_is_told_with_all_its_data(folder):
    pool = pool_of(settings_of(folder), count=1)
    call = (Candidate("x", agent="default-2062"), Decimal(1), 0.4, 1)
    with pytest.raises(UnknownNameError, match="did you mean 'default-2026'") as caught:
        list(pool.each("trial", [call], pool.deadline))
    assert caught.value.kind == "agent"
    pool.close()


def test_a_process_that_is_killed_is_told(folder):
    pool = pool_of(settings_of(folder))
    for pid in children(pool):
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(PlatformError, match="a process of the rehearsal was killed"):
        list(pool.each("curve", [CURVE] * 4, pool.deadline))
    pool.close()


PARENT = """
import os, sys, time
from siren.rehearsal.workers import StageSettings, Workers, make_stage
settings = StageSettings(sys.argv[1], {}, "aws-2026", 1.0)
pool = Workers(make_stage(settings), settings, time.monotonic() + 600, 2)
print(*pool._executor._processes, flush=True)
calls = ((4, 1769, 10**9, 1e-9, seed) for seed in range(10))
list(pool.each("curve", calls, pool.deadline))
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_processes_end_with_their_parent(folder, how):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(folder)], stdout=subprocess.PIPE, text=True, stderr=subprocess.PIPE
    )
    assert parent.stdout is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2
    parent.send_signal(how)
    parent.communicate(timeout=30)
    assert ended(pids)


def test_processes_that_are_not_forked_load_the_job_themselves(folder, monkeypatch):
    """By a path relative to the working directory, as a user gives it."""
    monkeypatch.setattr(workers, "sys", SimpleNamespace(platform="darwin"))
    monkeypatch.chdir(folder.parent)
    settings = settings_of("./tiny")
    stage = make_stage(settings)
    pool = Workers(stage, settings, time.monotonic() + 60, 1)
    (curve,) = pool.each("curve", [CURVE], pool.deadline)
    pool.close()
    assert curve.losses.tolist() == Stage(stage.workload, stage.costing).curve(*CURVE).losses.tolist()
