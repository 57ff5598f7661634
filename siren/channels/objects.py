"""Models as objects: npz without pickle, checked before use.

Arrays: `params` float32 (size,); `applied` int32 (n,); `meta`, JSON as uint8: run, epoch, launch,
version, contained, samples.
"""

from __future__ import annotations

import io
import json
import math
import struct
import zipfile
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from siren.channels.base import Counts, Params
from siren.worker._fields import Fields, MessageError
from siren.worker.messages import Task

META_BYTES = 4096
OVERHEAD_BYTES = 8192
"""Of an object, beside its arrays: zip directory, array headers and `meta`."""


_LOCAL_HEADER, _LENGTHS_AT = 30, 26
"""Of a zip member: bytes before its name, and where the lengths of name and extra field are (APPNOTE 4)."""


class NotFiniteError(MessageError):
    """A model with NaN or infinite entries: training diverged, or the object is damaged."""


@dataclass(frozen=True)
class Origin:
    """Whose model it is.

    Attributes:
        run, epoch, launch: See `siren.worker.messages.Task`.
        size: Parameters.
        functions: n.
    """

    run: str
    epoch: int
    launch: int
    size: int
    functions: int

    @classmethod
    def of(cls, task: Task) -> Origin:
        """Whose models a task reads and writes."""
        return cls(task.run, task.epoch, task.launch, task.size, task.functions)

    @property
    def bytes_max(self) -> int:
        """Most bytes that an object of this origin has."""
        return 4 * (self.size + self.functions) + OVERHEAD_BYTES


@dataclass(frozen=True)
class StoredModel:
    """What an object holds.

    Attributes:
        params: float32, (size,).
        applied: int32, (n,): pushes of every worker that it contains.
        version: Updates that led to it.
        contained: Updates that it contains.
        samples: Samples behind it: the weight of a function's own model or gradient.
    """

    params: Params
    applied: Counts
    version: int = 0
    contained: int = 0
    samples: int = 0


def pack(origin: Origin, model: StoredModel) -> bytes:
    """The object that holds a model."""
    meta = {
        "run": origin.run,
        "epoch": origin.epoch,
        "launch": origin.launch,
        "version": model.version,
        "contained": model.contained,
        "samples": model.samples,
    }
    file = io.BytesIO()
    np.savez(
        file,
        allow_pickle=False,
        params=model.params,
        applied=model.applied,
        meta=np.frombuffer(json.dumps(meta).encode(), np.uint8),
    )
    return file.getvalue()


def start_object(origin: Origin, params: Params) -> bytes:
    """The object from which a launched epoch starts, `siren.worker.layout.start`."""
    return pack(origin, StoredModel(params, np.zeros(origin.functions, np.int32)))


def unpack(body: bytes, origin: Origin, key: str, *, finite: bool = True) -> StoredModel:
    """Checks and reads what `pack` returned.

    Args:
        body: The object.
        origin: Whose it must be.
        key: Where it came from, for errors.
        finite: Whether NaN and infinity are refused.

    Raises:
        MessageError: It is malformed, has another size, dtype or shape, or is from elsewhere.
        NotFiniteError: It has NaN or infinite entries.
    """
    if len(body) > origin.bytes_max:
        raise MessageError(
            f"{key} has {len(body):,} bytes, more than the {origin.bytes_max:,} of a model of "
            f"{origin.size:,} parameters: remove it and run the epoch again"
        )
    try:
        arrays = _arrays(body, origin)
        read = Fields(json.loads(arrays["meta"].tobytes()), "the meta of a model")
        where = read.text("run", r".{0,64}"), *(read.integer(k, 0, 2**31) for k in ("epoch", "launch"))
        counts = [read.integer(name, 0, 2**53) for name in ("version", "contained", "samples")]
        read.end()
    except (
        ValueError,
        KeyError,
        TypeError,
        EOFError,
        OSError,
        RuntimeError,
        RecursionError,
        SyntaxError,
        struct.error,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise MessageError(
            f"{key} is no model of Siren ({error}): remove it and run the epoch again"
        ) from error
    if where != (origin.run, origin.epoch, origin.launch):
        raise MessageError(
            f"{key} is of run {where[0]}, epoch {where[1]}, launch {where[2]}, not of run {origin.run}, "
            f"epoch {origin.epoch}, launch {origin.launch}: give every run its own id"
        )
    if finite:
        check_finite(arrays["params"], key)
    return StoredModel(arrays["params"], arrays["applied"], *counts)


def check_finite(params: Params, key: str) -> None:
    """Refuses a model with NaN or infinite entries.

    Raises:
        NotFiniteError: It has such.
    """
    if not np.isfinite(params).all():
        raise NotFiniteError(
            f"{key} holds NaN or infinite values: training diverged; lower the learning rate"
        )


def check_live(params: Params, version: int, key: str) -> None:
    """Refuses a shared model with NaN or infinite entries.

    Raises:
        NotFiniteError: Updates made it so: training diverged.
        MessageError: It was never finite.
    """
    try:
        check_finite(params, key)
    except NotFiniteError as error:
        if version:
            raise
        raise MessageError(
            f"{key} starts with NaN or infinite values: restore the run from an earlier epoch"
        ) from error


def _arrays(body: bytes, origin: Origin) -> dict[str, NDArray[Any]]:
    expected: dict[str, tuple[str, int | None]] = {
        "params.npy": ("<f4", origin.size),
        "applied.npy": ("<i4", origin.functions),
        "meta.npy": ("|u1", None),
    }
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        members = archive.infolist()
        if sorted(m.filename for m in members) != sorted(expected):
            raise ValueError("its members are not params, applied and meta")
        return {
            member.filename.removesuffix(".npy"): _array(body, archive, member, *expected[member.filename])
            for member in members
        }


def _array(
    body: bytes, archive: zipfile.ZipFile, member: zipfile.ZipInfo, dtype: str, length: int | None
) -> NDArray[Any]:
    """One member, a view of the object where that is aligned.

    Its header must be as expected before anything of that size is touched. Reading through the archive
    would copy a large model three times.
    """
    if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
        raise ValueError(f"{member.filename} is compressed")
    with archive.open(member) as file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError(f"{member.filename} is not in npy format 1.0")
        shape, _, stored = np.lib.format.read_array_header_1_0(file)
        header_bytes = file.tell()
    count = math.prod(shape)
    good = len(shape) == 1 and (count == length if length is not None else count <= META_BYTES)
    if stored != np.dtype(dtype) or not good:
        raise ValueError(f"{member.filename} is {stored} of shape {shape}, not {dtype} of ({length},)")
    name_bytes, extra_bytes = struct.unpack_from("<HH", body, member.header_offset + _LENGTHS_AT)
    first = member.header_offset + _LOCAL_HEADER + name_bytes + extra_bytes
    raw = memoryview(body)[first : first + member.file_size]
    if len(raw) != header_bytes + count * stored.itemsize or zlib.crc32(raw) != member.CRC:
        raise ValueError(f"{member.filename} is damaged")
    return np.require(np.frombuffer(raw[header_bytes:], dtype), requirements="A")
