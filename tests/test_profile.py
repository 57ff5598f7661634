"""`python -m siren.profile` end to end, and what `siren.plan` makes of its file."""

from __future__ import annotations

import io
import json
from decimal import Decimal
from pathlib import Path

import pytest

from siren.errors import UsageError
from siren.profile import ProfileConfig
from siren.profile import main as profile
from siren.rehearsal.workers import StageSettings, make_stage
from siren.testing.tiny import write_tiny_workload
from siren.workloads.profile import load_profile, profiled
from siren.workloads.registry import load_workload
from siren.worlds import load_world
from tests.profiling.test_fit import made_of


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> Path:
    return write_tiny_workload(tmp_path_factory.mktemp("jobs") / "tiny")


def profiles(platforms=None, **settings) -> tuple[int, str, str]:
    stdout, stderr = io.StringIO(), io.StringIO()
    code = profile(ProfileConfig(**settings), stdout, stderr, *([platforms] if platforms else []))
    return code, stdout.getvalue(), stderr.getvalue()


def test_a_profile_is_written_beside_the_workload_and_shown_with_a_figure(job, tmp_path):
    picture = tmp_path / "profile.png"
    code, stdout, stderr = profiles(workload=str(job), figure=picture)
    assert (code, stderr) == (0, "")
    assert "measured / fitted" in stdout
    assert "seconds_per_sample" in stdout
    assert picture.read_bytes().startswith(b"\x89PNG")
    kept = load_profile(job / "profile.json")
    assert Decimal(kept.spent_usd) <= Decimal(kept.budget_usd) == Decimal("0.05")
    assert {point.functions for point in kept.points} >= {1, 4}
    (job / "profile.json").unlink()


def test_what_was_measured_takes_the_place_of_what_was_assumed(job, tmp_path):
    file = tmp_path / "mine.json"
    code, stdout, _ = profiles({"twin": made_of}, workload=str(job), out=file, print_json=True)
    assert code == 0
    assert json.loads(stdout) == json.loads(file.read_text())
    assert not (job / "profile.json").exists()
    settings = StageSettings(str(job), {}, "aws-2026", 1.0, str(file))
    stage = make_stage(settings)
    assert stage.costing.job.seconds_per_sample == pytest.approx(2e-3, rel=0.1)
    assert stage.costing.job.import_s == pytest.approx(0.3, rel=0.2)
    plain = make_stage(StageSettings(str(job), {}, "aws-2026", 1.0))
    assert plain.costing.job.seconds_per_sample == 1e-3


def test_a_profile_of_another_job_or_channel_is_refused(job, tmp_path):
    file = tmp_path / "mine.json"
    assert profiles(workload=str(job), out=file)[0] == 0
    world = load_world("aws-2026")
    other = load_workload(str(job), overrides={"update_rule": "average", "channel": "s3"})
    with pytest.raises(UsageError, match="over redis"):
        profiled(other, world, str(file))
    file.write_text("{}")
    with pytest.raises(UsageError, match=r"siren\.profile"):
        profiled(other, world, str(file))


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"platform": "aws"}, "cannot be profiled yet"),
        ({"platform": "twn"}, "did you mean 'twin'"),
        ({"budget": "0.0000001"}, "budget"),
        ({"budget": "0.00001"}, "give more"),
        ({"seed": -1}, "--seed"),
    ],
)
def test_what_cannot_be_measured_is_refused(job, settings, word, tmp_path):
    code, stdout, stderr = profiles(workload=str(job), out=tmp_path / "p.json", **settings)
    assert (code, stdout) == (2, "")
    assert word in stderr
    assert not (tmp_path / "p.json").exists()


def test_a_file_that_cannot_be_written_is_told(job, tmp_path):
    code, stdout, stderr = profiles(workload=str(job), out=tmp_path / "no" / "folder.json")
    assert (code, stdout) == (4, "")
    assert "could not write" in stderr
