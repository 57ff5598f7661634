"""What cgroups do, from outside, where they cannot be written: watch, stop and kill.

Every 20 ms the processes of busy environments are looked at. One that holds too much memory is killed;
one that used more CPU than its share is stopped until the share allows it again. Only the first
process of an environment is watched, and one that is quick may overshoot within a period.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from dataclasses import dataclass

from siren.platforms.endpoint.confinement import PERIOD_US
from siren.units import BYTES_PER_MB

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Governed:
    """One environment's process under the governor.

    Attributes:
        pid: The process, in a group of its own.
        memory_mb: Its limit; None where a cgroup enforces it.
        cpus: Its share; None where a cgroup enforces it.
        stops: Whether freezing is by SIGSTOP.
        out_of_memory: Whether it was killed for that.
        peak_bytes: Most that was seen of it.
    """

    pid: int
    memory_mb: int | None
    cpus: float | None
    stops: bool
    out_of_memory: bool = False
    peak_bytes: int = 0
    _since: float = 0.0
    _used_s: float = 0.0
    _stopped: bool = False

    @property
    def watched(self) -> bool:
        """Whether something must be enforced while it runs."""
        return self.memory_mb is not None or self.cpus is not None

    def begin(self, cpus: float) -> None:
        """It is busy from now on, with so many vCPU."""
        if self.cpus is not None:
            self._since, self._used_s = time.monotonic(), cpu_seconds(self.pid)
            self.cpus = cpus
        if self.stops or self._stopped:
            self._signal(signal.SIGCONT)
        self._stopped = False

    def rest(self) -> None:
        """It is idle from now on."""
        if self.watched:
            self.look()
        if self.stops:
            self._signal(signal.SIGSTOP)

    def look(self) -> None:
        """Kills or stops it if it takes too much, lets it go on if it no longer does."""
        held = resident_bytes(self.pid)
        self.peak_bytes = max(self.peak_bytes, held)
        if self.memory_mb is not None and held > self.memory_mb * BYTES_PER_MB:
            self.out_of_memory = True
            self._signal(signal.SIGKILL)
            return
        if self.cpus is None:
            return
        allowed_s = self.cpus * (time.monotonic() - self._since)
        stop = cpu_seconds(self.pid) - self._used_s > allowed_s
        if stop != self._stopped:
            self._stopped = stop
            self._signal(signal.SIGSTOP if stop else signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)


class Governor:
    """Looks after the environments that are busy."""

    def __init__(self) -> None:
        self._governed: dict[int, Governed] = {}
        self._task: asyncio.Task[None] | None = None

    def busy(self, governed: Governed, cpus: float) -> None:
        """Watches it from now on."""
        governed.begin(cpus)
        if not governed.watched:
            return
        self._governed[governed.pid] = governed
        if self._task is None:
            self._task = asyncio.create_task(self._watch())

    def idle(self, governed: Governed) -> None:
        """Watches it no more, and freezes it."""
        self._governed.pop(governed.pid, None)
        governed.rest()

    def gone(self, governed: Governed) -> None:
        """Forgets it."""
        self._governed.pop(governed.pid, None)

    async def close(self) -> None:
        """Ends."""
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _watch(self) -> None:
        while True:
            for governed in list(self._governed.values()):
                governed.look()
            await asyncio.sleep(PERIOD_US * 1e-6)


def cpu_seconds(pid: int) -> float:
    """CPU time of a process, all its threads; 0 if it is gone.

    Its clock's id is made as clock_getcpuclockid(3) makes it: the inverted id, shifted by 3, and 2.
    """
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0


def resident_bytes(pid: int) -> int:
    """Memory that a process holds now; 0 if it is gone."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:  # noqa: PTH123 - read every 20 ms
            return int(file.read().split()[1]) * PAGE_BYTES
    except (OSError, IndexError):
        return 0


def peak_resident_bytes(pid: int) -> int:
    """Most memory that a process ever held (VmHWM); 0 if it is gone."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8") as file:  # noqa: PTH123
            for line in file:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0
