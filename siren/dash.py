"""Watch runs in a browser: `python -m siren.dash`."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TextIO

import tyro

from siren.analysis.live.listing import Runs
from siren.analysis.live.server import HOST, check_installed, listen, serve
from siren.errors import SirenError, UsageError


@dataclass(frozen=True)
class DashConfig:
    """Serve the pages of runs, which follow them while they go on, and a list of all runs.

    Nobody but this machine can reach them, and nothing can be changed there. To watch from another
    one, tunnel: `ssh -L 8765:127.0.0.1:8765 MACHINE`. Ctrl-C ends it. Needs the extra `dash`. Exit
    codes: 0 ended by Ctrl-C, 2 usage.
    """

    folder: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="RUNS_FOLDER|RUN")]] = Path("runs")
    """The folder that holds run folders, or one run folder."""

    port: Annotated[int, tyro.conf.arg(metavar="N")] = 8765
    """Port on 127.0.0.1; 0 for any that is free."""


def main(config: DashConfig, stdout: TextIO | None = None, stderr: TextIO | None = None) -> int:
    """Serves until Ctrl-C; returns the exit code.

    Args:
        config: What the user asked for.
        stdout: Where the address goes; `sys.stdout` by default.
        stderr: Where errors go; `sys.stderr` by default.
    """
    stdout, stderr = stdout or sys.stdout, stderr or sys.stderr
    try:
        if not config.folder.is_dir():
            raise UsageError(
                f"there is no folder {config.folder}: name one that holds runs, or make a run with "
                "`python -m siren.run --budget 2.00`"
            )
        check_installed()
        with listen(config.port) as listening:
            port = listening.getsockname()[1]
            print(f"http://{HOST}:{port}/ shows {config.folder}; Ctrl-C ends it", file=stdout, flush=True)
            serve(Runs(config.folder), listening)
    except SirenError as error:
        print(f"siren.dash: {error}", file=stderr)
        return error.exit_code
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(message)s")
    sys.exit(main(tyro.cli(DashConfig, prog="python -m siren.dash")))
