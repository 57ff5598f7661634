"""What a run ran on: versions, commit, machine."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from siren.platforms.processes import usable_cores

_PACKAGES = ("siren-scheduler", "numpy", "numba", "torch")
_GIT_TIMEOUT_S = 10


def system_facts() -> dict[str, Any]:
    """Return what a number in a report depends on beside the config.

    Returns:
        `python`, `platform`, `host`, `cores` (usable by this process), `time_utc`, `argv`,
        `versions` (package to version, None where not installed), `commit` and `dirty` of the
        checkout that Siren is imported from (None where it is not one).
    """
    commit, dirty = _git_state(Path(__file__).resolve().parents[2])
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": platform.node(),
        "cores": usable_cores(),
        "time_utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "argv": list(sys.argv),
        "versions": {package: _version(package) for package in _PACKAGES},
        "commit": commit,
        "dirty": dirty,
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_state(checkout: Path) -> tuple[str | None, bool | None]:
    """The commit, and whether the files differ from it; None where that cannot be known."""
    if not (checkout / ".git").exists():
        return None, None
    commit = _git(checkout, "rev-parse", "--verify", "--quiet", "HEAD")
    changes = _git(checkout, "status", "--porcelain")
    return commit or None, None if changes is None else bool(changes)


def _git(checkout: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(checkout), *arguments],
            capture_output=True,
            timeout=_GIT_TIMEOUT_S,
            check=True,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", "replace").strip()
