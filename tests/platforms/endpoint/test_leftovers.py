"""Nothing is left of an endpoint, however it ends: no process, no cgroup, no folder."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from siren.platforms.endpoint import sweep
from siren.platforms.endpoint.client import LocalEndpoint
from siren.platforms.endpoint.settings import RUNTIME
from siren.testing.lambda_target import lambda_client, zipped

# A function whose environment also holds a process that has left its session and its parent.
FUNCTION = """
import os, time

def handler(event, context):
    if os.fork() == 0:
        os.setsid()
        time.sleep(600)
    if event:
        time.sleep(600)
    return os.getpid()
"""
# Starts an endpoint with an idle environment and a busy one, tells what there is, and waits.
PARENT = """
import json, sys, threading, time
from siren.platforms.endpoint.client import LocalEndpoint
from siren.platforms.endpoint.settings import RUNTIME
from siren.testing.lambda_target import lambda_client, zipped

endpoint = LocalEndpoint(options=tuple(sys.argv[2:]))
own = endpoint.credentials
client = lambda_client(endpoint.url, own.access_key, own.secret_key)
for name in ("idle", "busy"):
    client.create_function(
        FunctionName=name, Runtime=RUNTIME, Handler="app.handler", MemorySize=128, Timeout=600,
        Role="arn:aws:iam::000000000000:role/siren", Code={"ZipFile": zipped(sys.argv[1])},
    )
client.invoke(FunctionName="idle")
client.invoke(FunctionName="busy", InvocationType="Event", Payload=b'[1]')
while endpoint.about()["environments"] < 2:
    time.sleep(0.01)
print(json.dumps({"endpoint": endpoint.child.pid, "root": str(endpoint.root)}), flush=True)
time.sleep(600)
"""
CGROUPS, NO_CGROUPS = (), ("--no-cgroups",)


@dataclass(frozen=True)
class Running:
    """What runs.

    Attributes:
        parent: The process that started the endpoint.
        endpoint: The endpoint's process id.
        root: Its folder.
        groups: Its cgroups.
    """

    parent: subprocess.Popen[str]
    endpoint: int
    root: Path
    groups: list[Path]

    def processes(self) -> list[int]:
        """The environments' processes, and the reaper."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                environment = (path / "environ").read_bytes().split(b"\0")
                command = (path / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            mark, root = f"{sweep.MARK}={self.root}".encode(), str(self.root).encode()
            if mark in environment or (sweep.__file__.encode() in command and root in command):
                found.append(int(path.name))
        return found

    def gone(self) -> bool:
        """Whether nothing is left."""
        alive = Path(f"/proc/{self.endpoint}").exists()
        return not (alive or self.processes() or self.root.exists() or any(map(Path.exists, self.groups)))


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@pytest.fixture
def running(request, tmp_path, monkeypatch):
    """A parent with an endpoint with environments."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    command = [sys.executable, "-c", PARENT, FUNCTION, *request.param]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        told = json.loads(parent.stdout.readline())
        root = Path(told["root"])
        groups = [Path(group) for group in json.loads((root / sweep.RECORD).read_text())["groups"]]
        running = Running(parent, told["endpoint"], root, groups)
        until(lambda: len(running.processes()) >= 5)  # two runtimes, two that left them, the reaper
        assert all(map(Path.exists, groups))
        yield running
        parent.kill()


@pytest.mark.parametrize("running", [CGROUPS, NO_CGROUPS], indirect=True)
def test_the_parent_is_killed(running, tmp_path):
    running.parent.kill()
    until(running.gone)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("running", [CGROUPS], indirect=True)
def test_the_endpoint_is_killed(running):
    os.kill(running.endpoint, signal.SIGKILL)
    until(running.gone)


@pytest.mark.parametrize("running", [NO_CGROUPS], indirect=True)
def test_the_endpoint_is_asked_to_end(running):
    os.kill(running.endpoint, signal.SIGTERM)
    until(running.gone)


@pytest.mark.parametrize("running", [CGROUPS], indirect=True)
def test_all_are_killed_and_the_next_one_cleans_up(running):
    keeper = int(Path(f"/proc/{running.endpoint}/stat").read_text().rpartition(")")[2].split()[1])
    reaper = next(
        pid for pid in running.processes() if b"sweep.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
    )
    for pid in (reaper, keeper, running.endpoint, running.parent.pid):
        os.kill(pid, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{running.endpoint}").exists())
    assert running.root.exists()
    assert sweep.owner(running.root) is None
    with LocalEndpoint() as endpoint:
        assert endpoint.root != running.root
        until(running.gone)


def test_a_parent_that_ends_its_endpoint_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with LocalEndpoint() as endpoint:
        own = endpoint.credentials
        client = lambda_client(endpoint.url, own.access_key, own.secret_key)
        client.create_function(
            FunctionName="f",
            Runtime=RUNTIME,
            Handler="app.handler",
            Role="arn:aws:iam::000000000000:role/siren",
            Code={"ZipFile": zipped("def handler(event, context): return 1")},
        )
        assert client.invoke(FunctionName="f")["Payload"].read() == b"1"
        client.close()
        groups = [Path(group) for group in json.loads((endpoint.root / sweep.RECORD).read_text())["groups"]]
        assert endpoint.root.parent == tmp_path
    assert not any(map(Path.exists, groups))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("running", [CGROUPS], indirect=True)
def test_somebody_removes_the_folder_and_kills_it(running):
    shutil.rmtree(running.root)
    os.kill(running.endpoint, signal.SIGKILL)
    until(running.gone)


def test_empty_groups_of_the_dead_are_removed(tmp_path):
    mine = f"siren-{sweep.token()}"
    names = [mine, f"siren-{os.getpid()}-1", "siren-1-x", "siren-other", "siren-a-b"]
    for name in names:
        (tmp_path / name / "env-1").mkdir(parents=True)
    sweep.sweep_stale_groups(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {mine, "siren-other", "siren-a-b"}


def test_only_roots_of_the_dead_are_swept(tmp_path):
    mine, dead, other = (tmp_path / f"siren-endpoint-{name}" for name in ("mine", "dead", "other"))
    for folder in (mine, dead, other):
        folder.mkdir()
    sweep.record(mine, [])
    (dead / sweep.RECORD).write_text(json.dumps({"pid": os.getpid(), "born": "1", "groups": []}))
    assert sweep.owner(mine) == os.getpid()
    sweep.sweep_stale(tmp_path, "siren-endpoint-")
    assert sorted(tmp_path.iterdir()) == [mine, other]
