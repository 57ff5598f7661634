"""All runs of a folder, as one JSON document."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from siren.analysis import _format
from siren.analysis.page.charts import loss_text
from siren.analysis.page.document import Fact, State, state_of
from siren.analysis.page.source import Run, RunReader
from siren.analysis.page.specs import plain
from siren.analysis.run_folder import CONFIG
from siren.errors import RunFolderError
from siren.units import counted


class Runs:
    """The run folders that may be looked at; no other file is ever read.

    Args:
        folder: A folder of run folders, or one run folder.
    """

    def __init__(self, folder: Path) -> None:
        folder = folder.resolve()
        self.only = folder.name if is_run_folder(folder) else None
        self.root = folder.parent if self.only else folder
        self._known: dict[str, tuple[RunReader, dict[str, Any]]] = {}

    def names(self) -> tuple[str, ...]:
        """Names of the runs, that which began last first."""
        if self.only:
            return (self.only,)
        found = []
        for path in self.root.iterdir() if self.root.is_dir() else ():
            with contextlib.suppress(OSError):  # a folder may go away while it is looked at
                if self._is_inside(path):
                    found.append(((path / CONFIG).stat().st_mtime_ns, path.name))
        return tuple(name for _, name in sorted(found, reverse=True))

    def path(self, name: str) -> Path | None:
        """The folder of a run; None if there is no such run here."""
        return self.root / name if name in self.names() else None

    def document(self) -> dict[str, Any]:
        """The list: name, workload, state, loss, dollars and epochs of each run."""
        entries = [self._entry(name) for name in self.names()]
        running = sum(entry["state"]["tone"] == "live" for entry in entries)
        said = f"{counted(len(entries), 'run')} in {self.root.name}, {running} running."
        return {"kind": "runs", "heading": "Runs", "lede": said, "runs": entries}

    def _entry(self, name: str) -> dict[str, Any]:
        """A line of the list; read again only if the run changed."""
        try:
            reader, entry = self._known.get(name) or (RunReader(self.root / name), {})
            if not entry or reader.changed():
                entry = _entry_of(name, reader.read())
                self._known[name] = (reader, entry)
        except RunFolderError as error:
            self._known.pop(name, None)
            state = State("bad", "cannot be read")
            return {
                "name": name,
                "workload": _format.clean(str(error)),
                "state": plain(state),
                "facts": [],
            }
        return entry

    def _is_inside(self, path: Path) -> bool:
        """Whether it is a run folder, and lies in this folder by its real name too."""
        return is_run_folder(path) and path.resolve().parent == self.root


def is_run_folder(path: Path) -> bool:
    """Whether a folder is that of a run."""
    return (path / CONFIG).is_file()


def _entry_of(name: str, run: Run) -> dict[str, Any]:
    header = run.header
    spent = float(run.cost_usd / header.budget_usd)
    facts: Iterable[Fact] = (
        Fact("loss", loss_text(run.loss), f"target {header.target_loss:g}"),
        Fact(
            "spent",
            _format.dollars(run.cost_usd),
            f"of {_format.budget(header.budget_usd)}",
            min(1.0, spent),
        ),
        Fact("epochs", f"{len(run.records):,}", _format.seconds(run.elapsed_s)),
    )
    return {
        "name": name,
        "workload": _format.clean(f"{header.workload} on {header.platform}, {header.policy}"),
        "state": plain(state_of(run)),
        "facts": [plain(fact) for fact in facts],
    }
