"""The process of one environment: how it is started, confined, heard, frozen and ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from siren.platforms._keeper import die_with
from siren.platforms.endpoint.confinement import Group
from siren.platforms.endpoint.governor import Governed, Governor, peak_resident_bytes
from siren.platforms.endpoint.settings import OPEN_FILES

_CHUNK = 1 << 16


class Confined:
    """A process in a group of its own.

    Args:
        argv, env, cwd: What to run.
        group: Its cgroups.
        governor: Enforces what they do not.
        memory_mb, cpus: Its limits; the CPU share can be changed.
        on_output: Called with what it printed, as it prints.
        on_exit: Called once when it has ended.

    Raises:
        OSError, subprocess.SubprocessError: It cannot be started.
    """

    def __init__(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        cwd: Path,
        group: Group,
        governor: Governor,
        memory_mb: int,
        cpus: float,
        on_output: Callable[[bytes], None],
        on_exit: Callable[[], None],
    ) -> None:
        self._group, self._governor, self._cpus = group, governor, cpus
        self._on_output, self._on_exit = on_output, on_exit
        self._loop = asyncio.get_running_loop()
        self.ended = self._loop.create_future()
        self._output, output = os.pipe()
        os.set_blocking(self._output, False)
        group.share(cpus)
        parent = os.getpid()
        try:
            self._process = subprocess.Popen(
                argv,
                env=env,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=lambda: self._enter(parent),  # noqa: PLW1509 - it takes no lock
            )
        except BaseException:
            os.close(self._output)
            raise
        finally:
            os.close(output)
        self.pid = self._process.pid
        self._pidfd = os.pidfd_open(self.pid)
        self._loop.add_reader(self._pidfd, self._reap)
        self._loop.add_reader(self._output, self._read)
        self._governed = Governed(
            self.pid,
            None if "memory" in group.enforced else memory_mb,
            None if "cpu" in group.enforced else cpus,
            "freezer" not in group.enforced,
        )
        self._governor.busy(self._governed, cpus)

    @property
    def code(self) -> int | None:
        """Its exit code once it has ended, negative if a signal ended it."""
        return self._process.returncode

    @property
    def out_of_memory(self) -> bool:
        """Whether it was killed for that."""
        return self._governed.out_of_memory or self._group.out_of_memory()

    def peak_bytes(self) -> int:
        """Most memory that it held."""
        return max(peak_resident_bytes(self.pid) if self.code is None else 0, self._governed.peak_bytes)

    def share(self, cpus: float) -> None:
        """Gives it so many vCPU from now on."""
        self._cpus = cpus
        self._group.share(cpus)

    def wake(self) -> None:
        """Lets it run."""
        self._group.freeze(False)
        self._governor.busy(self._governed, self._cpus)

    def rest(self) -> None:
        """Freezes it."""
        self._governor.idle(self._governed)
        self._group.freeze(True)

    def drain(self) -> None:
        """Reads what it has printed until now."""
        while self._read():
            pass

    def kill(self) -> None:
        """SIGKILL to it and to all that it started; `ended` follows."""
        if self.code is None:
            self._group.share(os.cpu_count() or 1)  # ending takes CPU time, too
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        self._group.kill()

    def close(self) -> None:
        """Forgets an ended process."""
        if self._output >= 0:
            self._loop.remove_reader(self._output)
            os.close(self._output)
            self._output = -1

    def _enter(self, parent: int) -> None:
        die_with(parent)
        self._group.enter()
        resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))

    def _reap(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._process.wait()
        self._governor.gone(self._governed)
        self.drain()
        self.ended.set_result(None)
        self._on_exit()

    def _read(self) -> bool:
        """Reads a piece of its output; whether there may be more."""
        if self._output < 0:
            return False
        try:
            data = os.read(self._output, _CHUNK)
        except BlockingIOError:
            return False
        if data:
            self._on_output(data)
            return True
        self.close()
        return False
