"""Memory, CPU share and freezing of one environment, by cgroups v1 or v2.

Which of them can be had is found out by trying. For the rest there is `governor`.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from dataclasses import dataclass
from pathlib import Path

from siren.platforms.endpoint.settings import VCPU_MB
from siren.platforms.endpoint.sweep import kill_group
from siren.units import BYTES_PER_MB

# Lambda throttles in windows of 20 ms (pwrdrvr/lambda-throttling, 2025-03).
PERIOD_US = 20_000
# The kernel takes no quota below 1 ms (Documentation/scheduler/sched-bwc.rst).
LEAST_QUOTA_US = 1000
CONTROLLERS = ("cpu", "memory", "freezer")


@dataclass(frozen=True)
class Hierarchy:
    """Where groups are made for one controller.

    Attributes:
        version: 1 or 2 of cgroups.
        path: The folder that new groups go into.
    """

    version: int
    path: Path


def vcpus(memory_mb: int) -> float:
    """A function's CPU: 1,769 MB are one vCPU."""
    return memory_mb / VCPU_MB


class Group:
    """The cgroups of one environment: one folder in each hierarchy.

    Args:
        hierarchies: By controller; those that are missing are not enforced by this.
        name: Of the folders, unique.
        memory_mb: The limit.
    """

    def __init__(self, hierarchies: dict[str, Hierarchy], name: str, memory_mb: int) -> None:
        self._at = {key: Hierarchy(each.version, each.path / name) for key, each in hierarchies.items()}
        self._folders = sorted({each.path for each in self._at.values()})
        for folder in self._folders:
            folder.mkdir()
        self._limit_memory(memory_mb * BYTES_PER_MB)

    @property
    def enforced(self) -> set[str]:
        """The controllers that it has."""
        return set(self._at)

    @property
    def folders(self) -> list[Path]:
        """Its folders."""
        return self._folders

    def enter(self) -> None:
        """Puts the calling process into the group; between fork and exec."""
        for folder in self._folders:
            descriptor = os.open(folder / "cgroup.procs", os.O_WRONLY)
            os.write(descriptor, b"0")
            os.close(descriptor)

    def share(self, cpus: float) -> None:
        """Allows so many vCPU from now on."""
        if "cpu" not in self._at:
            return
        version, path = self._at["cpu"].version, self._at["cpu"].path
        quota_us = max(LEAST_QUOTA_US, round(cpus * PERIOD_US))
        if version == 1:
            _write(path / "cpu.cfs_period_us", PERIOD_US)
            _write(path / "cpu.cfs_quota_us", quota_us)
        else:
            _write(path / "cpu.max", f"{quota_us} {PERIOD_US}")

    def freeze(self, frozen: bool) -> None:
        """Stops all of its processes, or lets them go on."""
        if "freezer" in self._at:
            set_frozen(self._at["freezer"], frozen)

    def out_of_memory(self) -> bool:
        """Whether the kernel killed a process of it for want of memory."""
        if "memory" not in self._at:
            return False
        at = self._at["memory"]
        name = "memory.oom_control" if at.version == 1 else "memory.events"
        lines = (at.path / name).read_text(encoding="ascii").splitlines()
        return any(line.startswith("oom_kill ") and line != "oom_kill 0" for line in lines)

    def peak_bytes(self) -> int:
        """Most memory that it ever held, its files in the page cache included; 0 if that is unknown."""
        if "memory" not in self._at:
            return 0
        at = self._at["memory"]
        name = "memory.max_usage_in_bytes" if at.version == 1 else "memory.peak"
        with contextlib.suppress(OSError, ValueError):
            return int((at.path / name).read_text(encoding="ascii"))
        return 0

    def kill(self) -> bool:
        """Kills every process of it; whether none was left."""
        return not sum(kill_group(folder) for folder in self._folders)

    def remove(self) -> bool:
        """Removes its folders once they are empty; whether that is done."""
        return all(remove_group(folder) for folder in self._folders)

    def _limit_memory(self, limit: int) -> None:
        if "memory" not in self._at:
            return
        at = self._at["memory"]
        if at.version == 1:
            _write(at.path / "memory.limit_in_bytes", limit)
            with contextlib.suppress(OSError):  # a kernel may not account for swap
                _write(at.path / "memory.memsw.limit_in_bytes", limit)
        else:
            _write(at.path / "memory.max", limit)
            with contextlib.suppress(OSError):
                _write(at.path / "memory.swap.max", 0)


def find_hierarchies(
    mounts: Path = Path("/proc/self/mountinfo"), own: Path = Path("/proc/self/cgroup")
) -> dict[str, Hierarchy]:
    """The controllers that can be used, below this process's own groups where possible.

    Args:
        mounts, own: What the kernel says of this process.
    """
    roots = _mounts(mounts.read_text(encoding="utf-8"))
    places = _own_groups(own.read_text(encoding="ascii"))
    found = {}
    for controller in CONTROLLERS:
        for key in (controller, ""):
            if key not in roots or key not in places or controller in found:
                continue
            version = 1 if key else 2
            root, mount = roots[key]
            start = Path(os.path.normpath(mount / os.path.relpath(places[key], root)))
            # A v2 group with processes passes nothing on to groups in it: those further out may.
            for path in [start, *start.parents] if version == 2 else [start]:
                if path.is_relative_to(mount) and _works(controller, version, path):
                    found[controller] = Hierarchy(version, path)
                    break
    return found


def open_hierarchies(found: dict[str, Hierarchy], token: str) -> dict[str, Hierarchy]:
    """A folder `siren-TOKEN` in each, which all groups of one endpoint go into.

    Against other processes they weigh together as much as a single one (the kernel's 1,024 shares), whatever
    this process's niceness: with fewer shares they starved beside busy processes, for seconds at a time.
    """
    made = {key: Hierarchy(each.version, each.path / f"siren-{token}") for key, each in found.items()}
    for at in made.values():
        at.path.mkdir(exist_ok=True)
    for key, at in made.items():
        if at.version == 2 and key != "freezer":
            _write(at.path / "cgroup.subtree_control", f"+{key}")
    return made


def set_frozen(at: Hierarchy, frozen: bool) -> None:
    """Freezes a group, or thaws it."""
    if at.version == 1:
        _write(at.path / "freezer.state", "FROZEN" if frozen else "THAWED")
    else:
        _write(at.path / "cgroup.freeze", int(frozen))


def remove_group(folder: Path) -> bool:
    """Removes a group that is empty; whether it is gone."""
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _mounts(text: str) -> dict[str, tuple[str, Path]]:
    """Of each v1 controller, and of v2 under "": the mount's root in the hierarchy, and where it is."""
    found = {}
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if kind[0] == "cgroup2":
            found[""] = (fields[3], Path(fields[4]))
        elif kind[0] == "cgroup":
            for controller in set(kind[2].split(",")) & set(CONTROLLERS):
                found[controller] = (fields[3], Path(fields[4]))
    return found


def _own_groups(text: str) -> dict[str, str]:
    found = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            found[controller] = path
    return found


def _works(controller: str, version: int, path: Path) -> bool:
    """Whether a group can be made at this place and limited by this controller."""
    hierarchy = {controller: Hierarchy(version, path)}
    token = f"probe-{uuid.uuid4().hex[:12]}"
    probe = path / f"siren-{token}"
    try:
        group = Group(open_hierarchies(hierarchy, token), "one", 128)
        try:
            group.share(1.0)
            group.freeze(False)
        finally:
            group.remove()
    except OSError:
        return False
    finally:
        remove_group(probe / "one")
        remove_group(probe)
    return True


def _write(path: Path, value: object) -> None:
    # No file is made: in a folder that is no cgroup this must fail.
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, str(value).encode())
    finally:
        os.close(descriptor)
