"""An append-only file of JSON lines that survives a kill in the middle of a write."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from siren.errors import RunFolderError

_START = b'{"record":'
"""Every line starts like this: a torn tail that does not is not ours to cut off."""


class Journal:
    """Appends JSON lines; each is on disk when `append` returns.

    One process at a time may write: a file that grew by somebody else's hand is refused.
    """

    def __init__(self, path: Path, size: int, exists: bool) -> None:
        self._path = path
        self._size = size
        self._exists = exists
        self._own_tail = False

    @classmethod
    def create(cls, path: Path) -> Journal:
        """A journal whose file is made by the first `append`.

        Raises:
            RunFolderError: The file exists already.
        """
        if path.exists():
            raise RunFolderError(
                f"the ledger {path} exists already: load it to resume, or use a new run folder"
            )
        return cls(path, 0, exists=False)

    @classmethod
    def open(cls, path: Path) -> tuple[Journal, list[dict[str, Any]]]:
        """Read a journal; cut a torn last line off the file.

        Returns:
            The journal, ready to append, and its entries.

        Raises:
            RunFolderError: The file is missing, cannot be read or mended, or is corrupt.
        """
        try:
            content = path.read_bytes()
        except OSError as error:
            raise RunFolderError(
                f"cannot read the ledger {path}: {error.strerror}; check the run folder"
            ) from error
        whole, newline, tail = content.rpartition(b"\n")
        whole += newline
        if tail.strip(b"\0") and not tail.startswith(_START) and not _START.startswith(tail):
            raise _corrupt(path, whole.count(b"\n") + 1)
        entries = [_parse(path, number, line) for number, line in enumerate(whole.split(b"\n")[:-1], start=1)]
        journal = cls(path, len(whole), exists=True)
        if tail:
            journal._own_tail = True
            journal._run(lambda: journal._write(b""), "mend")
        return journal, entries

    def append(self, line: str) -> None:
        """Write a line and its newline, and flush it to the disk.

        Raises:
            RunFolderError: It could not be written (the file is as before, or is mended by the next
                `append` or `open`), or another process wrote to the file.
        """
        data = line.encode() + b"\n"
        self._run(lambda: self._write(data), "write")
        self._size += len(data)

    def _write(self, data: bytes) -> None:
        flags = os.O_RDWR if self._exists else os.O_RDWR | os.O_CREAT | os.O_EXCL
        handle = os.open(self._path, flags, 0o644)
        try:
            self._exists = True
            if os.fstat(handle).st_size != self._size:
                if not self._own_tail:
                    raise RunFolderError(
                        f"the ledger {self._path} was changed by another process: "
                        "stop the other run, then resume"
                    )
                os.ftruncate(handle, self._size)
            self._own_tail = True
            os.lseek(handle, 0, os.SEEK_END)
            written = 0
            while written < len(data):
                written += os.write(handle, data[written:])
            os.fsync(handle)
            if self._size == 0:
                _sync_folder(self._path.parent)
            self._own_tail = False
        except OSError:
            # Room may have run out within the line. If cutting it off fails too, the next append or
            # open does it.
            with contextlib.suppress(OSError):
                os.ftruncate(handle, self._size)
                self._own_tail = False
            raise
        finally:
            os.close(handle)

    def _run(self, action: Callable[[], None], verb: str) -> None:
        try:
            action()
        except OSError as error:
            raise RunFolderError(
                f"cannot {verb} the ledger {self._path}: {error.strerror or error}; nothing was booked. "
                "Make room on the disk or check the folder's permissions, then resume the run"
            ) from error


def _sync_folder(folder: Path) -> None:
    """Make a new file's name in `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _parse(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError as error:
        raise _corrupt(path, number) from error
    if not isinstance(entry, dict) or not line.startswith(_START):
        raise _corrupt(path, number)
    return entry


def _corrupt(path: Path, number: int) -> RunFolderError:
    return RunFolderError(
        f"{path}, line {number} is not the entry of a ledger: "
        "restore the file from a copy, or start a new run"
    )
