"""Write the page of a run: `python -m siren.report RUN`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TextIO

import tyro

from siren.analysis.page.source import read_run
from siren.analysis.page.write import REPORT, write_report
from siren.errors import SirenError


@dataclass(frozen=True)
class ReportConfig:
    """Write the page of a run, one HTML file that needs no network and no server.

    Every run leaves it as `report.html` in its folder; this makes it anew, also of a run that goes
    on or was killed. Exit codes: 0 written, 4 the run folder is missing or damaged, or the file
    cannot be written.
    """

    run: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="RUN")]]
    """The run folder."""

    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """The file. Default: report.html in the run folder."""


def main(config: ReportConfig, stdout: TextIO | None = None, stderr: TextIO | None = None) -> int:
    """Writes the page; returns the exit code.

    Args:
        config: What the user asked for.
        stdout: Where the file's name goes; `sys.stdout` by default.
        stderr: Where errors go; `sys.stderr` by default.
    """
    stdout, stderr = stdout or sys.stdout, stderr or sys.stderr
    out = config.out or config.run / REPORT
    try:
        write_report(read_run(config.run), out)
    except SirenError as error:
        print(f"siren.report: {error}", file=stderr)
        return error.exit_code
    print(out, file=stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(ReportConfig, prog="python -m siren.report")))
