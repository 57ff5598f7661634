"""Children die with their parent, and leave nothing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from siren.errors import PlatformError
from siren.platforms.processes import free_ports, start_child, usable_cores

# Ends only by SIGKILL; has a child of the same kind in a session of its own; tells both ids.
STUBBORN = """
import os, signal, sys, time
from pathlib import Path
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
path = Path(sys.argv[1]) / str(os.getpid())
path.touch()
time.sleep(600)
"""
POLITE = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
print("up", flush=True)
signal.pause()
"""
# Leaves when the two above run.
LEAVER = """
import subprocess, sys, time
from pathlib import Path
subprocess.Popen([sys.executable, "-c", *sys.argv[1:]])
while len(list(Path(sys.argv[2]).iterdir())) < 2:
    time.sleep(0.01)
sys.exit(3)
"""
# Starts the stubborn ones, tells it, and waits.
PARENT = """
import sys, time
from pathlib import Path
from siren.platforms.processes import start_child
child = start_child([sys.executable, "-c", sys.argv[1], sys.argv[2]], grace_s=0.1)
print(child.pid, flush=True)
time.sleep(600)
"""


def until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Waits for something that another process does."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def stubborn_pids(folder: Path) -> list[int]:
    """The two processes of `STUBBORN`, once they run."""
    until(lambda: len(list(folder.iterdir())) == 2)
    return [int(path.name) for path in folder.iterdir()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where started processes leave their ids."""
    (tmp_path / "pids").mkdir()
    return tmp_path / "pids"


def test_stop_asks_first_and_tells_the_exit_code(tmp_path: Path) -> None:
    log = tmp_path / "log"
    child = start_child([sys.executable, "-c", POLITE], log=log)
    child.wait_until(lambda: child.tail() == "up", 20)
    assert child.poll() is None
    assert child.stop() == 7
    assert child.stop() == child.poll() == 7


def test_stop_kills_what_does_not_listen_and_what_left_its_group(folder: Path) -> None:
    with start_child([sys.executable, "-c", STUBBORN, str(folder)], grace_s=0.1) as child:
        pids = stubborn_pids(folder)
        assert child.pid in pids
    assert child.poll() == 128 + signal.SIGKILL
    assert not any(map(alive, pids))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_everything_ends_with_the_parent(folder: Path, number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, STUBBORN, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    ) as parent:
        assert parent.stdout is not None
        pids = [int(parent.stdout.readline()), *stubborn_pids(folder)]
        parent.send_signal(number)
        parent.wait()
        until(lambda: not any(map(alive, pids)))


def test_the_command_dies_with_its_keeper(folder: Path) -> None:
    child = start_child([sys.executable, "-c", STUBBORN, str(folder)], grace_s=0.1)
    pids = stubborn_pids(folder)
    keeper = int(Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(keeper, signal.SIGKILL)
    until(lambda: not alive(child.pid))
    assert child.poll() == -signal.SIGKILL
    for pid in pids:
        if alive(pid):  # it had left the group, and nobody was there to adopt it
            os.kill(pid, signal.SIGKILL)
    child.stop()


def test_a_child_outlives_the_thread_that_started_it() -> None:
    children = []
    thread = threading.Thread(target=lambda: children.append(start_child(["sleep", "600"])))
    thread.start()
    thread.join()
    (child,) = children
    assert alive(child.pid)
    child.stop()
    assert not alive(child.pid)


def test_what_leaves_by_itself_takes_its_descendants_along(folder: Path) -> None:
    with start_child([sys.executable, "-c", LEAVER, STUBBORN, str(folder)], grace_s=0.5) as child:
        pids = stubborn_pids(folder)
        until(lambda: child.poll() is not None)
        assert child.poll() == 3
        assert not any(map(alive, pids))


def test_descriptors_reach_the_command_alone() -> None:
    reading, writing = os.pipe()
    with start_child(
        [sys.executable, "-c", "import os, sys; os.write(int(sys.argv[1]), b'hello')", str(writing)],
        pass_fds=(writing,),
    ):
        os.close(writing)
        with os.fdopen(reading, "rb") as file:
            assert file.read() == b"hello"


def test_the_environment_and_the_folder_are_those_asked_for(tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = "import os; print(os.environ['WORD'], os.getcwd(), 'HOME' in os.environ)"
    with start_child([sys.executable, "-c", code], env={"WORD": "one"}, cwd=tmp_path, log=log) as child:
        until(lambda: child.poll() is not None)
    assert log.read_text() == f"one {tmp_path} False\n"


def test_a_command_that_is_missing_is_refused() -> None:
    with pytest.raises(PlatformError, match=r"no program no-such-server: install it"):
        start_child(["no-such-server"])


def test_waiting_ends_with_the_child_and_says_what_it_said(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with (
        start_child([sys.executable, "-c", "raise SystemExit('no port')"], name="server", log=log) as child,
        pytest.raises(PlatformError, match=r"server ended with code 1 at its start; see .*log.*: no port"),
    ):
        child.wait_until(lambda: False, 20)


def test_waiting_ends_with_its_time() -> None:
    child = start_child(["sleep", "600"])
    with pytest.raises(PlatformError, match=r"sleep was not ready after 0.05 s; it printed nothing"):
        child.wait_until(lambda: False, 0.05)
    assert child.poll() == 128 + signal.SIGTERM


def test_free_ports_are_distinct_and_free() -> None:
    ports = free_ports(3)
    assert len(set(ports)) == 3
    for port in ports:
        with socket.socket() as each:
            each.bind(("127.0.0.1", port))


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux confines a process to cores")
def test_cores_that_a_process_may_not_use_do_not_count():
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert usable_cores() == len(before)
