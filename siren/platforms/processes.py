"""Children that die with their parent, also when it is killed: servers that a run starts for itself."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from siren.errors import PlatformError

KEEPER = Path(__file__).with_name("_keeper.py")
GRACE_S = 5.0
START_S = 10.0
POLL_S = 0.02
TAIL_BYTES = 2000


class Child:
    """A running command and everything that it starts; made by `start_child`.

    It ends with `stop`, at the end of its `with` block, and when this process ends in any way.

    Attributes:
        name: What messages call it.
        pid: The command's process id.
        log: Where its output goes, if anywhere.
    """

    def __init__(
        self,
        name: str,
        pid: int,
        keeper: subprocess.Popen[bytes],
        lifeline: int,
        grace_s: float,
        log: Path | None,
    ) -> None:
        self.name, self.pid, self.log = name, pid, log
        self._keeper, self._lifeline, self._grace_s = keeper, lifeline, grace_s

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def poll(self) -> int | None:
        """Its exit code (128 + n where signal n ended it) once all of it has ended, else None."""
        return self._keeper.poll()

    def tail(self) -> str:
        """The end of its log."""
        if self.log is None or not self.log.exists():
            return ""
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - TAIL_BYTES))
            return file.read().decode(errors="replace").strip()

    def wait_until(self, ready: Callable[[], bool], timeout_s: float) -> None:
        """Waits until `ready()` is true.

        Raises:
            PlatformError: It ended or the time is over; the end of its log is told, and it is stopped.
        """
        deadline = time.monotonic() + timeout_s
        while not ready():
            code = self.poll()
            if code is not None:
                raise PlatformError(f"{self.name} ended with code {code} at its start{self._said()}")
            if time.monotonic() > deadline:
                self.stop()
                raise PlatformError(f"{self.name} was not ready after {timeout_s:g} s{self._said()}")
            time.sleep(POLL_S)

    def stop(self) -> int:
        """Ends it: SIGTERM, then SIGKILL for all that it started; its exit code. May be repeated."""
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1
        try:
            return self._keeper.wait(2 * self._grace_s + START_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._keeper.kill()
            return self._keeper.wait()

    def _said(self) -> str:
        said = self.tail()
        return f"; see {self.log}, which ends with: {said}" if said else "; it printed nothing"


def start_child(
    argv: Sequence[str],
    *,
    name: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    log: Path | None = None,
    pass_fds: Sequence[int] = (),
    grace_s: float = GRACE_S,
) -> Child:
    """Starts a command that ends when this process does, in whatever way.

    A small process stands between the two. It holds the other end of a pipe, so it learns of the death
    of this one, SIGKILL included, and ends the command, its process group, and what left that group.

    Args:
        argv: The command; its first word is searched in PATH.
        name: What messages call it; the file's name by default.
        env: Its whole environment; this process's by default.
        cwd: Its folder; this process's by default.
        log: A file for what it prints; nothing is kept by default.
        pass_fds: Descriptors that it inherits.
        grace_s: Seconds from SIGTERM to SIGKILL, and again until what left its process group is killed.

    Raises:
        PlatformError: There is no such command.
    """
    name = name or Path(argv[0]).name
    program = shutil.which(argv[0], path=(os.environ if env is None else env).get("PATH"))
    if program is None:
        raise PlatformError(f"there is no program {argv[0]}: install it, or put its folder into PATH")
    held, lifeline = os.pipe()
    heard, told = os.pipe()
    output = log.open("ab") if log else None
    arguments = [held, told, os.getpid(), grace_s, program, *argv[1:]]
    try:
        keeper = subprocess.Popen(
            [sys.executable, "-ISE", str(KEEPER), *map(str, arguments)],
            env=None if env is None else dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output or subprocess.DEVNULL,
            stderr=output or subprocess.DEVNULL,
            pass_fds=(held, told, *pass_fds),
            start_new_session=True,
        )
    except BaseException:
        os.close(lifeline)
        os.close(heard)
        raise
    finally:
        os.close(held)
        os.close(told)
        if output:
            output.close()
    with os.fdopen(heard, "rb") as file:
        ready, _, _ = select.select([file], [], [], START_S)
        pid = file.readline() if ready else b""
    if not pid:
        os.close(lifeline)
        keeper.kill()
        keeper.wait()
        raise PlatformError(f"{name} could not be started: look whether processes can still be started here")
    return Child(name, int(pid), keeper, lifeline, grace_s, log)


def free_ports(count: int) -> list[int]:
    """Distinct ports of 127.0.0.1 that nobody listens on now; another process may still take them."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def usable_cores() -> int:
    """Cores that this process and its children may run on: fewer than the machine's where it is confined."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # pragma: no cover - macOS
