"""The training set as fixed-size records that byte ranges can address; written by the manager, read here.

A record is one row: its features in their stored dtype, then its label. Integer labels are stored
in the smallest unsigned dtype and become int64 again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from siren.channels.s3 import in_parallel
from siren.worker.messages import DataRef, MessageError

Features = NDArray[Any]
Labels = NDArray[Any]

RANGE_BYTES = 16 * 1024 * 1024
OBJECT_BYTES = 64 * 1024 * 1024
"""Both as in `siren.worlds.laws`, which runs where pydantic is."""

_CHUNK_ROWS = 1 << 16


def record_dtype(ref: DataRef) -> np.dtype[Any]:
    """The dtype of one record.

    Raises:
        MessageError: Its size is not `ref.record_bytes`.
    """
    dtype = np.dtype([("features", ref.feature_dtype, ref.feature_shape), ("label", ref.label_dtype)])
    if dtype.itemsize != ref.record_bytes:
        raise MessageError(
            f"a record of features {ref.feature_dtype} {ref.feature_shape} and label {ref.label_dtype} has "
            f"{dtype.itemsize} bytes, not {ref.record_bytes}: correct the task's dataset"
        )
    return dtype


def describe(features: Features, labels: Labels) -> DataRef:
    """How a training set is stored, with the checksum of its records in the prefix.

    Args:
        features: (rows, ...), booleans, integers or floats.
        labels: (rows,), integers from 0 on, or float32.
    """
    stored = labels.dtype
    if np.issubdtype(stored, np.integer):
        stored = np.min_scalar_type(int(labels.max()))
    size = features[:1].nbytes + stored.itemsize
    ref = DataRef(
        prefix="",
        rows=len(features),
        record_bytes=size,
        feature_dtype=features.dtype.newbyteorder("<").str,
        feature_shape=tuple(int(n) for n in features.shape[1:]),
        label_dtype=stored.newbyteorder("<").str,
        rows_per_object=max(1, OBJECT_BYTES // size),
    )
    digest = hashlib.sha256(repr(sorted(vars(ref).items())).encode())
    for start in range(0, ref.rows, _CHUNK_ROWS):
        digest.update(pack(ref, features[start : start + _CHUNK_ROWS], labels[start : start + _CHUNK_ROWS]))
    return DataRef(**{**vars(ref), "prefix": f"data/{digest.hexdigest()}/"})


def pack(ref: DataRef, features: Features, labels: Labels) -> bytes:
    """Rows as records."""
    records = np.empty(len(features), record_dtype(ref))
    records["features"], records["label"] = features, labels
    return records.tobytes()


def object_key(ref: DataRef, index: int) -> str:
    """Key of an object."""
    return f"{ref.prefix}{index:05d}.bin"


def objects(ref: DataRef, features: Features, labels: Labels) -> Iterator[tuple[str, bytes]]:
    """(key, content) of every object of a training set."""
    for index, start in enumerate(range(0, ref.rows, ref.rows_per_object)):
        rows = slice(start, start + ref.rows_per_object)
        yield object_key(ref, index), pack(ref, features[rows], labels[rows])


def ranges(ref: DataRef, first_row: int, rows: int) -> list[tuple[int, int, int, int]]:
    """What to read for a shard that wraps around at the end of the stored rows.

    Returns:
        (row within the shard, object, row within the object, rows) of every ranged read.
    """
    found = []
    most = max(1, RANGE_BYTES // ref.record_bytes)
    done = 0
    while done < rows:
        row = (first_row + done) % ref.rows
        index, inside = divmod(row, ref.rows_per_object)
        left_in_object = min(ref.rows_per_object, ref.rows - index * ref.rows_per_object) - inside
        count = min(most, left_in_object, rows - done)
        found.append((done, index, inside, count))
        done += count
    return found


def load(
    ref: DataRef, first_row: int, rows: int, get_range: Callable[[str, int, int], bytes]
) -> tuple[Features, Labels]:
    """The features and labels of a shard, in stored order, each C-contiguous.

    Args:
        ref: The training set.
        first_row: Where the shard begins.
        rows: Its rows, at most those stored.
        get_range: Reads (key, first byte, bytes).

    Raises:
        MessageError: See `record_dtype`, or the objects are shorter than the task says.
    """
    dtype = record_dtype(ref)
    features = np.empty((rows, *ref.feature_shape), ref.feature_dtype)
    integral = np.issubdtype(np.dtype(ref.label_dtype), np.integer)
    labels = np.empty(rows, np.int64 if integral else ref.label_dtype)

    def read(part: tuple[int, int, int, int]) -> None:
        at, index, inside, count = part
        raw = get_range(object_key(ref, index), inside * ref.record_bytes, count * ref.record_bytes)
        records = np.frombuffer(raw, dtype)
        features[at : at + count] = records["features"]
        labels[at : at + count] = records["label"]

    in_parallel(read, ranges(ref, first_row, rows))
    return features, labels
