"""Parameters and data as S3 objects, with conditional writes.

S3 answers a write whose condition fails with 412, one that races with another with 409, and an
If-Match on a missing key with 404 (Amazon S3 user guide, conditional writes; botocore 1.44.5).
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np

from siren.channels.base import ChannelProperties, Params, Push, Snapshot, StoreError
from siren.channels.objects import Origin, StoredModel, check_finite, check_live, pack, unpack
from siren.hsp import rules
from siren.worker import layout
from siren.worker._fields import MessageError

MAX_BYTES = 5_000_000_000
"""One PUT (Amazon S3 user guide, quotas)."""

PARALLEL_REQUESTS = 16
READ_ATTEMPTS = 4
"""Tries of a read whose body breaks off or is not what its checksum says: the client's own retries end
where the body begins."""

Price = Literal["puts", "gets"]
"""Requests have two prices: that of PUT and POST, and that of GET and HEAD (Amazon S3 pricing)."""

_CONFLICTS = {409, 412}
_KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
Item = TypeVar("Item")
Answer = TypeVar("Answer")
_asking = threading.local()
"""`count`, in a thread that asks: called before every HTTP request."""


class RequestsSpentError(StoreError):
    """S3 may not be asked again: no more requests are set aside."""


def s3_client(region: str, url: str | None) -> Any:
    """A client of S3 or of a like server at `url`; botocore alone loads faster than boto3."""
    import botocore.session
    from botocore.config import Config

    config = Config(
        retries={"mode": "standard", "total_max_attempts": 6},
        connect_timeout=5,
        read_timeout=30,
        max_pool_connections=PARALLEL_REQUESTS,
        s3={"addressing_style": "path" if url else "auto"},
    )
    session = botocore.session.Session()
    return session.create_client("s3", region_name=region, endpoint_url=url, config=config)


def in_parallel(call: Callable[[Item], Answer], items: Sequence[Item]) -> list[Answer]:
    """The answers to `call` for every item, up to `PARALLEL_REQUESTS` at a time."""
    if len(items) < 2:
        return [call(item) for item in items]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(min(PARALLEL_REQUESTS, len(items))) as pool:
        return list(pool.map(call, items))


class Object(NamedTuple):
    """An object and the tag of its content."""

    body: bytes
    etag: str


def _count(**_: Any) -> None:
    """Called by clients in the thread that asks, for every HTTP request, those that they repeat too."""
    count = getattr(_asking, "count", None)
    if count is not None:
        count()


class ObjectStore:
    """A bucket, of which only some prefixes may be touched; counts its requests, and may be limited.

    Args:
        client: A boto3 or botocore client of S3.
        bucket: Its name.
        prefixes: Keys must begin with one of them.
        puts_max, gets_max: The most requests, by price; None for any number.

    Attributes:
        puts, gets: HTTP requests so far, by price; those that the client repeats are among them.
        received_bytes: What was read.
    """

    def __init__(
        self,
        client: Any,
        bucket: str,
        prefixes: tuple[str, ...],
        puts_max: int | None = None,
        gets_max: int | None = None,
    ) -> None:
        self._client = client
        self._bucket = bucket
        self._prefixes = prefixes
        self._most = {"puts": puts_max, "gets": gets_max}
        self._lock = threading.Lock()
        client.meta.events.register("before-send.s3", _count, unique_id="siren-requests")
        self.puts = self.gets = self.received_bytes = 0

    @property
    def spent(self) -> bool:
        """Whether another read or another write would be one too many."""
        return any(most is not None and getattr(self, price) >= most for price, most in self._most.items())

    def get(self, key: str, bytes_max: int) -> Object | None:
        """An object of at most `bytes_max` bytes; None if there is none.

        Raises:
            MessageError: The key is not allowed, or the object is larger.
        """
        return self._read(key, bytes_max)

    def get_range(self, key: str, first: int, count: int) -> bytes:
        """`count` bytes of an object from byte `first` on.

        Raises:
            MessageError: The key is not allowed, or there are fewer bytes.
        """
        answer = self._read(key, count, Range=f"bytes={first}-{first + count - 1}")
        if answer is None or len(answer.body) != count:
            raise MessageError(
                f"{key} lacks bytes {first} to {first + count - 1}: stage the training set again"
            )
        return answer.body

    def put(self, key: str, body: bytes, *, if_match: str = "", if_none: bool = False) -> str | None:
        """Writes an object; its tag, or None if the condition does not hold.

        Args:
            key: Where to.
            body: What.
            if_match: Write only over the object of this tag.
            if_none: Write only if there is none.
        """
        condition = {"IfMatch": if_match} if if_match else {"IfNoneMatch": "*"} if if_none else {}
        refused = _CONFLICTS | {404} if if_match else _CONFLICTS
        key = self._checked(key)
        with self.counted("puts"):
            answer = self._ask(refused, self._client.put_object, Key=key, Body=body, **condition)
        return str(answer["ETag"]) if answer else None

    def _read(self, key: str, bytes_max: int, **options: str) -> Object | None:
        from botocore.exceptions import FlexibleChecksumError, HTTPClientError, IncompleteReadError

        key = self._checked(key)
        for attempt in range(READ_ATTEMPTS):
            with self.counted("gets"):
                answer = self._ask({404}, self._client.get_object, Key=key, **options)
            if answer is None:
                return None
            with self._lock:
                self.received_bytes += answer["ContentLength"]
            if answer["ContentLength"] > bytes_max:
                answer["Body"].close()
                raise MessageError(
                    f"{key} has {answer['ContentLength']:,} bytes where at most {bytes_max:,} are expected: "
                    "remove it and run the epoch again"
                )
            try:
                return Object(answer["Body"].read(), str(answer["ETag"]))
            except (FlexibleChecksumError, HTTPClientError, IncompleteReadError):
                if attempt == READ_ATTEMPTS - 1:
                    raise
                time.sleep(0.05 * 2**attempt)
        raise AssertionError("unreachable")

    @contextmanager
    def counted(self, price: Price) -> Iterator[None]:
        """Counts every HTTP request that the client sends within its block, in this thread.

        Raises:
            RequestsSpentError: One more than the most was to be sent; it was not.
        """

        def count() -> None:
            with self._lock:
                sent, most = getattr(self, price), self._most[price]
                if most is not None and sent >= most:
                    raise RequestsSpentError(
                        f"S3 was asked {sent:,} times ({price}), as often as is set aside for this function: "
                        "see whether the store refuses requests, then run the epoch again"
                    )
                setattr(self, price, sent + 1)

        _asking.count = count
        try:
            yield
        finally:
            _asking.count = None

    def _ask(self, refused: set[int], call: Callable[..., Any], **arguments: Any) -> Any:
        """The answer of a request, or None if its HTTP status is one of `refused`."""
        from botocore.exceptions import ClientError

        try:
            return call(Bucket=self._bucket, **arguments)
        except ClientError as error:
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") in refused and (
                error.response.get("Error", {}).get("Code") != "NoSuchBucket"
            ):
                return None
            raise

    def _checked(self, key: str) -> str:
        if not key.startswith(self._prefixes) or not _KEY.fullmatch(key):
            raise MessageError(
                f"the key {key[:80]!r} is outside {' and '.join(self._prefixes)}: a run touches only its own"
            )
        return key


class S3Model:
    """The shared model as one object that writes replace.

    Args:
        store: Where it is.
        origin: Whose it is.
        key: Its key.
    """

    properties = ChannelProperties(atomic_add=False, compare_and_swap=True, max_bytes=MAX_BYTES)

    def __init__(self, store: ObjectStore, origin: Origin, key: str) -> None:
        self._store = store
        self._origin = origin
        self._key = key

    def get(self) -> Snapshot:
        """See `SharedModel.get`."""
        found = self._store.get(self._key, self._origin.bytes_max)
        if found is None:
            raise StoreError(f"{self._key} is missing: the manager writes it before it launches an epoch")
        model = unpack(found.body, self._origin, self._key, finite=False)
        check_live(model.params, model.version, self._key)
        return Snapshot(model.version, model.params, model.contained, model.applied, found.etag)

    def write(self, worker: int, index: int, read: Snapshot, params: Params) -> Push:
        """See `SharedModel.write`."""
        return self._put(worker, index, read, params, "")

    def swap(self, worker: int, index: int, read: Snapshot, params: Params) -> Push:
        """Replaces the model if nobody wrote since the read; arguments as in `SharedModel.write`."""
        return self._put(worker, index, read, params, read.token)

    def _put(self, worker: int, index: int, read: Snapshot, params: Params, if_match: str) -> Push:
        if read.applied[worker] > index:
            return Push(False, False, read.version, None)
        applied = read.applied.copy()
        applied[worker] = index + 1
        model = StoredModel(params, applied, read.version + 1, read.contained + 1)
        written = self._store.put(self._key, pack(self._origin, model), if_match=if_match) is not None
        return Push(written, not written, read.version + written, None)


def read_model(store: ObjectStore, origin: Origin, key: str, *, finite: bool = True) -> StoredModel | None:
    """The model in an object; None if there is none.

    Raises:
        MessageError: See `unpack`.
    """
    found = store.get(key, origin.bytes_max)
    return unpack(found.body, origin, key, finite=finite) if found else None


class S3Barrier:
    """`sync` over S3: every function writes its gradient, function 0 merges (LambdaML's AllReduce).

    Gradients are merged in the order of the functions, in float64, whenever they arrive. One that is
    not finite is merged as well: the model after it tells every function that training diverged.

    Args:
        store: Where the objects are.
        origin: Whose they are.
        folder: `Task.folder`.
        worker: This function.
        members: How many functions have a push of a step, `Task.members`.
        rate: Learning rate.
    """

    def __init__(
        self,
        store: ObjectStore,
        origin: Origin,
        folder: str,
        worker: int,
        members: Callable[[int], int],
        rate: float,
    ) -> None:
        self._store = store
        self._origin = origin
        self._folder = folder
        self._worker = worker
        self._members = members
        self._rate = rate
        self._none = np.zeros(origin.functions, np.int32)
        self._current: tuple[int, Params] | None = None
        self._gathered: dict[int, StoredModel] = {}

    def poll(self, step: int) -> tuple[int, Params] | None:
        """See `Barrier.poll`."""
        if self._current and self._current[0] >= step:
            return self._current
        merges = self._worker == 0 and len(self._gathered) > 0
        found = self._merge(step - 1) if merges else self._model(step)
        if found is not None:
            self._current = step, found
            self._gathered.clear()
            return self._current
        return None

    def contribute(self, step: int, gradient: Params, samples: int) -> None:
        """See `Barrier.contribute`."""
        mine = StoredModel(gradient, self._none, step, 1, samples)
        if self._worker == 0:
            self._gathered[0] = mine
        else:
            self._store.put(layout.gradient(self._folder, step, self._worker), pack(self._origin, mine))

    def _model(self, step: int) -> Params | None:
        key = layout.after_step(self._folder, step - 1) if step else layout.start(self._folder)
        found = read_model(self._store, self._origin, key)
        return found.params if found else None

    def _merge(self, step: int) -> Params | None:
        """The model after a step whose gradients are all in, written for the others."""
        missing = [i for i in range(self._members(step)) if i not in self._gathered]
        keys = [layout.gradient(self._folder, step, i) for i in missing]
        for i, found in zip(missing, self._read_all(keys), strict=True):
            if found is not None:
                self._gathered[i] = found
        if len(self._gathered) < self._members(step) or self._current is None:
            return None
        mean = rules.Mean(self._origin.size)
        for i in range(self._members(step)):
            mean.add(self._gathered[i].params, float(self._gathered[i].samples))
        params = np.empty_like(self._current[1])
        with np.errstate(all="ignore"):
            rules.step(self._current[1], mean.value(), self._rate, params)
        key = layout.after_step(self._folder, step)
        body = pack(self._origin, StoredModel(params, self._none, step + 1, step + 1))
        if self._store.put(key, body, if_none=True) is None:
            return self._model(step + 1)  # an earlier attempt was here: all must go on from one model
        check_finite(params, key)
        return params

    def _read_all(self, keys: list[str]) -> list[StoredModel | None]:
        def read(key: str) -> StoredModel | None:
            return read_model(self._store, self._origin, key, finite=False)

        return in_parallel(read, keys)
