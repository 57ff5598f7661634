"""The command that makes the page of an old run."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest

from siren.analysis.run_folder import RunFolder
from siren.errors import PlatformError
from siren.loop import Limits
from siren.report import ReportConfig, main
from siren.testing.fakes import FakePlatform
from tests.analysis import samples
from tests.analysis.page import folders
from tests.test_training import COSTING, trainer_on


def run(*arguments, **options):
    out, err = io.StringIO(), io.StringIO()
    return main(ReportConfig(*arguments, **options), out, err), out.getvalue(), err.getvalue()


def test_the_page_goes_into_the_run_folder_or_elsewhere(tmp_path):
    folders.ended(tmp_path / "run", samples.epochs(3))
    code, out, err = run(tmp_path / "run")
    assert (code, out.strip(), err) == (0, str(tmp_path / "run" / "report.html"), "")
    code, out, err = run(tmp_path / "run", out=tmp_path / "page.html")
    assert (code, err) == (0, "")
    assert (tmp_path / "page.html").read_bytes() == (tmp_path / "run" / "report.html").read_bytes()


def test_what_is_no_run_is_refused(tmp_path):
    code, out, err = run(tmp_path / "nothing")
    assert (code, out) == (4, "")
    assert err.startswith(f"siren.report: there is no run folder {tmp_path / 'nothing'}")
    assert not (tmp_path / "nothing").exists()


def test_the_command_takes_a_folder(tmp_path):
    folders.ended(tmp_path / "run", samples.epochs(3))
    command = [sys.executable, "-m", "siren.report", "run", "--out", "page.html"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "page.html\n"
    assert "<!doctype html>" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (None, "stopped at a limit before the target"),
        (PlatformError("the region is on fire: use another"), "the platform failed"),
        (KeyboardInterrupt(), "interrupted"),
    ],
    ids=["ended", "failed", "interrupted"],
)
def test_every_run_leaves_its_page_however_it_ends(tmp_path, failure, said):
    failures = {} if failure is None else {2: failure}
    trainer_on(
        tmp_path / "run", FakePlatform(COSTING, losses=(0.9, 0.8), failures=failures), limits=Limits(0.1, 3)
    ).run()
    page = (tmp_path / "run" / "report.html").read_text()
    assert f'"text":"{said}"' in page


def test_a_run_that_a_defect_ends_leaves_its_page_too(tmp_path):
    path = tmp_path / "run"
    platform = FakePlatform(COSTING, failures={1: ZeroDivisionError("a fault of ours")})
    RunFolder.create(path, folders.CONFIG, folders.SYSTEM)
    with pytest.raises(ZeroDivisionError):
        trainer_on(path, platform).run()
    assert '"text":"stopped without an end"' in (path / "report.html").read_text()


def test_a_page_that_cannot_be_written_does_not_stop_a_run(tmp_path, caplog):
    trainer = trainer_on(tmp_path / "run", FakePlatform(COSTING), limits=Limits(0.1, 2))
    (tmp_path / "run" / "report.html").mkdir()
    assert trainer.run().epochs == 2
    assert "this run has no report.html" in caplog.text
