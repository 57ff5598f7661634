"""The process between a parent and its child: `siren.platforms.processes` runs this file by its path.

It starts the command, and ends it with everything that came of it when the parent goes away, however
that happens. Stdlib only: it starts in milliseconds, and knows nothing of Siren.

Usage: _keeper.py LIFELINE TELL PARENT GRACE_S COMMAND ...
LIFELINE is read until its end, which comes when the parent closes it or dies; the command's process id
is written to TELL.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

# From <linux/prctl.h>.
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
# Forks of the parent may hold the lifeline open after its death: then its id tells.
PARENT_CHECK_S = 0.5
STEP_S = 0.01
HANDLED = (signal.SIGCHLD, signal.SIGTERM)


_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def prctl(option: int, value: int) -> None:
    """Sets an attribute of this process, where the system is Linux."""
    if _LIBC is not None:
        _LIBC.prctl(option, value, 0, 0, 0)


def die_with(parent: int) -> None:
    """Makes this process, which `parent` has just forked, end with it.

    With the thread that forked it, to be exact: fork from one that lives as long as the process.
    """
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def start(command: list[str], own: tuple[int, ...]) -> int:
    """Runs the command in a session of its own that ends with this process; its id."""
    keeper = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        die_with(keeper)
        for number in (*HANDLED, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        for descriptor in own:
            os.close(descriptor)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
        os.execvp(command[0], command)
    except OSError as error:
        print(f"cannot run {command[0]}: {error.strerror}", file=sys.stderr, flush=True)
    finally:
        os._exit(127)


def descendants() -> list[int]:
    """Children of this process, adopted ones too (as far as the system tells)."""
    try:
        return [int(pid) for pid in Path("/proc/thread-self/children").read_text(encoding="ascii").split()]
    except OSError:
        return []


def signal_group(pid: int, number: signal.Signals) -> None:
    """Signals the command's process group."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def signal_adopted(pid: int, number: signal.Signals) -> None:
    """Signals what was adopted from the command and is not in its process group."""
    for each in descendants():
        with suppress(ProcessLookupError, PermissionError):
            if os.getpgid(each) != pid:
                os.kill(each, number)


def reap(pid: int, status: int | None) -> tuple[int | None, bool]:
    """Collects what has ended: the command's wait status if it is known, and whether all have ended."""
    while True:
        try:
            ended, found = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status, True
        if ended == 0:
            return status, False
        if ended == pid:
            status = found


def wait(pid: int, lifeline: int, signals: int, parent: int) -> int | None:
    """Waits for the command's end, the parent's, or a request to stop; the wait status if it ended."""
    status: int | None = None
    while status is None:
        ready, _, _ = select.select([lifeline, signals], [], [], PARENT_CHECK_S)
        asked = signals in ready and signal.SIGTERM in os.read(signals, 4096)
        status, _ = reap(pid, status)
        if lifeline in ready or asked or os.getppid() != parent:
            break
    return status


def end(pid: int, status: int | None, grace_s: float) -> int:
    """Ends what is left: SIGTERM, then SIGKILL, each with a grace; the command's wait status.

    What left the command's group is killed last: it may be there to clean up after a kill.
    """
    signal_group(pid, signal.SIGTERM)
    signal_adopted(pid, signal.SIGTERM)
    began = time.monotonic()
    while True:
        status, all_ended = reap(pid, status)
        if all_ended:
            return status or 0
        if time.monotonic() > began + grace_s:
            signal_group(pid, signal.SIGKILL)
        if time.monotonic() > began + 2 * grace_s:
            signal_adopted(pid, signal.SIGKILL)
        time.sleep(STEP_S)


def keep_only(*descriptors: int) -> None:
    """Closes every other descriptor: who reads from the command's must see their end with its own."""
    null = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(null, standard)
    first = 3
    for descriptor in sorted(descriptors):
        os.closerange(first, descriptor)
        first = descriptor + 1
    os.closerange(first, os.sysconf("SC_OPEN_MAX"))


def main(arguments: list[str]) -> int:
    """Keeps one command; its exit code, 128 + n where signal n ended it."""
    lifeline, tell, parent = (int(text) for text in arguments[:3])
    grace_s, command = float(arguments[3]), arguments[4:]
    signals, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in HANDLED:
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(wake)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    # Until the command is itself, it would handle a signal as this process does.
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    pid = start(command, (lifeline, tell))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
    os.write(tell, b"%d\n" % pid)
    keep_only(lifeline, signals, wake)
    status = wait(pid, lifeline, signals, parent)
    code = os.waitstatus_to_exitcode(end(pid, status, grace_s))
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
