"""The command that makes the page of an old run."""

from __future__ import annotations

import io
import subprocess
import sys

from siren.report import ReportConfig, main
from tests.analysis import samples
from tests.analysis.page import folders


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
