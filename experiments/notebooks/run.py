"""Executes the notebooks of this folder and writes them, with their outputs, in place.

    python experiments/notebooks/run.py                       # all, fully: some minutes
    python experiments/notebooks/run.py 4_budget_frontiers    # one of them
    python experiments/notebooks/run.py --fast --out FOLDER   # as the tests do: fewer seeds, nothing to quote

Nothing is kept of when and where that was: on one machine, the same code writes the same file.
"""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import nbformat
import tyro
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from traitlets.config import Config

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent.parent
CELL_TIMEOUT_S = 1800
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class NotebooksConfig:
    """Execute notebooks and write them with their outputs."""

    names: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Which ones, without .ipynb. Default: all."""

    fast: bool = False
    """Fewer seeds, epochs and jobs: what the tests execute, nothing to quote. Needs --out."""

    out: Path | None = None
    """Where to write them. Default: in place."""


def kernel_environment(scratch: str, *, fast: bool) -> dict[str, str]:
    """The environment of a kernel: this checkout, one thread, figures as outputs, no history kept."""
    changes = {
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
        "IPYTHONDIR": scratch,
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "SIREN_FAST": "1" if fast else "",
        **dict.fromkeys(THREADS, "1"),
    }
    return os.environ | changes


def execute(notebook: NotebookNode, *, fast: bool) -> NotebookNode:
    """The notebook with the outputs of a fresh kernel, which has ended.

    Raises:
        CellExecutionError: A cell raised.
    """
    with tempfile.TemporaryDirectory() as scratch:
        sockets = {
            "transport": "ipc",
            "connection_file": f"{scratch}/kernel.json",
        }  # no port that others can reach
        client = NotebookClient(
            notebook,
            config=Config(KernelManager=sockets),
            timeout=CELL_TIMEOUT_S,
            kernel_name="python3",
            record_timing=False,
            resources={"metadata": {"path": scratch}},
        )
        return normalised(client.execute(env=kernel_environment(scratch, fast=fast)))


def normalised(notebook: NotebookNode) -> NotebookNode:
    """The notebook without what the machine, the time or an editor left in it."""
    notebook.metadata = NotebookNode(
        kernelspec={"display_name": "Python 3", "language": "python", "name": "python3"},
        language_info={"name": "python"},
    )
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02d}"
        cell.metadata = NotebookNode({k: v for k, v in cell.metadata.items() if k == "tags"})
        for output in cell.get("outputs", ()):
            output.pop("metadata", None) if output.output_type == "stream" else output.update(metadata={})
    return notebook


def warned(notebook: NotebookNode) -> str:
    """What cells wrote to stderr."""
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", ()))
    return "".join(output.text for output in outputs if output.get("name") == "stderr")


def main(config: NotebooksConfig) -> int:
    """Executes; returns 0, or 1 if a notebook failed or wrote to stderr."""
    names = config.names or tuple(sorted(path.stem for path in FOLDER.glob("*.ipynb")))
    unknown = [name for name in names if not (FOLDER / f"{name}.ipynb").is_file()]
    if unknown or (config.fast and config.out is None):
        problem = f"there is no notebook {unknown[0]}" if unknown else "--fast needs --out FOLDER"
        print(f"run.py: {problem}", file=sys.stderr)
        return 2
    out, failed = config.out or FOLDER, False
    out.mkdir(parents=True, exist_ok=True)
    for name in names:
        try:
            notebook = execute(nbformat.read(FOLDER / f"{name}.ipynb", as_version=4), fast=config.fast)
        except CellExecutionError as error:
            print(f"{name}: {error}", file=sys.stderr)
            failed = True
            continue
        if warned(notebook):
            print(f"{name} wrote to stderr: {warned(notebook)}", file=sys.stderr)
            failed = True
        nbformat.write(notebook, out / f"{name}.ipynb")
        print(f"{name}: {(out / f'{name}.ipynb').stat().st_size / 1000:.0f} kB", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(NotebooksConfig, prog="python experiments/notebooks/run.py")))
