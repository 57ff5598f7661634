"""Cgroups of both versions: what is written where, and what the kernel makes of it where it can be tried."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from siren.platforms.endpoint.confinement import (
    Group,
    Hierarchy,
    find_hierarchies,
    open_hierarchies,
    remove_group,
    vcpus,
)
from siren.platforms.endpoint.sweep import kill_group

V1_FILES = {
    "cpu": ("cpu.cfs_period_us", "cpu.cfs_quota_us"),
    "memory": ("memory.limit_in_bytes", "memory.oom_control"),
    "freezer": ("freezer.state",),
}
V2_FILES = ("cpu.max", "memory.max", "memory.swap.max", "memory.events", "cgroup.freeze")


BURN = """
import time
began, used = time.monotonic(), time.process_time()
while time.process_time() - used < 0.15:
    pass
print(time.monotonic() - began)
"""
TALK = """
import time
while True:
    time.sleep(0.01)
    print(1, flush=True)
"""


class Tree:
    """Stands in for the kernel: files appear in a folder once it is made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, files: tuple[str, ...]) -> None:
        make = Path.mkdir

        def mkdir(path: Path, *args: object, **kwargs: object) -> None:
            make(path, *args, **kwargs)  # type: ignore[arg-type]
            for name in ("cgroup.procs", "cgroup.subtree_control", *files):
                (path / name).touch()

        monkeypatch.setattr(Path, "mkdir", mkdir)


def test_1769_mb_are_one_vcpu():
    assert (vcpus(1769), vcpus(3538)) == (1.0, 2.0)


def test_version_1_has_a_folder_for_each_controller(tmp_path, monkeypatch):
    hierarchies = {name: Hierarchy(1, tmp_path / name) for name in V1_FILES}
    for hierarchy in hierarchies.values():
        hierarchy.path.mkdir()
    Tree(monkeypatch, tuple(name for names in V1_FILES.values() for name in names))
    group = Group(open_hierarchies(hierarchies, "one"), "env", 256)
    group.share(0.5)
    group.freeze(True)
    assert (tmp_path / "memory/siren-one/env/memory.limit_in_bytes").read_text() == str(256 << 20)
    assert (tmp_path / "cpu/siren-one/env/cpu.cfs_period_us").read_text() == "20000"
    assert (tmp_path / "cpu/siren-one/env/cpu.cfs_quota_us").read_text() == "10000"
    assert (tmp_path / "freezer/siren-one/env/freezer.state").read_text() == "FROZEN"
    assert group.enforced == {"cpu", "memory", "freezer"}
    (tmp_path / "memory/siren-one/env/memory.oom_control").write_text("oom_kill_disable 0\noom_kill 0\n")
    assert not group.out_of_memory()
    (tmp_path / "memory/siren-one/env/memory.oom_control").write_text("oom_kill_disable 0\noom_kill 2\n")
    assert group.out_of_memory()


def test_version_2_has_one_folder_and_needs_its_controllers_passed_on(tmp_path, monkeypatch):
    Tree(monkeypatch, V2_FILES)
    hierarchies = {name: Hierarchy(2, tmp_path) for name in V1_FILES}
    group = Group(open_hierarchies(hierarchies, "one"), "env", 128)
    group.share(0.25)
    group.freeze(True)
    assert group.folders == [tmp_path / "siren-one/env"]
    assert (tmp_path / "siren-one/cgroup.subtree_control").read_text() == "+memory"  # the last of them
    values = {name: (group.folders[0] / name).read_text() for name in V2_FILES}
    assert values["cpu.max"] == "5000 20000"
    assert values["memory.max"] == str(128 << 20)
    assert (values["memory.swap.max"], values["cgroup.freeze"]) == ("0", "1")
    (group.folders[0] / "memory.events").write_text("oom 1\noom_kill 1\n")
    assert group.out_of_memory()


def test_the_least_memory_gets_the_least_quota_that_the_kernel_takes(tmp_path, monkeypatch):
    Tree(monkeypatch, V2_FILES)
    group = Group({"cpu": Hierarchy(2, tmp_path)}, "env", 128)
    group.share(0.01)
    assert (group.folders[0] / "cpu.max").read_text() == "1000 20000"


def test_nothing_is_found_where_groups_are_no_groups(tmp_path):
    """A folder that can be written but is no cgroup, and a mount that does not hold this process."""
    mounts, own = tmp_path / "mountinfo", tmp_path / "cgroup"
    lines = [
        f"30 1 0:26 / {tmp_path} rw - cgroup cgroup rw,memory",
        f"31 1 0:27 / {tmp_path} rw - cgroup2 cgroup2 rw",
        f"32 1 0:28 /elsewhere {tmp_path} rw - cgroup cgroup rw,cpu,cpuacct",
        "33 1 0:29 / /proc rw - proc proc rw",
    ]
    mounts.write_text("\n".join(lines))
    own.write_text("2:cpu,cpuacct:/mine\n1:memory:/\n0::/\n")
    assert find_hierarchies(mounts, own) == {}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cgroup", "mountinfo"]


@pytest.fixture
def real_group():
    """A group of the kernel's own, with a limit of 64 MB and a tenth of a CPU."""
    found = find_hierarchies()
    if set(found) != set(V1_FILES):
        pytest.skip("cgroups cannot be written here")
    opened = open_hierarchies(found, f"test-{uuid.uuid4().hex[:12]}")
    group = Group(opened, "env", 64)
    group.share(0.1)
    yield group
    while not group.kill() or not group.remove():
        time.sleep(0.005)
    assert all(remove_group(hierarchy.path) for hierarchy in opened.values())


def run_in(group: Group, code: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", code],
        preexec_fn=group.enter,  # noqa: PLW1509
        stdout=subprocess.PIPE,
    )


def check_freezing(group: Group) -> None:
    """A process that prints all the time says nothing while it is frozen, and can be killed."""
    with run_in(group, TALK) as process:
        assert process.stdout is not None
        process.stdout.readline()
        group.freeze(True)
        os.set_blocking(process.stdout.fileno(), False)
        while process.stdout.read():
            time.sleep(0.05)  # what it had printed before
        time.sleep(0.2)
        assert process.stdout.read() is None
        while not group.kill():
            time.sleep(0.005)
        assert process.wait() == -signal.SIGKILL


def test_version_2_freezes_where_its_controllers_are_those_of_version_1():
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    path = next((Path(line.split()[4]) for line in mounts if " - cgroup2 " in line), None)
    if path is None or not os.access(path, os.W_OK):
        pytest.skip("there is no cgroup v2 to write to")
    group = Group({"freezer": Hierarchy(2, path)}, f"siren-test-{uuid.uuid4().hex[:12]}", 64)
    check_freezing(group)
    while not group.remove():
        time.sleep(0.005)


def test_the_kernel_kills_what_takes_too_much(real_group):
    with run_in(real_group, "bytearray(100 << 20)") as process:
        assert process.wait() == -signal.SIGKILL
    assert real_group.out_of_memory()
    assert real_group.peak_bytes() > 32 << 20


def test_the_kernel_throttles_and_freezes(real_group):
    with run_in(real_group, BURN) as process:
        assert process.stdout is not None
        assert float(process.stdout.read()) > 0.5
    check_freezing(real_group)


def test_a_group_that_is_gone_is_empty_and_removed(tmp_path):
    assert kill_group(tmp_path / "gone") == 0
    assert remove_group(tmp_path / "gone")
