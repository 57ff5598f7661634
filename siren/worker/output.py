"""What a function may say to its log: little, for CloudWatch bills every byte.

The worker itself says next to nothing; a model, or a library that it uses, may print or warn in every
batch. Of that, the first `MAX_BYTES` of an invocation become one line of the log: one, because every line
is a log event with an overhead of its own (Amazon CloudWatch Logs API reference, PutLogEvents: 26 bytes).
Together with Lambda's own lines it stays below what a world says of an invocation's log.
"""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

MAX_BYTES = 300
_MARK = " ... (cut)"
_LINE_END = b" | "


class _Kept(io.BufferedIOBase):
    """Keeps the first bytes that are written; lasts as long as the process, as handlers of loggers do."""

    name = "<log>"

    def __init__(self) -> None:
        self._first = bytearray()
        self._cut = False
        self._nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._nowhere

    def close(self) -> None:
        """Nothing: the next invocation writes here too."""

    def write(self, data: bytes | bytearray | memoryview) -> int:  # type: ignore[override]
        view = memoryview(data).cast("B")
        room = MAX_BYTES - len(_MARK) - 1 - len(self._first)  # 1 for the line's end
        head = bytes(view[: room + 1]).replace(b"\n", _LINE_END)
        self._first += head[:room]
        self._cut = self._cut or len(head) > room
        return len(view)

    def take(self) -> str:
        """What was kept, as a line; empty if there was nothing."""
        text = self._first.decode("utf-8", "ignore").replace("\r", " ")
        text = text + _MARK if self._cut else text.removesuffix(_LINE_END.decode())
        self._first.clear()
        self._cut = False
        return text


_kept = _Kept()


@contextmanager
def limited() -> Iterator[None]:
    """What is printed, warned or logged inside, also by C code and subprocesses, costs little.

    What bypasses `sys.stdout` and `sys.stderr` is dropped. Only for a process that does nothing else
    meanwhile.
    """
    root = logging.getLogger()
    before = sys.stdout, sys.stderr, root.handlers
    for stream in before[:2]:
        stream.flush()
    descriptors = [(fd, os.dup(fd)) for fd in (1, 2)]
    try:
        for fd, _ in descriptors:
            os.dup2(_kept.fileno(), fd)
        sys.stdout, sys.stderr = _stream(), _stream()
        root.handlers = [logging.StreamHandler(sys.stderr)]
        yield
    finally:
        sys.stdout, sys.stderr, root.handlers = before
        for fd, saved in descriptors:
            os.dup2(saved, fd)
            os.close(saved)
        line = _kept.take()
        if line:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()


def _stream() -> TextIO:
    return io.TextIOWrapper(_kept, "utf-8", errors="replace", write_through=True)
