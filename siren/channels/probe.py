"""What an S3-like store can promise, found out by trying."""

from __future__ import annotations

from typing import Any

from siren.channels.base import ChannelProperties, StoreError
from siren.channels.s3 import MAX_BYTES, ObjectStore


def probe_store(store: ObjectStore, key: str) -> ChannelProperties:
    """Writes one small object a few times and sees which conditions the store enforces.

    `ChannelProperties.require` then refuses a rule that needs more.

    Args:
        store: A store that allows this key.
        key: Of the object, which stays there; new.

    Raises:
        StoreError: It does not store at all, or refuses a write whose condition holds.
    """
    first = _write(store, key, b"1", if_none=True)
    if first is None:
        raise StoreError(f"the store says that {key}, which is new, exists: use another S3 server")
    second = _write(store, key, b"2", if_match=first)
    if second is None:
        raise StoreError("the store refuses a write whose If-Match names the newest version: use another")
    refused_stale = store.put(key, b"3", if_match=first) is None
    refused_second = store.put(key, b"4", if_none=True) is None
    now = store.get(key, 16)
    kept = now is not None and now.body == b"2"
    return ChannelProperties(
        atomic_add=False, compare_and_swap=refused_stale and refused_second and kept, max_bytes=MAX_BYTES
    )


def _write(store: ObjectStore, key: str, body: bytes, **condition: Any) -> str | None:
    """See `ObjectStore.put`; one that was done and not answered is refused when the client repeats it."""
    tag = store.put(key, body, **condition)
    if tag is None:
        found = store.get(key, 16)
        tag = found.etag if found and found.body == body else None
    return tag
