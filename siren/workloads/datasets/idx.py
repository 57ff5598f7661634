"""The IDX format of MNIST (LeCun, Cortes, Burges: "THE IDX FILE FORMAT")."""

from __future__ import annotations

import math
import struct

import numpy as np
from numpy.typing import NDArray

from siren.errors import DatasetError

_UNSIGNED_BYTE = 0x08


def parse_idx(data: bytes, name: str) -> NDArray[np.uint8]:
    """The array in an IDX file of unsigned bytes, read-only, of the shape that its header states.

    Args:
        data: The whole file.
        name: What to call it in an error.

    Raises:
        DatasetError: Not an IDX file of unsigned bytes, or its size does not match its header.
    """
    if len(data) < 4 or data[:2] != b"\0\0":
        raise DatasetError(f"{name} is not an IDX file: remove it and run again to fetch it anew")
    kind, dimensions = data[2], data[3]
    if kind != _UNSIGNED_BYTE:
        raise DatasetError(
            f"{name} holds IDX type 0x{kind:02x}, not unsigned bytes (0x08): use the original file"
        )
    start = 4 + 4 * dimensions
    if dimensions == 0 or len(data) < start:
        raise DatasetError(f"{name} ends inside its IDX header: remove it and run again to fetch it anew")
    shape = struct.unpack(f">{dimensions}I", data[4:start])
    wanted = math.prod(shape)
    if len(data) - start != wanted:
        raise DatasetError(
            f"{name} has {len(data) - start:,} bytes after its header, which states {wanted:,}: "
            "remove it and run again to fetch it anew"
        )
    return np.frombuffer(data, dtype=np.uint8, offset=start).reshape(shape)
