"""One run on disk: config, system facts, events, checkpoints, model, summary.

    runs/2026-11-22T06-30-12-mlp-mnist/
        config.json            the resolved config; its presence means that the folder is complete
        system.json            versions, commit, machine
        events.jsonl           one line per finished epoch
        checkpoints/           the last two, to resume from
        model.safetensors      the best model
        summary.json           how the run ended
        lock                   held by the process that runs it

A line of `events.jsonl` is the commit of its epoch, so a trainer goes: reserve in the ledger, run
the epoch, `write_checkpoint`, `append`, settle in the ledger. Each call is on disk when it returns.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from siren.analysis import _tensors, records
from siren.analysis._account import Account
from siren.analysis._disk import Disk
from siren.analysis.records import JSON
from siren.errors import RunFolderError, WorkloadError
from siren.types import EpochRecord, RunSummary

CONFIG, SYSTEM, EVENTS, SUMMARY, MODEL = (
    "config.json",
    "system.json",
    "events.jsonl",
    "summary.json",
    "model.safetensors",
)
CHECKPOINTS, LOCK = "checkpoints", "lock"
KEPT_CHECKPOINTS = 2
_CHECKPOINT = re.compile(r"epoch-(\d{6,})\.safetensors")
_NEW_RUN = "start a new run, or restore the file from a copy"


class RunFolder:
    """A run folder that exists; made by `create` or `open`.

    Example:
        >>> folder = RunFolder.create(new_run_path(Path("runs"), "mlp-mnist"), config, system_facts())
        >>> with folder.lock():
        ...     folder.write_checkpoint(1, {"params": params}, {"clock_s": 12.5})
        ...     folder.append(record)

    Attributes:
        path: The folder.
        config, system: What `create` was given; numbers whose key ends in `_usd` are `Decimal`.
    """

    def __init__(self, path: Path, config: Mapping[str, Any], system: Mapping[str, Any], disk: Disk) -> None:
        self.path = path
        self.config = MappingProxyType(dict(config))
        self.system = MappingProxyType(dict(system))
        self._disk = disk
        self._locked = False

    @classmethod
    def create(
        cls, path: Path, config: Mapping[str, JSON], system: Mapping[str, JSON], disk: Disk | None = None
    ) -> RunFolder:
        """Make the folder and write `config.json` and `system.json`.

        Args:
            path: A folder that does not exist or is empty; its parents are made.
            config: The resolved config. Dollars are `Decimal` under a key that ends in `_usd`.
            system: `system_facts()`.
            disk: Where to write; tests pass one with a witness.

        Raises:
            RunFolderError: The folder holds something already, or cannot be written.
        """
        disk = disk or Disk()
        taken = f"{path} already holds files: choose another folder, or `{_resume(path)}`"
        try:
            path.mkdir(parents=True, exist_ok=True)
            if any(path.iterdir()):
                raise RunFolderError(taken)
            # Of two processes that create the same folder, one makes this file. The config comes last:
            # a folder that has one is complete.
            disk.create(path / EVENTS)
            (path / CHECKPOINTS).mkdir()
            disk.replace(path / SYSTEM, _document(system))
            disk.replace(path / CONFIG, _document(config))
        except FileExistsError as error:
            raise RunFolderError(taken) from error
        except OSError as error:
            raise RunFolderError(
                f"could not create the run folder {path}: {_why(error)}; choose another folder"
            ) from error
        return cls.open(path, disk)

    @classmethod
    def open(cls, path: Path, disk: Disk | None = None) -> RunFolder:
        """Return the existing folder of a run.

        Raises:
            RunFolderError: It is missing, not a run folder, or a file of it is damaged.
        """
        if not path.is_dir():
            raise RunFolderError(f"there is no run folder {path}: check it with `ls {path.parent}`")
        config = _read_object(path / CONFIG)
        system = _read_object(path / SYSTEM)
        if not (path / EVENTS).is_file():
            raise RunFolderError(f"{path / EVENTS} is missing: {_NEW_RUN}")
        return cls(path, config, system, disk or Disk())

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from running this folder; the lock dies with the process.

        Raises:
            RunFolderError: Another process holds it.
        """
        path = self.path / LOCK
        with self._writing(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            self._take_lock(descriptor, path)
            self._locked = True
            try:
                yield
            finally:
                self._locked = False
                fcntl.flock(descriptor, fcntl.LOCK_UN)
        finally:
            os.close(descriptor)

    def _take_lock(self, descriptor: int, path: Path) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise RunFolderError(
                    f"could not lock {path}: {_why(error)}; use a local file system"
                ) from error
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            raise RunFolderError(
                f"{self.path} is being run by another process{f' (pid {holder})' if holder else ''}: "
                "wait until it ends, or stop it"
            ) from error
        with self._writing(path):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)

    def append(self, record: EpochRecord) -> None:
        """Commit an epoch: one line at the end of `events.jsonl`, on disk on return.

        Raises:
            RunFolderError: It could not be written; the file is as it was before.
        """
        line = records.to_text(records.record_to_json(record)).encode() + b"\n"
        with self._writing(self.path / EVENTS):
            self._disk.append(self.path / EVENTS, line)

    def events(self, outside_usd: Decimal = Decimal(0)) -> tuple[EpochRecord, ...]:
        """Return the epochs that are committed, in order.

        A torn last line, which a killed process leaves, is not an epoch; it is cut off if this
        process holds the lock.

        Args:
            outside_usd: Dollars at most that were charged beside these epochs, e.g. the
                reservation of an epoch that was lost.

        Raises:
            RunFolderError: Any other damage; the message names file and line.
        """
        path = self.path / EVENTS
        try:
            if self._locked:
                self._disk.cut_torn_line(path)
            data = path.read_bytes()
        except OSError as error:
            raise RunFolderError(f"could not read {path}: {_why(error)}; {_NEW_RUN}") from error
        lines = data.split(b"\n")[:-1]
        account = Account(self._budget_usd(), outside_usd)
        found = []
        for number, line in enumerate(lines, start=1):
            try:
                record = records.record_from_json(records.parse(line))
                account.check(record, number)
            except (RunFolderError, ArithmeticError) as error:
                raise RunFolderError(f"{path}, line {number}: {error}: {_NEW_RUN}") from error
            found.append(record)
        return tuple(found)

    def _budget_usd(self) -> Decimal | None:
        given = self.config.get("budget_usd", self.config.get("budget"))
        if given is None or isinstance(given, bool) or not isinstance(given, int | float | str | Decimal):
            return None
        try:
            return Decimal(str(given))
        except InvalidOperation as error:
            raise RunFolderError(
                f"{self.path / CONFIG}: the budget {given!r} is not a number of dollars: {_NEW_RUN}"
            ) from error

    def checkpoint_path(self, epoch: int) -> Path:
        """The file that holds, or will hold, the state after `epoch` (0: before the first)."""
        return self.path / CHECKPOINTS / f"epoch-{epoch:06d}.safetensors"

    def checkpoints(self) -> tuple[int, ...]:
        """The epochs that have a checkpoint, ascending."""
        names = [_CHECKPOINT.fullmatch(p.name) for p in (self.path / CHECKPOINTS).glob("*")]
        return tuple(sorted(int(match[1]) for match in names if match))

    def write_checkpoint(
        self, epoch: int, tensors: Mapping[str, NDArray[Any]], state: Mapping[str, JSON]
    ) -> None:
        """Save the state after `epoch` as one file; keep it and the one before.

        Args:
            epoch: 0 for the state before the first epoch.
            tensors: Arrays of any shape and number type.
            state: JSON, NaN and infinities allowed; dollars are `Decimal` under a key ending in `_usd`.

        Raises:
            RunFolderError: It could not be written; older checkpoints are intact.
        """
        path = self.checkpoint_path(epoch)
        data = _tensors.pack(tensors, {"epoch": str(epoch), "state": records.to_text(state, strict=False)})
        with self._writing(path):
            path.parent.mkdir(exist_ok=True)
            self._disk.replace(path, data)
        with contextlib.suppress(OSError):  # An old file that stays does no harm.
            self._remove_other_checkpoints(epoch)

    def _remove_other_checkpoints(self, epoch: int) -> None:
        """Keep `epoch` and the last ones before it; later ones are of a run that was rolled back."""
        past = [saved for saved in self.checkpoints() if saved <= epoch]
        kept = {self.checkpoint_path(saved) for saved in past[-KEPT_CHECKPOINTS:]}
        for path in sorted((self.path / CHECKPOINTS).iterdir()):
            if path not in kept:
                self._disk.remove(path)

    def read_checkpoint(self, epoch: int) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Return the tensors and the state given to `write_checkpoint`.

        Raises:
            RunFolderError: There is none for this epoch, or it is damaged.
        """
        path = self.checkpoint_path(epoch)
        tensors, metadata = self._read_tensors(path)
        try:
            state = records.by_name(records.parse(metadata["state"], strict=False))
            if int(metadata["epoch"]) != epoch or not isinstance(state, dict):
                raise RunFolderError(f"it holds epoch {metadata['epoch']}")
        except (KeyError, ValueError, RunFolderError) as error:
            raise RunFolderError(f"{path} is damaged ({error}): {_NEW_RUN}") from error
        return tensors, state

    def write_model(
        self,
        params: NDArray[np.float32],
        layout: Mapping[str, tuple[int, ...]],
        metadata: Mapping[str, str],
    ) -> None:
        """Save the model as `model.safetensors`, one tensor per entry of the layout.

        Args:
            params: float32, flat, the concatenation of the layout's arrays in C order.
            layout: Shape by name, in order.
            metadata: Texts to store beside them.

        Raises:
            WorkloadError: The layout does not cover `params`.
            RunFolderError: It could not be written; an older model is intact.
        """
        sizes = [int(np.prod(shape, dtype=np.int64)) for shape in layout.values()]
        if params.ndim != 1 or sum(sizes) != params.size:
            raise WorkloadError(
                f"the layout has {sum(sizes)} numbers, the parameters have shape {params.shape}: "
                "make the workload's layout list every parameter"
            )
        parts = np.split(params.astype(np.float32, copy=False), np.cumsum(sizes)[:-1]) if sizes else []
        tensors = {name: part.reshape(layout[name]) for name, part in zip(layout, parts, strict=True)}
        texts = {**metadata, "layout": records.to_text(list(layout))}
        with self._writing(self.path / MODEL):
            self._disk.replace(self.path / MODEL, _tensors.pack(tensors, texts))

    def read_model(self) -> tuple[NDArray[np.float32], dict[str, tuple[int, ...]], dict[str, str]]:
        """Return the flat parameters, their layout and the metadata given to `write_model`.

        Raises:
            RunFolderError: There is no model, or it is damaged.
        """
        tensors, metadata = self._read_tensors(self.path / MODEL)
        try:
            names = records.parse(metadata.pop("layout"))
            layout = {name: tensors[name].shape for name in names}
        except (KeyError, TypeError, RunFolderError) as error:
            raise RunFolderError(f"{self.path / MODEL} is damaged ({error}): {_NEW_RUN}") from error
        flat = [tensors[name].reshape(-1) for name in names]
        return np.concatenate(flat) if flat else np.zeros(0, np.float32), layout, metadata

    def write_summary(self, summary: RunSummary) -> None:
        """Write `summary.json`.

        Raises:
            RunFolderError: It could not be written; an older summary is intact.
        """
        with self._writing(self.path / SUMMARY):
            self._disk.replace(self.path / SUMMARY, _document(records.summary_to_json(summary)))

    def read_summary(self) -> RunSummary:
        """Return what `write_summary` wrote.

        Raises:
            RunFolderError: The run has not ended, or the file is damaged.
        """
        path = self.path / SUMMARY
        if not path.exists():
            raise RunFolderError(f"{path} is missing, so the run has not ended: `{_resume(self.path)}`")
        try:
            return records.summary_from_json(_parse_file(path))
        except RunFolderError as error:
            cure = f"`{_resume(self.path)}` writes it anew"
            raise RunFolderError(f"{path} is damaged ({error}): {cure}") from error

    def _read_tensors(self, path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
        try:
            return _tensors.unpack(path.read_bytes())
        except FileNotFoundError as error:
            raise RunFolderError(f"{path} is missing: {_NEW_RUN}") from error
        except OSError as error:
            raise RunFolderError(f"could not read {path}: {_why(error)}; {_NEW_RUN}") from error
        except _tensors.DamagedTensorsError as error:
            raise RunFolderError(f"{path} is damaged ({error}): {_NEW_RUN}") from error

    @contextlib.contextmanager
    def _writing(self, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            cure = "free space, then" if full else "when it can be written again,"
            raise RunFolderError(
                f"could not write {path}: {_why(error)}; {cure} `{_resume(self.path)}`"
            ) from error


def new_run_path(root: Path, workload: str) -> Path:
    """Return a path below `root` that does not exist, named after the UTC time and the workload."""
    moment = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H-%M-%S")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", workload).strip("-.") or "run"
    path, suffix = root / f"{moment}-{name}", 2
    while path.exists():
        path, suffix = root / f"{moment}-{name}-{suffix}", suffix + 1
    return path


def resume_command(folder: str | Path) -> str:
    """The command that continues a run, as a shell takes it."""
    return f"python -m siren.run --resume {shlex.quote(str(folder))}"


_resume = resume_command


def _document(obj: Mapping[str, Any]) -> bytes:
    return records.to_text(obj, indent=2).encode() + b"\n"


def _parse_file(path: Path) -> Any:
    try:
        return records.parse(path.read_bytes())
    except OSError as error:
        raise RunFolderError(f"could not read it: {_why(error)}") from error


def _read_object(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise RunFolderError(f"{path} is missing, so {path.parent} is not a complete run folder: {_NEW_RUN}")
    try:
        obj = records.by_name(_parse_file(path))
        if not isinstance(obj, dict):
            raise RunFolderError("it holds no object")
    except RunFolderError as error:
        raise RunFolderError(f"{path} is damaged ({error}): {_NEW_RUN}") from error
    return obj


def _why(error: OSError) -> str:
    return error.strerror or str(error)
