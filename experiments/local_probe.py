"""The function of `experiments/calibrate_local.py`: measures from inside what a worker meets.

Nothing but the standard library is imported before an event asks for it, so that the start of its
environment is that of an empty handler.
"""

from __future__ import annotations

import time
from typing import Any

LATENCY_FLOATS = 28
RANGE_BYTES = 16 * 1024 * 1024
"""As workers read their shards: `siren.worlds.laws.RANGE_BYTES`, which cannot be imported here."""

_made: dict[str, Any] = {}


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Carries out one measurement; `began` is when it was asked for, in Unix time."""
    began = time.time()
    return {"began": began, **MEASUREMENTS[event.get("measure", "nothing")](event)}


def _nothing(event: dict[str, Any]) -> dict[str, Any]:
    return {}


def _s3_latency(event: dict[str, Any]) -> dict[str, Any]:
    """Seconds of reads and writes of a small model, in turns."""
    import numpy as np

    from siren.channels.objects import Origin, start_object
    from siren.channels.s3 import S3Model

    store, params = _store(event), np.ones(LATENCY_FLOATS, np.float32)
    origin, key = Origin(event["run"], 1, 0, LATENCY_FLOATS, 1), f"runs/{event['run']}/{event['name']}.npz"
    store.put(key, start_object(origin, params))
    model = S3Model(store, origin, key)
    read, writes, reads = model.get(), [], []
    window = time.time()
    for _ in range(event["count"]):
        writes.append(_seconds(lambda: model.write(0, 0, read, params)))
        if not event.get("writes_only"):
            reads.append(_seconds(model.get))
    return {"from": window, "to": time.time(), "reads": reads, "writes": writes}


def _redis_latency(event: dict[str, Any]) -> dict[str, Any]:
    """Seconds of reads and pushes of a small model, in turns."""
    import numpy as np

    model, update = _redis_model(event, LATENCY_FLOATS), np.full(LATENCY_FLOATS, 1e-3, np.float32)
    model.get()
    start = model.version()
    reads, writes = [], []
    for index in range(start, start + event["count"]):
        writes.append(_seconds(lambda i=index: model.add(0, i, i, update, 1.0, 0.0)))
        reads.append(_seconds(model.get))
    return {"reads": reads, "writes": writes}


def _s3_transfer(event: dict[str, Any]) -> dict[str, Any]:
    """Reads a staged object `count` times, in ranges and in parallel as a worker reads its shard."""
    from siren.channels.s3 import in_parallel

    store, size = _store(event), event["bytes"]
    window = time.time()
    for _ in range(event["count"]):
        in_parallel(
            lambda first: len(store.get_range(event["key"], first, min(RANGE_BYTES, size - first))),
            range(0, size, RANGE_BYTES),
        )
    return {"from": window, "to": time.time(), "bytes": size * event["count"]}


def _redis_transfer(event: dict[str, Any]) -> dict[str, Any]:
    """Reads a large model `count` times."""
    model = _redis_model(event, event["floats"])
    window = time.time()
    for _ in range(event["count"]):
        model.get()
    return {"from": window, "to": time.time(), "bytes": 4 * event["floats"] * event["count"]}


def _seconds(call: Any) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _store(event: dict[str, Any]) -> Any:
    from siren.channels.s3 import ObjectStore, s3_client

    if "s3" not in _made:
        _made["s3"] = s3_client(event["region"], event["s3_url"])
    return ObjectStore(_made["s3"], event["bucket"], (f"runs/{event['run']}/",))


def _redis_model(event: dict[str, Any], floats: int) -> Any:
    import numpy as np

    from siren.channels.redis import RedisModel, redis_client

    if "redis" not in _made:
        _made["redis"] = redis_client(event["redis_url"])
    model = RedisModel(_made["redis"], f"{event['run']}-{floats}", 1, 0, floats, 1)
    model.seed(lambda: np.ones(floats, np.float32))
    return model


MEASUREMENTS = {
    "nothing": _nothing,
    "s3_latency": _s3_latency,
    "redis_latency": _redis_latency,
    "s3_transfer": _s3_transfer,
    "redis_transfer": _redis_transfer,
}
