"""The command that serves pages."""

from __future__ import annotations

import io
import signal
import subprocess
import sys

import httpx
import pytest

from siren.dash import DashConfig, main
from siren.errors import MissingExtraError
from tests.analysis import samples
from tests.analysis.page import folders


def test_it_serves_until_ctrl_c_even_while_somebody_listens(tmp_path):
    folders.ended(tmp_path / "runs" / "one", samples.epochs(3))
    command = [sys.executable, "-m", "siren.dash", "--port", "0"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as dash:
        try:
            address, _, rest = dash.stdout.readline().partition(" ")
            assert address.startswith("http://127.0.0.1:")
            assert rest == "shows runs; Ctrl-C ends it\n"
            assert "one" in httpx.get(address).text
            with httpx.stream("GET", f"{address}events") as answer:
                assert next(answer.iter_lines()).startswith("data: ")
                dash.send_signal(signal.SIGINT)
                assert dash.wait(30) == 0
        finally:
            dash.kill()
        assert dash.stderr.read() == ""


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    err = io.StringIO()
    assert main(DashConfig(tmp_path / "runs"), io.StringIO(), err) == 2
    assert "there is no folder" in err.getvalue()


@pytest.mark.parametrize("package", ["uvicorn", "starlette"])
def test_nothing_is_promised_without_the_packages_that_serve(tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    out, err = io.StringIO(), io.StringIO()
    assert main(DashConfig(tmp_path, port=0), out, err) == MissingExtraError.exit_code
    assert out.getvalue() == ""
    assert f"{package} is not installed" in err.getvalue()
    assert "siren-scheduler[dash]" in err.getvalue()
