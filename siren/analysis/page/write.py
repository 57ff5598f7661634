"""`report.html` in a run folder."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from pathlib import Path

from siren.analysis._disk import Disk
from siren.analysis.page.document import run_document
from siren.analysis.page.html import page
from siren.analysis.page.source import Run, ended_run, read_run
from siren.analysis.run_folder import RunFolder
from siren.errors import RunFolderError
from siren.types import EpochRecord, RunSummary

REPORT = "report.html"

log = logging.getLogger(__name__)


def write_report(run: Run, out: Path) -> None:
    """Writes the page of a run, whole or not at all.

    Args:
        run: What it shows.
        out: The file; its folder must exist.

    Raises:
        RunFolderError: It cannot be written.
    """
    text = page(run_document(run))
    try:
        Disk().replace(out, text.encode())
    except OSError as error:
        raise RunFolderError(
            f"could not write {out}: {error.strerror or error}; choose another file with --out"
        ) from error


def leave_report(folder: RunFolder, epochs: Sequence[EpochRecord], summary: RunSummary | None) -> None:
    """Leaves `report.html` in the folder of a run that ends; a run never fails for want of it.

    Args:
        folder: The run folder.
        epochs: The epochs of the run.
        summary: How it ended; None if there was no time to say so, and the folder is read.
    """
    if not folder.path.is_dir():  # a run that is kept in memory
        return
    try:
        if summary is None:
            run = read_run(folder.path, running=False)
        else:
            run = ended_run(folder, epochs, summary)
        write_report(run, folder.path / REPORT)
    except Exception as error:  # whatever it is, the run itself is safe on disk
        again = f"python -m siren.report {shlex.quote(str(folder.path))}"
        log.warning("this run has no %s: %s; try `%s`", REPORT, error, again)
