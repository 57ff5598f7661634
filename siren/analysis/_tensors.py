"""Named arrays with metadata as the bytes of one safetensors file.

The same input gives the same bytes (the library writes metadata in a random order), and a digest in
the metadata finds damage (the format has none of its own).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

_LENGTH_BYTES = 8
"""A little-endian header length starts the file (github.com/huggingface/safetensors, "Format", 2026)."""
_DIGEST = "sha256"


class DamagedTensorsError(ValueError):
    """The bytes are not what `pack` wrote."""


def pack(tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> bytes:
    """Return the safetensors file that holds the arrays and the metadata.

    Args:
        tensors: Arrays of any shape, of a number type that safetensors knows.
        metadata: Texts; "sha256" is added.
    """
    arrays = {name: _plain(tensors[name]) for name in sorted(tensors)}
    complete = {**metadata, _DIGEST: _digest(arrays, metadata)}
    header, data = _split(safetensors.numpy.save(arrays, metadata=complete))
    header["__metadata__"] = dict(sorted(complete.items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _LENGTH_BYTES)
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text + data


def unpack(data: bytes) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Return the arrays (writable copies) and the metadata given to `pack`.

    Raises:
        DamagedTensorsError: The bytes are damaged, cut off, or from another program.
    """
    try:
        arrays = {name: np.array(array) for name, array in safetensors.numpy.load(data).items()}
        header, _ = _split(data)
        metadata = dict(header["__metadata__"])
        expected = metadata.pop(_DIGEST)
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise DamagedTensorsError(f"{type(error).__name__}: {error}") from error
    if _digest(arrays, metadata) != expected:
        raise DamagedTensorsError("its SHA-256 does not match its contents")
    return arrays, metadata


def _split(data: bytes) -> tuple[dict[str, Any], bytes]:
    start = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "little")
    return json.loads(data[_LENGTH_BYTES:start]), data[start:]


def _plain(array: NDArray[Any]) -> NDArray[Any]:
    """The array in C order and little-endian, as the file stores it."""
    return np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")


def _digest(arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(sorted(metadata.items())).encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(json.dumps([name, array.dtype.str, array.shape]).encode())
        digest.update(np.asarray(array, order="C").reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
