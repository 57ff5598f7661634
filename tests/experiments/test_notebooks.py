"""Notebooks run, and those that are committed hold their full outputs."""

from __future__ import annotations

import base64
import getpass
import json
import os
import re
import socket
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import nbformat
import pytest

from siren.testing.faults.rig import processes_with

CHECKOUT = Path(__file__).resolve().parent.parent.parent
FOLDER = CHECKOUT / "experiments" / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
LARGEST_BYTES = 400_000
ALLOWED = {"siren", "numpy", "matplotlib"}


def outputs_of(notebook: Any) -> list[Any]:
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


def figures_of(notebook: Any) -> list[bytes]:
    images = [output.data.get("image/png") for output in outputs_of(notebook) if "data" in output]
    return [base64.b64decode(image) for image in images if image]


def code_of(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all notebooks, executed by fresh kernels in the fast mode."""
    out, mark = tmp_path_factory.mktemp("notebooks"), uuid.uuid4().hex
    command = [sys.executable, str(FOLDER / "run.py"), "--fast", "--out", str(out)]
    ran = subprocess.run(
        command, check=False, capture_output=True, text=True, env=os.environ | {"MARK_OF_TEST": mark}
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    assert processes_with(mark) == [], "kernels end with the command"
    return out


def test_there_are_six():
    assert [name[0] for name in NAMES] == list("123456")


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_and_draws_what_the_committed_one_shows(executed, name):
    fast = nbformat.read(executed / f"{name}.ipynb", as_version=4)
    committed = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    assert [cell.source for cell in fast.cells] == [cell.source for cell in committed.cells]
    assert not [output for output in outputs_of(fast) if output.output_type == "error"]
    assert len(figures_of(fast)) == len(figures_of(committed)) >= 2


@pytest.mark.parametrize("name", NAMES)
def test_a_committed_notebook_was_run_in_order_without_complaints(name):
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    cells = code_of(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    kinds = {(output.output_type, output.get("name", "")) for output in outputs_of(notebook)}
    assert kinds <= {("display_data", ""), ("execute_result", ""), ("stream", "stdout")}
    assert all(image.startswith(b"\x89PNG") and len(image) > 5000 for image in figures_of(notebook))
    drawing = [cell for cell in cells if "plt.show()" in cell.source]
    assert drawing
    assert all(any("image/png" in o.get("data", {}) for o in cell.outputs) for cell in drawing)


@pytest.mark.parametrize("name", NAMES)
def test_a_committed_notebook_is_small_and_says_nothing_of_the_machine(name):
    path = FOLDER / f"{name}.ipynb"
    assert path.stat().st_size < LARGEST_BYTES
    notebook = nbformat.read(path, as_version=4)
    for output in outputs_of(notebook):
        output.get("data", {}).pop("image/png", None)
    assert not re.search(r"/(home|root|tmp|work|Users|private|var)/", json.dumps(notebook))
    printed = json.dumps(outputs_of(notebook))
    assert not re.search(rf"\b({re.escape(socket.gethostname())}|{re.escape(getpass.getuser())})\b", printed)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert all(set(cell.metadata) <= {"tags"} for cell in notebook.cells)


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_imports_the_package_alone_and_its_cells_are_thin(name):
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    source = "\n".join(cell.source for cell in code_of(notebook))
    imported = {
        line.split()[1].partition(".")[0] for line in re.findall(r"^(?:import|from) .+", source, re.M)
    }
    assert imported - set(sys.stdlib_module_names) <= ALLOWED
    assert not re.search(r"(from|import) siren\._|siren\.\w+\._", source), "public modules only"
    assert max(len(cell.source.splitlines()) for cell in code_of(notebook)) <= 40
    tagged = [cell for cell in code_of(notebook) if "parameters" in cell.metadata.get("tags", ())]
    assert tagged == [code_of(notebook)[0]]


@pytest.mark.parametrize("name", NAMES)
def test_every_notebook_has_its_line_in_the_readme(name):
    assert f"({name}.ipynb)" in (FOLDER / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("arguments", [["7_unknown"], ["--fast"]])
def test_what_cannot_be_run_is_refused(arguments):
    command = [sys.executable, str(FOLDER / "run.py"), *arguments]
    ran = subprocess.run(command, check=False, capture_output=True, text=True)
    assert ran.returncode == 2
    assert "Traceback" not in ran.stderr
