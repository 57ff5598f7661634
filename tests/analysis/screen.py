"""A pseudo-terminal to run commands in, and what a person would see on it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Mapping, Sequence

_TOKEN = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|\x1b(.)|([\r\n])|([^\x1b\r\n]+)")


def run_in_terminal(
    command: Sequence[object],
    columns: int,
    rows: int,
    environment: Mapping[str, str],
    stdout: int | None = None,
) -> tuple[str, int]:
    """Run a command whose standard streams are a terminal; return what it wrote and its exit code.

    `stdout` replaces the terminal as standard output.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    process = subprocess.Popen(
        [str(part) for part in command],
        stdin=theirs,
        stdout=theirs if stdout is None else stdout,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color", **environment},
        start_new_session=True,
    )
    os.close(theirs)
    pieces = []
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # EIO: the last writer closed the terminal
            break
        if not piece:
            break
        pieces.append(piece)
    os.close(ours)
    return b"".join(pieces).decode(), process.wait()


def visible(written: str, columns: int) -> list[str]:
    """The lines of an endlessly tall terminal after `written`; knows what rich writes."""
    lines: list[str] = [""]
    row = column = 0
    for match in _TOKEN.finditer(written):
        argument, code, escape, newline, text = match.groups()
        assert escape is None, f"unknown escape {escape!r}"
        if newline == "\r":
            column = 0
        elif newline == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif text is not None:
            # A command may wrap, so that it can be copied whole; it comes after everything redrawn.
            assert column + len(text) <= columns or text.startswith(("resume ", "report ")), (
                f"wraps: {text!r}"
            )
            lines[row] = lines[row].ljust(column)[:column] + text + lines[row][column + len(text) :]
            column += len(text)
        elif code == "A":
            row = max(0, row - int(argument or 1))
        elif code == "K":
            assert argument == "2"
            lines[row] = ""
        else:
            assert code in "mhl", f"unknown code {code}"
    return [line.rstrip() for line in lines]
