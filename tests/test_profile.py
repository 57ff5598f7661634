"""`python -m siren.profile` end to end, and what `siren.plan` makes of its file."""

from __future__ import annotations

import io
import json
from decimal import Decimal
from pathlib import Path

import pytest

from siren.errors import PlatformError, UsageError
from siren.platforms.local import NEEDED
from siren.platforms.manager.platform import FunctionPlatform
from siren.platforms.select import Selected
from siren.platforms.twin import TwinPlatform
from siren.profile import ProfileConfig
from siren.profile import main as profile
from siren.profiling import measure as measuring
from siren.rehearsal.workers import StageSettings, make_stage
from siren.testing import tiny_model
from siren.testing.tiny import tiny_costing, write_tiny_workload
from siren.types import Action
from siren.workloads.profile import load_profile, profiled
from siren.workloads.registry import load_workload
from siren.worlds import load_world
from tests.keyboard import Keyboard
from tests.profiling.test_fit import made_of


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> Path:
    return write_tiny_workload(tmp_path_factory.mktemp("jobs") / "tiny")


def profiles(connect=None, answer="", **settings) -> tuple[int, str, str]:
    stdout, stderr = io.StringIO(), io.StringIO()
    stdin = Keyboard(answer) if answer else io.StringIO()
    code = profile(ProfileConfig(**settings), stdout, stderr, stdin, connect)
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
    code, stdout, _ = profiles(made_of, workload=str(job), out=file, print_json=True)
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


def test_the_plan_names_every_point_and_the_most_it_can_cost(job, deployed):
    code, stdout, said = profiles(platform="aws", workload=str(job), answer="n\n")
    assert (code, stdout) == (2, "")
    for shown in (
        "aws: real money is spent",
        "one cold and 5 warm epochs",
        "average over s3",
        "additive over redis",
        "5 functions of 768 MB: an epoch is expected to take",
        "at worst $0.05, the budget",
        "Spend it? [y/N]",
    ):
        assert shown in said
    assert "16 functions" not in said, "the deployment reserves five"
    assert "nothing was spent" in said
    assert deployed == []


def test_aws_measures_after_a_yes_on_the_keyboard_or_the_command_line(job, deployed):
    for options in ({"answer": "y\n"}, {"yes": True}):
        code, stdout, said = profiles(platform="aws", workload=str(job), **options)
        assert (code, stdout) == (4, "")
        assert said.endswith("as far as this test goes; end it here\n")
        assert ("Spend it?" in said) == ("answer" in options)
    assert deployed == ["open", "open"]
    assert not (job / "profile.json").exists()


def test_aws_does_not_spend_where_nobody_can_answer(job, deployed):
    code, _, said = profiles(platform="aws", workload=str(job))
    assert code == 2
    assert "add --yes to go on" in said
    assert deployed == []


@pytest.mark.parametrize("error", [PlatformError("Lambda is gone; resume later"), KeyboardInterrupt()])
def test_what_was_billed_before_a_failure_is_told(job, monkeypatch, error):
    epochs = []

    class Failing(TwinPlatform):
        spends_money = True

        def run_epoch(self, plan):
            if len(epochs) == 3:
                raise error
            epochs.append(super().run_epoch(plan))
            return epochs[-1]

    def connect(workload, world, seed):
        costing = tiny_costing(workload, world)
        return Selected(Failing(workload, costing, seed), costing)

    code, stdout, said = profiles(connect, workload=str(job), yes=True)
    assert (code, stdout) == (error.exit_code if isinstance(error, PlatformError) else 130, "")
    billed = Decimal(said.partition("at most $")[2].partition(" of $0.05 was billed")[0])
    assert len(epochs) == 3
    assert 0 < billed < Decimal("0.0125"), "the first tour's share"
    assert not (job / "profile.json").exists()


def test_half_vcpus_are_not_measured_where_nothing_holds_functions_to_them(monkeypatch):
    platform = object.__new__(FunctionPlatform)
    monkeypatch.setattr(FunctionPlatform, "connect", lambda self: None)
    actions = (Action(1, 1769), Action(1, 768), Action(2, 768))
    view = None
    for cpu, kept in (("cgroup v2", actions), ("not enforced", (Action(1, 1769), Action(2, 1769)))):
        facts = {"endpoint": {"confinement": {"cpu": cpu}}}
        monkeypatch.setattr(FunctionPlatform, "facts", facts)
        tour = measuring.Tour(platform, view, (1.0, 0.5), Decimal(1), actions, ())
        connected = measuring._connected(tour)
        assert connected.actions == kept
        assert ("not held to their share" in " ".join(connected.notes)) == (cpu == "not enforced")


def test_real_functions_on_this_machine_are_profiled(monkeypatch, tmp_path):
    """End to end: servers, functions, REPORT lines, ledger, fit, file and figure."""
    for package in NEEDED:
        pytest.importorskip(package)
    source = Path(tiny_model.__file__).read_text(encoding="utf-8").partition("    @staticmethod")[0]
    training = {"learning_rate": 0.05, "batch_rule": "split"}
    job = write_tiny_workload(tmp_path / "tiny", source, training=training)
    monkeypatch.setattr(measuring, "WARM", 2)
    monkeypatch.setattr("siren.profile.usable_cores", lambda: 2)
    picture = tmp_path / "profile.png"
    code, stdout, stderr = profiles(platform="local", workload=str(job), figure=picture)
    assert code == 0, stderr
    kept = load_profile(job / "profile.json")
    assert (kept.platform, kept.world) == ("local", "local")
    assert Decimal(0) < Decimal(kept.spent_usd) <= Decimal(kept.budget_usd)
    assert {(point.functions, point.memory_mb) for point in kept.points} <= {(1, 1769), (1, 768), (2, 768)}
    assert (1, 1769) in {(point.functions, point.memory_mb) for point in kept.points}
    assert all(point.compute_s > 0 and point.fetch_s > 0 for point in kept.points)
    assert kept.cold_starts == sum(cold.starts for cold in kept.cold) > 0
    assert all(cold.init_s > 0.01 for cold in kept.cold), "from REPORT lines"
    assert "so points of more than 2 functions are left out" in kept.notes
    sample = kept.constants["seconds_per_sample"]
    assert sample.low <= sample.value <= sample.high
    assert sample.value < sample.assumed, "the model takes microseconds, made up is a millisecond"
    assert kept.constants["import_s"].high > 0
    assert "nothing was spent" in stdout
    assert "initialisation of" in stdout
    assert picture.read_bytes().startswith(b"\x89PNG")
    profiled(load_workload(str(job)), load_world("local"), str(job / "profile.json"))
