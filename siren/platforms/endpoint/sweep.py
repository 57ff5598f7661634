"""Cleans up after an endpoint that was killed. Stdlib only: it also runs as a small process by itself.

An endpoint writes into its root, before anything else, who it is and where its cgroups are. What it
started carries the root in its environment, so it is found even if it left its session.

Usage: sweep.py LIFELINE ROOT GROUP ...
Waits for the end of LIFELINE, which comes when the endpoint ends in any way, and sweeps ROOT and the
cgroups.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

RECORD = "endpoint.json"
MARK = "SIREN_ENDPOINT_ROOT"
PATIENCE_S = 10.0
_STEP_S = 0.005


def token() -> str:
    """What the groups of this process's endpoint are called after: tells later whether it is alive."""
    return f"{os.getpid()}-{_born(os.getpid())}"


def record(root: Path, groups: list[Path]) -> None:
    """Writes down that this process has this root and these cgroups."""
    identity = {"pid": os.getpid(), "born": _born(os.getpid()), "groups": [str(group) for group in groups]}
    part = root / f"{RECORD}.part"
    part.write_text(json.dumps(identity), encoding="utf-8")
    part.replace(root / RECORD)


def owner(root: Path) -> int | None:
    """The process id of the endpoint that has this root and is alive."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        identity = json.loads((root / RECORD).read_text(encoding="utf-8"))
        if _born(identity["pid"]) == identity["born"]:
            return int(identity["pid"])
    return None


def sweep(root: Path, groups: list[Path] | None = None) -> None:
    """Ends what an endpoint has left of processes, and removes its root and its cgroups.

    Args:
        root: Of the endpoint.
        groups: Its cgroups; those that it recorded, by default.
    """
    if groups is None:
        groups = []
        with contextlib.suppress(OSError, ValueError, KeyError):
            identity = json.loads((root / RECORD).read_text(encoding="utf-8"))
            groups = [Path(group) for group in identity["groups"]]
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        left = sum(map(_kill_tree_of_groups, groups)) + _kill_marked(root)
        if not left and all(_remove_tree_of_groups(group) for group in groups):
            break
        time.sleep(_STEP_S)
    shutil.rmtree(root, ignore_errors=True)


def sweep_stale(parent: Path, prefix: str) -> None:
    """Sweeps the roots in a folder whose endpoints are dead."""
    for root in parent.glob(f"{prefix}*"):
        if (root / RECORD).exists() and owner(root) is None and root.stat().st_uid == os.getuid():
            sweep(root)


def sweep_stale_groups(parent: Path) -> None:
    """Removes empty cgroups of dead endpoints, whose roots somebody else may have removed."""
    for group in parent.glob("siren-*-*"):
        _, pid, born = group.name.split("-", 2)
        if pid.isdecimal() and _born(int(pid)) != born:
            _remove_tree_of_groups(group)


def kill_group(folder: Path) -> int:
    """Kills the processes of a cgroup of either version; how many there were."""
    try:
        pids = (folder / "cgroup.procs").read_text(encoding="ascii").split()
        if pids and (folder / "cgroup.kill").exists():
            (folder / "cgroup.kill").write_text("1", encoding="ascii")
        elif pids and (folder / "freezer.state").exists():
            # What is frozen does not even die.
            (folder / "freezer.state").write_text("THAWED", encoding="ascii")
    except OSError:
        return 0
    for pid in filter(None, map(int, pids)):  # those of another namespace are told as 0
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    return len(pids)


def _kill_tree_of_groups(group: Path) -> int:
    return sum(kill_group(procs.parent) for procs in group.glob("**/cgroup.procs"))


def _kill_marked(root: Path) -> int:
    mark = f"{MARK}={root}".encode()
    count = 0
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark in path.read_bytes().split(b"\0"):
                os.kill(int(path.parent.name), signal.SIGKILL)
                count += 1
    return count


def _remove_tree_of_groups(group: Path) -> bool:
    for folder in [*sorted(group.glob("*/")), group]:
        if folder.is_dir():
            try:
                folder.rmdir()
            except OSError:
                return False
    return True


def _born(pid: int) -> str | None:
    """When a process started, in clock ticks since the machine did; None if there is none alive."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def main(arguments: list[str]) -> None:
    """Waits, and sweeps."""
    lifeline, root = int(arguments[0]), Path(arguments[1])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.read(lifeline, 1)
    sweep(root, [Path(group) for group in arguments[2:]])


if __name__ == "__main__":
    main(sys.argv[1:])
