"""Files that are either whole or absent, on disk when a call returns."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

Witness = Callable[[str, Path], None]
"""Told each durable step, after it happened: `(step, path)`.

Steps: "write" (a temporary file holds the bytes), "fsync" (they are on disk), "rename" (the file
has its name), "fsync folder" (so has the folder), "append" (a line is written), "truncate",
"remove". Tests use it to check an order, to kill the process between two steps, or to raise.
"""


class Disk:
    """Durable file operations; every failure is the OSError of the system, nothing half done.

    Args:
        witness: Told each step.
    """

    def __init__(self, witness: Witness | None = None) -> None:
        self._witness = witness

    def create(self, path: Path) -> None:
        """Make an empty file that must not exist yet."""
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
        self._sync_folder(path.parent)

    def replace(self, path: Path, data: bytes) -> None:
        """Give the file `path` the contents `data`, atomically."""
        temporary = temporary_of(path)
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            try:
                _write_all(descriptor, data)
                self._tell("write", temporary)
                os.fsync(descriptor)
                self._tell("fsync", temporary)
            finally:
                os.close(descriptor)
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        self._tell("rename", path)
        self._sync_folder(path.parent)

    def append(self, path: Path, data: bytes) -> None:
        """Add `data` to the end of an existing file; if that fails, the file is as it was before.

        A torn last line, left by a process that was killed while it wrote, is cut off first.
        """
        descriptor = os.open(path, os.O_RDWR)
        try:
            end = self._whole_lines(descriptor, path)
            os.lseek(descriptor, end, os.SEEK_SET)
            try:
                _write_all(descriptor, data)
                self._tell("append", path)
                os.fsync(descriptor)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.ftruncate(descriptor, end)
                    os.fsync(descriptor)
                raise
            self._tell("fsync", path)
        finally:
            os.close(descriptor)

    def cut_torn_line(self, path: Path) -> None:
        """Cut off what follows the last newline, if anything does."""
        descriptor = os.open(path, os.O_RDWR)
        try:
            self._whole_lines(descriptor, path)
        finally:
            os.close(descriptor)

    def remove(self, path: Path) -> None:
        """Remove the file; it need not exist."""
        path.unlink(missing_ok=True)
        self._tell("remove", path)

    def _whole_lines(self, descriptor: int, path: Path) -> int:
        """Cut the file behind its last newline; return its length."""
        size = os.fstat(descriptor).st_size
        end, block = size, 1 << 16
        while end > 0:
            start = max(0, end - block)
            newline = os.pread(descriptor, end - start, start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end < size:
            os.ftruncate(descriptor, end)
            os.fsync(descriptor)
            self._tell("truncate", path)
        return end

    def _sync_folder(self, folder: Path) -> None:
        sync_folder(folder)
        self._tell("fsync folder", folder)

    def _tell(self, step: str, path: Path) -> None:
        if self._witness is not None:
            self._witness(step, path)


def temporary_of(path: Path) -> Path:
    """The file in the same folder that becomes `path`; one writer per run folder, so one name."""
    return path.with_name(f".{path.name}.tmp")


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
